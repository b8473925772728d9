// Makes the memory that the main thread and the workers of one image operation share, from the image's manifest.
import { assert } from "../../protocol/errors.ts";
import { wrongGroupsMax } from "../../protocol/groups.ts";
import { digestBytes, frameOffsets, groupCount, type Manifest } from "../../protocol/manifest.ts";
import { counters, type SharedImage, slots } from "./image-job.ts";
import { sourcesMax } from "./source-account.ts";

export function shareImage(manifest: Manifest): SharedImage {
  const count = groupCount(manifest.sizeBytes);
  // Claims overshoot the end by some groups for each worker.
  assert(count < 2 ** 30, "a group's number fits the claim counter");
  const shared: SharedImage = {
    control: new Int32Array(new SharedArrayBuffer(4 * Object.keys(slots).length)),
    counts: new BigInt64Array(new SharedArrayBuffer(8 * Object.keys(counters).length)),
    good: new Int32Array(new SharedArrayBuffer(4 * Math.ceil(count / 32))),
    zeroing: new Int32Array(new SharedArrayBuffer(4 * Math.ceil(count / 32))),
    found: new Uint8Array(new SharedArrayBuffer(digestBytes * count)),
    sourceBytes: new BigInt64Array(new SharedArrayBuffer(8 * sourcesMax)),
    sourceGaveUp: new Int32Array(new SharedArrayBuffer(4 * sourcesMax)),
    wrong: new Int32Array(new SharedArrayBuffer(4 * wrongGroupsMax)),
    wrongFound: new Uint8Array(new SharedArrayBuffer(digestBytes * wrongGroupsMax)),
    digests: new Uint8Array(new SharedArrayBuffer(digestBytes * count)),
    frameBytes: new Uint32Array(new SharedArrayBuffer(4 * count)),
    frameStarts: new Float64Array(new SharedArrayBuffer(8 * (count + 1))),
  };
  shared.digests.set(manifest.groups);
  shared.frameBytes.set(manifest.frameBytes);
  shared.frameStarts.set(frameOffsets(manifest));
  return shared;
}
