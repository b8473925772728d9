// Receives an image's frames: cuts the stream at the manifest's lengths, writes each frame, verifies each group.
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { ImageView } from "../../protocol/api.ts";
import { hex } from "../../protocol/bytes.ts";
import { assert, BedplateError } from "../../protocol/errors.ts";
import { groupBytes, groupDigest, groupLength, type Manifest } from "../../protocol/manifest.ts";
import { type Catalog, createFile } from "./catalog.ts";
import { createGroupWindow, type GroupPool, type GroupWindow } from "./group-pool.ts";
import { imageLimits } from "./limits.ts";
import { appendAll } from "./pack.ts";
import { createStaging } from "./staging.ts";

export interface Reception {
  readonly manifest: Manifest;
  readonly frames: AsyncIterable<Uint8Array>;
  readonly pool: GroupPool;
  readonly signal: AbortSignal;
}

/** @throws `image.truncated`, `image.corrupt`; nothing of the image is then kept */
export async function receiveInto(catalog: Catalog, reception: Reception): Promise<ImageView> {
  await using staging = await createStaging(catalog.directory);
  await using file = await createFile(join(staging.path, "frames"));
  await writeFrames(file, reception);
  await verifyZeroes(reception);
  reception.signal.throwIfAborted();
  return await catalog.publish(staging, reception.manifest);
}

async function writeFrames(file: FileHandle, { manifest, frames, pool, signal }: Reception): Promise<void> {
  const { frameBytes, sizeBytes } = manifest;
  const count = frameBytes.length;
  assert(
    frameBytes.every((length) => length <= imageLimits.frameBytesMax),
    "frames fit their slots",
  );
  const next = (from: number) => {
    let group = from;
    while (group < count && frameBytes[group] === 0) group++;
    return group;
  };
  await using window: GroupWindow<unknown> = createGroupWindow(pool, async () => signal.throwIfAborted());
  let [group, filled, slot] = [next(0), 0, await window.slot()];
  for await (const chunk of frames) {
    signal.throwIfAborted();
    for (let at = 0; at < chunk.length; ) {
      if (group === count) {
        throw new BedplateError(
          "image.corrupt",
          `Bytes follow the frame of the last group (group ${count - 1}, offset ${sizeBytes}).`,
          {
            details: { root: hex(manifest.root), group: count - 1, offset: sizeBytes },
          },
        );
      }
      const length = frameBytes[group]!;
      const piece = chunk.subarray(at, at + length - filled);
      slot.set(piece, filled);
      filled += piece.length;
      at += piece.length;
      if (filled < length) continue;
      await appendAll(file, slot.subarray(0, length));
      window.start(
        slot,
        pool.run("verify", {
          slot,
          frameBytes: length,
          length: groupLength(sizeBytes, group),
          group,
          root: count === 1,
          digest: groupDigest(manifest, group).slice(),
        }),
      );
      slot = await window.slot();
      [group, filled] = [next(group + 1), 0];
    }
  }
  // What is wrong with a whole group says more than that others are missing.
  await window.finish();
  if (group < count) {
    const offset = group * groupBytes;
    throw new BedplateError(
      "image.truncated",
      `The frames end within group ${group} (offset ${offset}), with ${filled} of ${frameBytes[group]} bytes.`,
      {
        details: { root: hex(manifest.root), group, offset, received: filled, expected: frameBytes[group] },
      },
    );
  }
}

/** A group without a frame stands for zeroes only if its digest says so. */
async function verifyZeroes({ manifest, pool, signal }: Reception): Promise<void> {
  const { frameBytes, sizeBytes } = manifest;
  const zeroes = [...frameBytes.keys()].filter((group) => frameBytes[group] === 0);
  const { zeroGroupsPerTask } = imageLimits;
  for (let at = 0; at < zeroes.length; at += zeroGroupsPerTask * pool.threads) {
    signal.throwIfAborted();
    const tasks = Array.from({ length: pool.threads }, (_, k) => {
      const start = at + k * zeroGroupsPerTask;
      const groups = zeroes.slice(start, start + zeroGroupsPerTask).map((group) => ({
        group,
        length: groupLength(sizeBytes, group),
        digest: groupDigest(manifest, group).slice(),
      }));
      return pool.run("verifyZeroes", { groups, root: frameBytes.length === 1 });
    });
    await Promise.all(tasks);
  }
}
