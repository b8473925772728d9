// Silent corruption, made on purpose: one bit of one stored group of an image, in the controller's own store.
import { randomInt } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { assert } from "../../protocol/errors.ts";
import { decodeManifest, frameOffsets, groupBytes, groupLength } from "../../protocol/manifest.ts";

export interface FlippedBit {
  readonly group: number;
  /** Of the group in the image. */
  readonly offset: number;
  readonly length: number;
  /** Of the byte in the frames file, and the bit in it. */
  readonly at: number;
  readonly bit: number;
  /** Decompression does not notice: only the digest can. */
  readonly silent: boolean;
  /** Puts the bit back. */
  restore(): Promise<void>;
}

const attemptsMax = 400;

/** @param image the directory with `manifest` and `frames` */
export async function flipBit(image: string): Promise<FlippedBit> {
  const manifest = decodeManifest(await readFile(join(image, "manifest")));
  const offsets = frameOffsets(manifest);
  const group = middleGroup(manifest.frameBytes);
  const start = offsets[group]!;
  const frame = new Uint8Array(offsets[group + 1]! - start);
  const frames = join(image, "frames");
  {
    await using file = await open(frames, "r");
    await file.read(frame, 0, frame.length, start);
  }
  const length = groupLength(manifest.sizeBytes, group);
  const { byte, bit, silent } = chooseBit(frame, length);
  const at = start + byte;
  const flip = async () => {
    await using file = await open(frames, "r+");
    const one = new Uint8Array(1);
    await file.read(one, 0, 1, at);
    one[0] = one[0]! ^ (1 << bit);
    await file.write(one, 0, 1, at);
    await file.sync();
  };
  await flip();
  return { group, offset: group * groupBytes, length, at, bit, silent, restore: flip };
}

/** The one stored group nearest to the middle: some are written before it, some would come after. */
export function middleGroup(frameBytes: Uint32Array): number {
  const stored = [...frameBytes.keys()].filter((group) => frameBytes[group]! > 0);
  // The first group is written last, so it would be a special case.
  const candidates = stored.filter((group) => group > 0);
  const group = candidates[Math.floor(candidates.length / 2)] ?? stored[0];
  assert(group !== undefined, "an image that is not all zero stores a group");
  return group;
}

/** Prefers a bit whose flipping leaves a frame that decompresses to other bytes of the same length. */
function chooseBit(frame: Uint8Array, length: number): { byte: number; bit: number; silent: boolean } {
  // The head of a frame is its header: a flip there is too easily noticed.
  const from = Math.min(32, frame.length - 1);
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const byte = randomInt(from, frame.length);
    const bit = randomInt(8);
    const flipped = Uint8Array.from(frame);
    flipped[byte] = flipped[byte]! ^ (1 << bit);
    try {
      if (zstdDecompressSync(flipped, { maxOutputLength: length }).length === length)
        return { byte, bit, silent: true };
    } catch {
      // This one decompression would notice; try another.
    }
  }
  return { byte: from, bit: 0, silent: false };
}
