// Images of systems that would boot, with bytes that compress by half, holes where they are wanted, and flipped bits.
import { groupBytes } from "../../protocol/groups.ts";
import { createLots } from "../contract/mutations.ts";
import { imageOf, type TestImage } from "../support/test-image.ts";
import { makeBootable, type SectorBytes } from "./boot-findings.ts";

export interface SystemOptions {
  readonly sizeBytes: number;
  readonly sectorBytes?: SectorBytes;
  readonly seed?: number;
  readonly zeroGroups?: readonly number[];
  /** Without partition table and boot code. */
  readonly plain?: boolean;
}

export async function makeSystem(options: SystemOptions): Promise<TestImage> {
  return await imageOf(systemBytes(options), options.plain === true ? null : (options.sectorBytes ?? 512));
}

export function systemBytes(options: SystemOptions): Uint8Array {
  const { sizeBytes, sectorBytes = 512, seed = 1, zeroGroups = [], plain = false } = options;
  const bytes = new Uint8Array(sizeBytes);
  const lots = createLots(seed);
  for (let group = 0; group * groupBytes < sizeBytes; group++) {
    if (zeroGroups.includes(group)) continue;
    const part = bytes.subarray(group * groupBytes, (group + 1) * groupBytes);
    const words = new Uint32Array(part.length >> 3);
    for (let at = 0; at < words.length; at++) words[at] = lots.fraction() * 2 ** 32;
    part.set(new Uint8Array(words.buffer));
    part.fill(1 + (group % 255), words.byteLength);
  }
  if (!plain) makeBootable(bytes, sectorBytes, `system ${seed}`);
  return bytes;
}

export function withFlippedBit(bytes: Uint8Array, at: number): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[at]! ^= 1 << (at % 8);
  return copy;
}
