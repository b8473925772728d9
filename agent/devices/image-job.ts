// What the main thread and the workers of one image operation share: memory that all see, and what a job is.
import { digestBytes, groupCount, groupLength, paddedBytes } from "../../protocol/groups.ts";
import type { OpenDisk } from "./direct-file.ts";
import type { UsableSource } from "./open-sources.ts";

/** Int32 cells of {@link SharedImage.control}. */
export const slots = { next: 0, stop: 1, wrong: 2, pause: 3 } as const;
/** BigInt64 cells of {@link SharedImage.counts}: bytes, but for the last three, which count groups. */
export const counters = {
  done: 0,
  fetched: 1,
  written: 2,
  skipped: 3,
  zeroed: 4,
  rechecked: 5,
  rewritten: 6,
  rereads: 7,
} as const;
export interface SharedImage {
  readonly control: Int32Array<SharedArrayBuffer>;
  readonly counts: BigInt64Array<SharedArrayBuffer>;
  /** A bit a group, least significant first: right on the disk. */
  readonly good: Int32Array<SharedArrayBuffer>;
  /** A bit a group, as above: the device zeroes it by itself, and no worker touches it. */
  readonly zeroing: Int32Array<SharedArrayBuffer>;
  /** 32 bytes a group: what the disk gave back. */
  readonly found: Uint8Array<SharedArrayBuffer>;
  /** Of groups that the disk gave back wrong: their numbers, and 32 bytes for each of what it gave (see wrong-groups.ts). */
  readonly wrong: Int32Array<SharedArrayBuffer>;
  readonly wrongFound: Uint8Array<SharedArrayBuffer>;
  /** For each source of the offer, in its order: bytes that came from it, and why a worker gave it up (see source-account.ts). */
  readonly sourceBytes: BigInt64Array<SharedArrayBuffer>;
  readonly sourceGaveUp: Int32Array<SharedArrayBuffer>;
  /** The manifest's: 32 bytes a group, a frame's length (0: zeroes), where a frame begins. */
  readonly digests: Uint8Array<SharedArrayBuffer>;
  readonly frameBytes: Uint32Array<SharedArrayBuffer>;
  readonly frameStarts: Float64Array<SharedArrayBuffer>;
}

/**
 * `prove` looks at what the manifest calls zeroes; `write` brings groups onto the disk; `readback` reads them, and repairs a wrong one once; `verify` reads and counts
 * the wrong ones.
 */
export type ImagePhase = "prove" | "write" | "readback" | "verify";

export interface ImageJob {
  readonly phase: ImagePhase;
  readonly disk: OpenDisk;
  readonly sectorBytes: number;
  readonly sizeBytes: number;
  /** Groups from here on are left alone, as the first one is by who begins with the second. Default: none. */
  readonly endGroup?: number;
  /** Groups below this may have been written by an earlier run of the operation. */
  readonly claimedBefore: number;
  readonly shared: SharedImage;
  readonly sources: readonly UsableSource[];
  readonly ca: string;
  /** This worker's part of what may be written in a second; undefined: as fast as it goes. */
  readonly bytesPerSecondMax?: number | undefined;
  /** The same of what may be fetched. */
  readonly fetchBytesPerSecondMax?: number | undefined;
}

/** The groups of a job end before this one. */
export function groupsEnd({ sizeBytes, endGroup }: Pick<ImageJob, "sizeBytes" | "endGroup">): number {
  return endGroup ?? groupCount(sizeBytes);
}

export function isGood(shared: SharedImage, group: number): boolean {
  return (Atomics.load(shared.good, group >> 5) & (1 << (group & 31))) !== 0;
}

export function setGood(shared: SharedImage, group: number): void {
  Atomics.or(shared.good, group >> 5, 1 << (group & 31));
}

export function isZeroing(shared: SharedImage, group: number): boolean {
  return (Atomics.load(shared.zeroing, group >> 5) & (1 << (group & 31))) !== 0;
}

export function setZeroing(shared: SharedImage, group: number, on: boolean): void {
  const bit = 1 << (group & 31);
  if (on) Atomics.or(shared.zeroing, group >> 5, bit);
  else Atomics.and(shared.zeroing, group >> 5, ~bit);
}

export function countOf(shared: SharedImage, counter: keyof typeof counters): number {
  return Number(Atomics.load(shared.counts, counters[counter]));
}

export function addTo(shared: SharedImage, counter: keyof typeof counters, amount: number): void {
  Atomics.add(shared.counts, counters[counter], BigInt(amount));
}

export function isZeroGroup(shared: SharedImage, group: number): boolean {
  return shared.frameBytes[group] === 0;
}

export function digestOf(shared: SharedImage, group: number): Uint8Array {
  return shared.digests.subarray(group * digestBytes, (group + 1) * digestBytes);
}

/** Bytes of a group in the image, and on a disk of whole sectors. */
export function extentOf(
  image: { readonly sizeBytes: number; readonly sectorBytes: number },
  group: number,
): { length: number; padded: number } {
  const length = groupLength(image.sizeBytes, group);
  return { length, padded: paddedBytes(length, image.sectorBytes) };
}
