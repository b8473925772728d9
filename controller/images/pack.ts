// Turns raw image bytes into groups: their digests, and their zstd frames in a file.
import type { FileHandle } from "node:fs/promises";
import { mergeGroups } from "../../assembly/index.ts";
import { assert } from "../../protocol/errors.ts";
import { digestBytes, groupBytes, groupCount, groupLength } from "../../protocol/manifest.ts";
import { headBytes } from "./format.ts";
import type { FrameSink } from "./frame-sink.ts";
import { createGroupWindow, type GroupPool } from "./group-pool.ts";
import type { Packed } from "./group-tasks.ts";

export interface PackOptions {
  readonly pool: GroupPool;
  /** Takes the frames, in order. */
  readonly frames: Pick<FrameSink, "add">;
  readonly level: number;
  readonly signal: AbortSignal;
  /** Told the image bytes done. */
  readonly onPacked?: ((imageBytes: number) => void) | undefined;
}

export interface PackedImage {
  readonly sizeBytes: number;
  readonly root: Uint8Array;
  readonly groups: Uint8Array;
  readonly frameBytes: Uint32Array;
  /** The image's first bytes, at most headBytes. */
  readonly head: Uint8Array;
}

/** Packs a stream of at least one byte, of unknown length, in bounded memory. */
export async function packStream(
  bytes: AsyncIterable<Uint8Array>,
  options: PackOptions,
): Promise<PackedImage> {
  const { pool, level, signal } = options;
  const results = createResults(options);
  await using window = createGroupWindow<Packed>(pool, results.settle);
  let head = new Uint8Array();
  let [group, filled, slot] = [0, 0, await window.slot()];
  const startGroup = (last: boolean) => {
    if (group === 0) head = slot.slice(0, Math.min(filled, headBytes));
    window.start(slot, pool.run("pack", { slot, length: filled, group, root: last && group === 0, level }));
  };
  for await (const chunk of bytes) {
    signal.throwIfAborted();
    for (let at = 0; at < chunk.length; ) {
      // A full group starts only when more follows: an only group is hashed as the root.
      if (filled === groupBytes) {
        startGroup(false);
        group++;
        slot = await window.slot();
        filled = 0;
      }
      const piece = chunk.subarray(at, at + groupBytes - filled);
      slot.set(piece, filled);
      filled += piece.length;
      at += piece.length;
    }
  }
  assert(filled > 0, "the stream is not empty");
  startGroup(true);
  await window.finish();
  return results.image(group * groupBytes + filled, head);
}

/** Packs the first `sizeBytes` bytes of a regular file: workers read it themselves, and no byte passes this thread. */
export async function packFile(
  file: FileHandle,
  sizeBytes: number,
  options: PackOptions,
): Promise<PackedImage> {
  const { pool, level, signal } = options;
  const results = createResults(options);
  const count = groupCount(sizeBytes);
  const head = new Uint8Array(Math.min(sizeBytes, headBytes));
  await file.read(head, 0, head.length, 0);
  await using window = createGroupWindow<Packed>(pool, results.settle);
  for (let group = 0; group < count; group++) {
    signal.throwIfAborted();
    const slot = await window.slot();
    const length = groupLength(sizeBytes, group);
    window.start(slot, pool.run("packFrom", { slot, length, group, root: count === 1, level, fd: file.fd }));
  }
  await window.finish();
  return results.image(sizeBytes, head);
}

/** Gathers what comes out of the window, and writes the frames. */
function createResults({ frames, signal, onPacked }: PackOptions) {
  let [count, digests, lengths] = [0, new Uint8Array(1024 * digestBytes), new Uint32Array(1024)];
  return {
    async settle({ digest, frameBytes }: Packed, slot: Uint8Array): Promise<void> {
      signal.throwIfAborted();
      if (count === lengths.length) {
        digests = doubled(digests, new Uint8Array(2 * digests.length));
        lengths = doubled(lengths, new Uint32Array(2 * lengths.length));
      }
      digests.set(digest, count * digestBytes);
      lengths[count++] = frameBytes;
      if (frameBytes > 0) await frames.add(count - 1, digest, slot.subarray(0, frameBytes));
      onPacked?.(count * groupBytes);
    },
    image(sizeBytes: number, head: Uint8Array): PackedImage {
      assert(count === groupCount(sizeBytes), "every group is packed once");
      const groups = digests.slice(0, count * digestBytes);
      return {
        sizeBytes,
        root: mergeGroups(groups, count),
        groups,
        frameBytes: lengths.slice(0, count),
        head,
      };
    },
  };
}

function doubled<T extends Uint8Array | Uint32Array>(old: T, larger: T): T {
  larger.set(old);
  return larger;
}
