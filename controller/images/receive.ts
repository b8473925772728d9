// Receives an image's frames: cuts the stream at the manifest's lengths, writes each frame, verifies each group.
import type { ImageView } from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
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
  /** By `knownGroups`: frames that the stream leaves out. */
  readonly known?: Uint8Array | undefined;
  readonly pool: GroupPool;
  readonly signal: AbortSignal;
}

/**
 * @throws `image.truncated`, `image.corrupt`, `image.incomplete` when the store has a known group no longer, or damaged;
 * nothing of the image is then kept
 */
export async function receiveInto(catalog: Catalog, reception: Reception): Promise<ImageView> {
  const { manifest, frames, known, pool, signal } = reception;
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
        owned: {
          has: (group) => known?.[group] === 1,
          async take(group, slot) {
            const [frameBytes, wanted] = [manifest.frameBytes[group]!, groupOf(manifest, group)];
            if ((await sink.addKnown(group, wanted.digest, slot.subarray(0, frameBytes))) === "unknown")
              throw incomplete(group);
            const verified = pool.run("verify", { slot, frameBytes, ...wanted });
            window.start(
              slot,
              verified.catch((cause) => {
                throw incomplete(group, cause);
              }),
            );
          },
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

function incomplete(group: number, cause?: unknown): BedplateError {
  return new BedplateError(
    "image.incomplete",
    `The store has group ${group} no longer, or damaged: all frames must be sent.`,
    { details: { group }, cause },
  );
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
