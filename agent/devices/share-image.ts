// Makes the memory that the main thread and the workers of one image operation share, from the image's manifest.
import { assert } from "../../protocol/errors.ts";
import { wrongGroupsMax } from "../../protocol/groups.ts";
import { digestBytes, frameOffsets, groupCount, type Manifest } from "../../protocol/manifest.ts";
import { counters, type SharedImage, slots } from "./image-job.ts";
import { sourcesMax } from "./source-account.ts";

/** @param same of the same image: what is the manifest's is not kept twice */
export function shareImage(manifest: Manifest, same?: SharedImage): SharedImage {
  const count = groupCount(manifest.sizeBytes);
  // Claims overshoot the end by some groups for each worker.
  assert(count < 2 ** 30, "a group's number fits the claim counter");
  const { digests, frameBytes, frameStarts } = same ?? manifestPart(manifest, count);
  return {
    ...{ digests, frameBytes, frameStarts },
    control: new Int32Array(new SharedArrayBuffer(4 * Object.keys(slots).length)),
    counts: new BigInt64Array(new SharedArrayBuffer(8 * Object.keys(counters).length)),
    good: new Int32Array(new SharedArrayBuffer(4 * Math.ceil(count / 32))),
    zeroing: new Int32Array(new SharedArrayBuffer(4 * Math.ceil(count / 32))),
    found: new Uint8Array(new SharedArrayBuffer(digestBytes * count)),
    sourceBytes: new BigInt64Array(new SharedArrayBuffer(8 * sourcesMax)),
    sourceGaveUp: new Int32Array(new SharedArrayBuffer(4 * sourcesMax)),
    wrong: new Int32Array(new SharedArrayBuffer(4 * wrongGroupsMax)),
    wrongFound: new Uint8Array(new SharedArrayBuffer(digestBytes * wrongGroupsMax)),
  };
}

function manifestPart(
  manifest: Manifest,
  count: number,
): Pick<SharedImage, "digests" | "frameBytes" | "frameStarts"> {
  const part = {
    digests: new Uint8Array(new SharedArrayBuffer(digestBytes * count)),
    frameBytes: new Uint32Array(new SharedArrayBuffer(4 * count)),
    frameStarts: new Float64Array(new SharedArrayBuffer(8 * (count + 1))),
  };
  part.digests.set(manifest.groups);
  part.frameBytes.set(manifest.frameBytes);
  part.frameStarts.set(frameOffsets(manifest));
  return part;
}
