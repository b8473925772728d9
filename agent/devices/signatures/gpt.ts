// The GUID partition table (UEFI specification 2.10, section 5.3): header and entries, both copies, with their checksums.
import { crc32 } from "node:zlib";
import { typeNameOf } from "./partition-types.ts";
import type { Spots, Stretch } from "./spots.ts";
import { guidField, wideTextField } from "./spots.ts";

export interface GptHeader {
  readonly sectorBytes: number;
  readonly uuid: string | null;
  readonly entries: Stretch;
  readonly entryBytes: number;
  readonly entriesCrc: number;
}

export interface GptPartition {
  readonly number: number;
  readonly startBytes: number;
  readonly sizeBytes: number;
  readonly type: string;
  readonly typeName: string | null;
  readonly uuid: string | null;
  readonly name: string | null;
}

const entriesMax = 1024;
/** Of the specification: an entry is 128 bytes times a power of two. */
const entryBytesMax = 1024;
const entriesBytesMax = 256 * 1024;

/** The header of the copy at the beginning, or at the end; "missing" when nothing there says that it is one. */
export function readHeader(
  spots: Spots,
  sectorBytes: number,
  copy: "primary" | "backup",
): GptHeader | "missing" | { readonly bad: string } {
  const own = copy === "primary" ? 1 : Math.floor(spots.sizeBytes / sectorBytes) - 1;
  const header = spots.view(own * sectorBytes, 512);
  if (header === null || !spots.has(own * sectorBytes, "EFI PART")) return "missing";
  const length = header.getUint32(12, true);
  if (length < 92 || length > 512) return { bad: `the ${copy} header says that it has ${length} bytes` };
  const bytes = new Uint8Array(spots.bytes(own * sectorBytes, length)!);
  bytes.fill(0, 16, 20);
  if (crc32(bytes) !== header.getUint32(16, true))
    return { bad: `the checksum of the ${copy} header is wrong` };
  const stated = header.getBigUint64(24, true);
  if (stated !== BigInt(own))
    return { bad: `the ${copy} header says that it lies in sector ${stated}, not ${own}` };
  const entryBytes = header.getUint32(84, true);
  const count = header.getUint32(80, true);
  const at = header.getBigUint64(72, true) * BigInt(sectorBytes);
  const entriesBytes = entryBytes * count;
  if (entryBytes < 128 || entryBytes > entryBytesMax || count > entriesMax || entriesBytes > entriesBytesMax)
    return { bad: `the ${copy} header tells of ${count} entries of ${entryBytes} bytes` };
  if (at + BigInt(entriesBytes) > BigInt(spots.sizeBytes))
    return { bad: `the ${copy} header's entries lie past the disk's end` };
  return {
    sectorBytes,
    uuid: guidField(spots.bytes(own * sectorBytes + 56, 16)),
    entries: { offset: Number(at), length: entriesBytes },
    entryBytes,
    entriesCrc: header.getUint32(88, true),
  };
}

/** Null when the checksum over the entries is wrong, or they were not read. */
export function readEntries(spots: Spots, header: GptHeader): readonly GptPartition[] | null {
  const { entries, entryBytes, sectorBytes } = header;
  const bytes = spots.bytes(entries.offset, entries.length);
  if (bytes === null || crc32(bytes) !== header.entriesCrc) return null;
  const partitions: GptPartition[] = [];
  for (let index = 0; index * entryBytes < bytes.length; index++) {
    const entry = bytes.subarray(index * entryBytes, (index + 1) * entryBytes);
    const type = guidField(entry.subarray(0, 16));
    if (type === null) continue;
    const view = new DataView(entry.buffer, entry.byteOffset, entry.byteLength);
    const first = sectorsToBytes(view.getBigUint64(32, true), sectorBytes);
    const after = sectorsToBytes(view.getBigUint64(40, true) + 1n, sectorBytes);
    if (after <= first) continue;
    partitions.push({
      number: index + 1,
      startBytes: first,
      sizeBytes: after - first,
      type,
      typeName: typeNameOf(type),
      uuid: guidField(entry.subarray(16, 32)),
      name: wideTextField(entry.subarray(56, 128)),
    });
  }
  return partitions;
}

/** What no number holds exactly lies past every disk's end, and stays there. */
function sectorsToBytes(sectors: bigint, sectorBytes: number): number {
  const bytes = sectors * BigInt(sectorBytes);
  return bytes > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(bytes);
}
