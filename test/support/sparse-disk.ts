// Disks of any size for tests: only what is written takes memory. Partition tables as sgdisk and fdisk would write them.
import { open } from "node:fs/promises";
import { crc32 } from "node:zlib";
import type { Stretch } from "../../agent/devices/signatures/spots.ts";

export interface SparseDisk {
  readonly sizeBytes: number;
  /** A text stands for its Latin-1 codes. */
  put(offset: number, bytes: Uint8Array | string): SparseDisk;
  number(offset: number, value: number | bigint, bytes: 1 | 2 | 4 | 8, order?: "little" | "big"): SparseDisk;
  read(stretch: Stretch): Uint8Array;
  /** Those that something was written to, in base64, by their offset. */
  sectors(): Record<string, string>;
  /** As a sparse file. */
  save(path: string): Promise<void>;
}

export function sparseDisk(sizeBytes: number): SparseDisk {
  const written: { offset: number; bytes: Uint8Array }[] = [];
  const disk: SparseDisk = {
    sizeBytes,
    put(offset, bytes) {
      written.push({
        offset,
        bytes: typeof bytes === "string" ? Buffer.from(bytes, "latin1") : Uint8Array.from(bytes),
      });
      return disk;
    },
    number(offset, value, bytes, order = "little") {
      const view = new DataView(new ArrayBuffer(8));
      view.setBigUint64(0, BigInt(value), order === "little");
      const at = order === "little" ? 0 : 8 - bytes;
      return disk.put(offset, new Uint8Array(view.buffer, at, bytes));
    },
    read({ offset, length }) {
      const result = new Uint8Array(Math.max(0, Math.min(length, sizeBytes - offset)));
      for (const piece of written) {
        const from = Math.max(offset, piece.offset);
        const to = Math.min(offset + result.length, piece.offset + piece.bytes.length);
        if (from < to)
          result.set(piece.bytes.subarray(from - piece.offset, to - piece.offset), from - offset);
      }
      return result;
    },
    sectors() {
      const found: Record<string, string> = {};
      for (const { offset, bytes } of written)
        for (let at = offset - (offset % 512); at < offset + bytes.length; at += 512) {
          const sector = disk.read({ offset: at, length: 512 });
          if (sector.some((byte) => byte !== 0)) found[at] = Buffer.from(sector).toString("base64");
        }
      return found;
    },
    async save(path) {
      const file = await open(path, "w");
      try {
        await file.truncate(sizeBytes);
        for (const { offset, bytes } of written) await file.write(bytes, 0, bytes.length, offset);
      } finally {
        await file.close();
      }
    },
  };
  return disk;
}

export interface TestPartition {
  readonly type: string;
  readonly startBytes: number;
  readonly sizeBytes: number;
  readonly uuid?: string;
  readonly name?: string;
}

/** Both copies, with their checksums, and the protective MBR. */
export function putGpt(
  disk: SparseDisk,
  sectorBytes: number,
  partitions: readonly TestPartition[],
  uuid = "0a1b2c3d-4e5f-4061-8273-8495a6b7c8d9",
): SparseDisk {
  const sectors = Math.floor(disk.sizeBytes / sectorBytes);
  const entries = new Uint8Array(128 * 128);
  const view = new DataView(entries.buffer);
  for (const [index, { type, startBytes, sizeBytes, uuid: own, name }] of partitions.entries()) {
    const at = index * 128;
    entries.set(guidBytes(type), at);
    entries.set(guidBytes(own ?? `00000000-0000-4000-8000-00000000000${index + 1}`), at + 16);
    view.setBigUint64(at + 32, BigInt(startBytes / sectorBytes), true);
    view.setBigUint64(at + 40, BigInt((startBytes + sizeBytes) / sectorBytes - 1), true);
    entries.set(Buffer.from(name ?? "", "utf16le"), at + 56);
  }
  const entrySectors = entries.length / sectorBytes;
  for (const { own, other, at } of [
    { own: 1, other: sectors - 1, at: 2 },
    { own: sectors - 1, other: 1, at: sectors - 1 - entrySectors },
  ]) {
    const header = new Uint8Array(92);
    const fields = new DataView(header.buffer);
    header.set(Buffer.from("EFI PART"));
    fields.setUint32(8, 0x00010000, true);
    fields.setUint32(12, 92, true);
    fields.setBigUint64(24, BigInt(own), true);
    fields.setBigUint64(32, BigInt(other), true);
    fields.setBigUint64(40, BigInt(2 + entrySectors), true);
    fields.setBigUint64(48, BigInt(sectors - 2 - entrySectors), true);
    header.set(guidBytes(uuid), 56);
    fields.setBigUint64(72, BigInt(at), true);
    fields.setUint32(80, 128, true);
    fields.setUint32(84, 128, true);
    fields.setUint32(88, crc32(entries), true);
    fields.setUint32(16, crc32(header), true);
    disk.put(own * sectorBytes, header).put(at * sectorBytes, entries);
  }
  return putMbr(disk, [{ type: 0xee, startSector: 1, sectors: Math.min(sectors - 1, 0xffffffff) }]);
}

export interface TestMbrEntry {
  readonly type: number;
  readonly startSector: number;
  readonly sectors: number;
  readonly active?: boolean;
}

/** Also one link of a chain of logical partitions, at `offset`. */
export function putMbr(disk: SparseDisk, entries: readonly TestMbrEntry[], offset = 0): SparseDisk {
  for (const [index, { type, startSector, sectors, active }] of entries.entries()) {
    const at = offset + 446 + index * 16;
    disk
      .number(at, active === true ? 0x80 : 0, 1)
      .number(at + 4, type, 1)
      .number(at + 8, startSector, 4)
      .number(at + 12, sectors, 4);
  }
  return disk.put(offset + 510, "\x55\xaa");
}

/** As EFI stores it: the first three fields little-endian. */
export function guidBytes(guid: string): Uint8Array {
  const bytes = Buffer.from(guid.replaceAll("-", ""), "hex");
  return Uint8Array.from([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15], (at) => bytes[at]!);
}

export function uuidBytes(uuid: string): Uint8Array {
  return Buffer.from(uuid.replaceAll("-", ""), "hex");
}
