// A GUID partition table with one partition (UEFI 2.10, section 5), for the image that the demo makes. Pure.
import { crc32 } from "node:zlib";
import { assert } from "../../protocol/errors.ts";

const sector = 512;
const alignBytes = 1 << 20;
const entryCount = 128;
const entryBytes = 128;
/** The entries' 32 sectors, before the backup header in the last one. */
const backupSectors = (entryCount * entryBytes) / sector + 1;
/** 0FC63DAF-8483-4772-8E79-3D69D8477DE4, Linux file system data: the first three fields little-endian. */
const linuxData = [
  0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
];

export interface PartitionTable {
  /** From byte 0: protective MBR, header and entries. */
  readonly head: Uint8Array;
  /** Up to the last byte: entries and the backup header. */
  readonly tail: Uint8Array;
  /** The partition: from the first MiB up to the last. */
  readonly startBytes: number;
  readonly sizeBytes: number;
}

/** @param guids 32 random bytes: of the disk and of the partition */
export function createPartitionTable(diskBytes: number, guids: Uint8Array): PartitionTable {
  assert(diskBytes % alignBytes === 0 && diskBytes >= 4 * alignBytes, "the disk is whole MiB, at least 4");
  assert(guids.length === 32, "two GUIDs");
  const lastSector = diskBytes / sector - 1;
  const startBytes = alignBytes;
  const sizeBytes = diskBytes - 2 * alignBytes;

  const entries = new Uint8Array(entryCount * entryBytes);
  const entry = new DataView(entries.buffer);
  entries.set(linuxData, 0);
  entries.set(versioned(guids.subarray(16)), 16);
  entry.setBigUint64(32, BigInt(startBytes / sector), true);
  entry.setBigUint64(40, BigInt((startBytes + sizeBytes) / sector - 1), true);
  [..."bedplate-demo"].forEach((character, i) => {
    entry.setUint16(56 + 2 * i, character.charCodeAt(0), true);
  });

  const header = (own: number, other: number, entriesAt: number): Uint8Array => {
    const bytes = new Uint8Array(sector);
    const view = new DataView(bytes.buffer);
    bytes.set(new TextEncoder().encode("EFI PART"));
    view.setUint32(8, 0x00010000, true);
    view.setUint32(12, 92, true);
    view.setBigUint64(24, BigInt(own), true);
    view.setBigUint64(32, BigInt(other), true);
    view.setBigUint64(40, BigInt(backupSectors + 1), true);
    view.setBigUint64(48, BigInt(lastSector - backupSectors), true);
    bytes.set(versioned(guids.subarray(0, 16)), 56);
    view.setBigUint64(72, BigInt(entriesAt), true);
    view.setUint32(80, entryCount, true);
    view.setUint32(84, entryBytes, true);
    view.setUint32(88, crc32(entries), true);
    view.setUint32(16, crc32(bytes.subarray(0, 92)), true);
    return bytes;
  };

  const head = new Uint8Array(2 * sector + entries.length);
  head.set(protectiveMbr(lastSector));
  head.set(header(1, lastSector, 2), sector);
  head.set(entries, 2 * sector);
  const tail = new Uint8Array(entries.length + sector);
  tail.set(entries);
  tail.set(header(lastSector, 1, lastSector - backupSectors + 1), entries.length);
  return { head, tail, startBytes, sizeBytes };
}

function protectiveMbr(lastSector: number): Uint8Array {
  const bytes = new Uint8Array(sector);
  const view = new DataView(bytes.buffer);
  bytes.set([0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff], 446);
  view.setUint32(454, 1, true);
  view.setUint32(458, Math.min(lastSector, 0xffff_ffff), true);
  bytes.set([0x55, 0xaa], 510);
  return bytes;
}

/** As a random GUID (RFC 9562, version 4) in the table's mixed byte order. */
function versioned(random: Uint8Array): Uint8Array {
  const guid = Uint8Array.from(random);
  guid[7] = 0x40 | (guid[7]! & 0x0f);
  guid[8] = 0x80 | (guid[8]! & 0x3f);
  return guid;
}
