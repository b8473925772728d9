// Receives an image's frames: cuts the stream at the manifest's lengths, writes each frame, verifies each group.
import type { ImageView } from "../../protocol/api.ts";
import { groupDigest, groupLength, type Manifest } from "../../protocol/manifest.ts";
import type { Catalog } from "./catalog.ts";
import { cutFrames } from "./frame-cutter.ts";
import { basesOf, createFrameSink } from "./frame-sink.ts";
import { createGroupWindow, type GroupPool, type GroupWindow } from "./group-pool.ts";
import { createStaging } from "./staging.ts";
import { verifyZeroes } from "./zero-groups.ts";

export interface Reception {
  readonly manifest: Manifest;
  readonly frames: AsyncIterable<Uint8Array>;
  readonly pool: GroupPool;
  readonly signal: AbortSignal;
}

/** @throws `image.truncated`, `image.corrupt`; nothing of the image is then kept */
export async function receiveInto(catalog: Catalog, reception: Reception): Promise<ImageView> {
  const { manifest, frames, pool, signal } = reception;
  await using staging = await createStaging(catalog.directory);
  await using sink = await createFrameSink(staging.path, basesOf(catalog));
  {
    await using window: GroupWindow<unknown> = createGroupWindow(pool, async () => signal.throwIfAborted());
    await cutFrames(
      frames,
      manifest,
      {
        slot: window.slot,
        settle: window.finish,
        async take(group, slot, frameBytes) {
          const wanted = groupOf(manifest, group);
          await sink.add(group, wanted.digest, slot.subarray(0, frameBytes));
          window.start(slot, pool.run("verify", { slot, frameBytes, ...wanted }));
        },
      },
      signal,
    );
  }
  await verifyZeroes(manifest, reception);
  await sink.finish();
  signal.throwIfAborted();
  return await catalog.publish(staging, manifest);
}

/** What a worker wants to know of a group that it verifies. */
export function groupOf(manifest: Manifest, group: number) {
  return {
    group,
    length: groupLength(manifest.sizeBytes, group),
    root: manifest.frameBytes.length === 1,
    digest: groupDigest(manifest, group).slice(),
  };
}
