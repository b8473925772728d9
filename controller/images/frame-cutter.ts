// Cuts a stream of frames at the manifest's lengths, each frame into a slot of shared memory.
import { hex } from "../../protocol/bytes.ts";
import { assert, BedplateError } from "../../protocol/errors.ts";
import { groupBytes, type Manifest } from "../../protocol/manifest.ts";
import type { SlotBytes } from "./group-tasks.ts";
import { imageLimits } from "./limits.ts";

export interface FrameTaker {
  slot(): Promise<SlotBytes>;
  /** Called for each group that has a frame, in order; the slot is the taker's again. */
  take(group: number, slot: SlotBytes, length: number): Promise<void>;
  /** Groups whose frames the stream leaves out: asked in order with the others, into a slot as they are. */
  readonly owned?: {
    has(group: number): boolean;
    take(group: number, slot: SlotBytes): Promise<void>;
  };
  /** All that was taken is settled: what is wrong with a whole group says more than that others are missing. */
  settle(): Promise<void>;
}

/** @throws `image.corrupt` where bytes follow the last frame, `image.truncated` */
export async function cutFrames(
  frames: AsyncIterable<Uint8Array>,
  manifest: Manifest,
  { slot: nextSlot, take, owned, settle }: FrameTaker,
  signal: AbortSignal,
): Promise<void> {
  const { frameBytes, sizeBytes } = manifest;
  const count = frameBytes.length;
  assert(
    frameBytes.every((length) => length <= imageLimits.frameBytesMax),
    "frames fit their slots",
  );
  let slot = await nextSlot();
  const next = async (from: number) => {
    for (let group = from; group < count; group++) {
      if (frameBytes[group] === 0) continue;
      if (owned?.has(group) !== true) return group;
      await owned.take(group, slot);
      slot = await nextSlot();
    }
    return count;
  };
  let [group, filled] = [await next(0), 0];
  for await (const chunk of frames) {
    signal.throwIfAborted();
    for (let at = 0; at < chunk.length; ) {
      if (group === count) {
        throw new BedplateError(
          "image.corrupt",
          `Bytes follow the frame of the last group (group ${count - 1}, offset ${sizeBytes}).`,
          { details: { root: hex(manifest.root), group: count - 1, offset: sizeBytes } },
        );
      }
      const length = frameBytes[group]!;
      const piece = chunk.subarray(at, at + length - filled);
      slot.set(piece, filled);
      filled += piece.length;
      at += piece.length;
      if (filled < length) continue;
      await take(group, slot, length);
      slot = await nextSlot();
      [group, filled] = [await next(group + 1), 0];
    }
  }
  await settle();
  if (group < count) {
    const offset = group * groupBytes;
    throw new BedplateError(
      "image.truncated",
      `The frames end within group ${group} (offset ${offset}), with ${filled} of ${frameBytes[group]} bytes.`,
      { details: { root: hex(manifest.root), group, offset, received: filled, expected: frameBytes[group] } },
    );
  }
}
