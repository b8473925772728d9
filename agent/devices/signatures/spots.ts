// The few places of a disk or partition where signatures lie, read once; a detector asks for bytes and gets them or null.
import { Buffer } from "node:buffer";
import { cleanLine } from "../facts.ts";

const kib = 1024;
const mib = 1024 * kib;

/** A stretch of bytes, from the beginning of the region that is looked at. */
export interface Stretch {
  readonly offset: number;
  readonly length: number;
}

export interface Spot {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Superblocks at the beginning; the second ZFS label; VMFS; the two last ZFS labels; RAID, GPT and DRBD at the end. */
const headBytes = 72 * kib;
/** Firmware RAID and the backup of a GPT are on whole disks only. */
const tailBytes = { disk: 132 * kib, part: 36 * kib } as const;
const labelBytes = 256 * kib;
/** Of 128 KiB: what a pool has written to after some minutes, whatever the size of its slots. */
export const ringBytes = 32 * kib;
const pairsAt = 16 * kib;
const pairsBytes = 4 * kib;
const oldRaidBytes = 64 * kib;

/** A whole disk; or a part of one, or what lies over several. */
export type Region = "disk" | "part";

/** What must be read of a region of this size, without overlap, in order; about 250 KiB of a disk, 130 of a part. */
export function stretchesOf(sizeBytes: number, region: Region): readonly Stretch[] {
  const aligned = sizeBytes - (sizeBytes % labelBytes);
  const wanted: Stretch[] = [
    { offset: 0, length: headBytes },
    // The first ring of ZFS uberblocks: of a label whose names a partition table has overwritten it is left.
    ...(region === "disk" ? [{ offset: 128 * kib, length: ringBytes }] : []),
    { offset: labelBytes + pairsAt, length: pairsBytes },
    { offset: mib, length: 4 * kib },
    { offset: 2 * mib, length: 4 * kib },
    { offset: aligned - 2 * labelBytes + pairsAt, length: pairsBytes },
    { offset: aligned - labelBytes + pairsAt, length: pairsBytes },
    { offset: sizeBytes - (sizeBytes % oldRaidBytes) - oldRaidBytes, length: 4 * kib },
    { offset: sizeBytes - tailBytes[region], length: tailBytes[region] },
  ];
  const stretches: Stretch[] = [];
  let read = 0;
  for (const { offset, length } of wanted.sort((a, b) => a.offset - b.offset)) {
    const from = Math.max(offset, read, 0);
    const to = Math.min(offset + length, sizeBytes);
    if (from >= to) continue;
    stretches.push({ offset: from, length: to - from });
    read = to;
  }
  return stretches;
}

/** Bytes of a region; every method gives null for what was not read or lies outside. */
export interface Spots {
  readonly sizeBytes: number;
  /** Exactly `length` bytes. */
  bytes(offset: number, length: number): Uint8Array | null;
  /** The same for numbers. */
  view(offset: number, length: number): DataView | null;
  /** Whether these very bytes (a text stands for its Latin-1 codes) lie there. */
  has(offset: number, magic: string): boolean;
}

export function spotsOf(sizeBytes: number, read: readonly Spot[]): Spots {
  const bytes = (offset: number, length: number): Uint8Array | null => {
    if (length < 0) return null;
    const spot = read.find(
      (each) => offset >= each.offset && offset + length <= each.offset + each.bytes.length,
    );
    if (spot !== undefined) return spot.bytes.subarray(offset - spot.offset, offset - spot.offset + length);
    return joined(read, offset, length);
  };
  return {
    sizeBytes,
    bytes,
    view(offset, length) {
      const found = bytes(offset, length);
      return found === null ? null : new DataView(found.buffer, found.byteOffset, found.byteLength);
    },
    has(offset, magic) {
      const found = bytes(offset, magic.length);
      if (found === null) return false;
      // A buffer for each of the hundred questions would cost more than the comparison.
      for (let at = 0; at < magic.length; at++) if (found[at] !== magic.charCodeAt(at)) return false;
      return true;
    },
  };
}

/** Neighbouring stretches hold what neither holds alone. */
function joined(read: readonly Spot[], offset: number, length: number): Uint8Array | null {
  const whole = new Uint8Array(length);
  let filled = 0;
  for (const spot of read) {
    const from = offset + filled;
    if (spot.offset > from || spot.offset + spot.bytes.length <= from) continue;
    const part = spot.bytes.subarray(from - spot.offset, from - spot.offset + length - filled);
    whole.set(part, filled);
    filled += part.length;
    if (filled === length) return whole;
  }
  return null;
}

/** A text field that ends with a zero byte or is filled to its end; null when nothing is left of it. */
export function textField(bytes: Uint8Array | null): string | null {
  if (bytes === null) return null;
  const end = bytes.indexOf(0);
  const text = cleanLine(new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end)), 256);
  return text === "" ? null : text;
}

/** UTF-16, little-endian, up to its end or the first zero character. */
export function wideTextField(bytes: Uint8Array | null): string | null {
  if (bytes === null) return null;
  const text = Buffer.from(bytes).toString("utf16le");
  const end = text.indexOf("\0");
  return textField(Buffer.from(end < 0 ? text : text.slice(0, end)));
}

/** As RFC 9562 writes it, in the order of the bytes; null when all are zero. */
export function uuidField(bytes: Uint8Array | null): string | null {
  if (bytes === null || bytes.every((byte) => byte === 0)) return null;
  return hyphened(Buffer.from(bytes).toString("hex"));
}

/** A GUID as Microsoft and EFI store it: the first three fields little-endian. */
export function guidField(bytes: Uint8Array | null): string | null {
  if (bytes === null || bytes.every((byte) => byte === 0)) return null;
  return uuidField(
    Uint8Array.from([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15], (at) => bytes[at]!),
  );
}

/** 32 hexadecimal digits as RFC 9562 groups them. */
export function hyphened(digits: string): string {
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
