// Signatures of ZFS: four labels, two at each end, each with the pool's names as XDR and a ring of uberblocks.
import type { Detector, Found } from "./detector.ts";
import { ringBytes, type Spots, textField } from "./spots.ts";

const kib = 1024;
const labelBytes = 256 * kib;
const pairsAt = 16 * kib;
const ringAt = 128 * kib;
const pairsBytes = 4 * kib;
const pairsMax = 64;

export const zfs: readonly Detector[] = [{ kind: "zfs_member", use: "member", shared: true, detect }];

function detect(spots: Spots): Found | null {
  const aligned = spots.sizeBytes - (spots.sizeBytes % labelBytes);
  if (aligned < 4 * labelBytes) return null;
  for (const label of [0, labelBytes, aligned - 2 * labelBytes, aligned - labelBytes]) {
    const found = names(spots, label + pairsAt);
    if (found !== null) return found;
  }
  // A partition table may have taken the place of the first label's names; its ring stays.
  for (let offset = ringAt; offset < ringAt + ringBytes; offset += kib) {
    if (spots.has(offset, "\x0c\xb1\xba\x00\0\0\0\0") || spots.has(offset, "\0\0\0\0\x00\xba\xb1\x0c"))
      return { offset };
  }
  return null;
}

/** XDR: big-endian, everything padded to 4 bytes. Encoding 1, then version 0 and flags; then pairs up to one of size 0. */
function names(spots: Spots, offset: number): Found | null {
  const list = spots.view(offset, pairsBytes);
  if (list === null || list.getUint8(0) !== 1 || list.getUint8(1) > 1 || list.getUint32(4) !== 0) return null;
  const values = new Map<string, string>();
  let at = 12;
  for (let count = 0; count < pairsMax && at + 12 <= pairsBytes; count++) {
    const size = list.getUint32(at);
    const nameLength = list.getUint32(at + 8);
    if (size < 20 || at + size > pairsBytes || nameLength > size - 20) break;
    const name = textField(spots.bytes(offset + at + 12, nameLength));
    const value = at + 12 + padded(nameLength);
    if (name !== null && value + 16 <= at + size) {
      const type = list.getUint32(value);
      if (type === 8) values.set(name, `${list.getBigUint64(value + 8)}`);
      if (type === 9) {
        const length = Math.min(list.getUint32(value + 8), at + size - value - 12);
        values.set(name, textField(spots.bytes(offset + value + 12, length)) ?? "");
      }
    }
    at += size;
  }
  // Spares and caches have only their own id.
  if (!values.has("pool_guid") && !values.has("guid")) return null;
  return {
    offset,
    uuid: values.get("pool_guid") ?? values.get("guid") ?? null,
    label: values.get("name") ?? null,
    version: values.get("version") ?? null,
  };
}

function padded(length: number): number {
  return (length + 3) & ~3;
}
