// What a firmware would find on a disk: a boot sector, a GUID partition table at either end. Written from the UEFI
// specification 2.10 (5.2, 5.3), sharing nothing with the product's own parser; and the disks that it is tried on.
import { randomUUID } from "node:crypto";
import { crc32 } from "node:zlib";

export type SectorBytes = 512 | 4096;

const entryBytes = 128;
const entryCount = 128;
const headerBytes = 92;
const bootSignatureAt = 510;
/** C12A7328-F81F-11D2-BA4B-00C04FC93EC9 as it lies on a disk. */
const efiSystemPartition = Buffer.from("28732ac11ff8d211ba4b00c04fc93ec9", "hex");

/** Makes the bytes a disk that boots: code in the first sector, a protective MBR, a GPT with its backup at the end. */
export function makeBootable(disk: Uint8Array, sectorBytes: SectorBytes, name: string): void {
  const bytes = Buffer.from(disk.buffer, disk.byteOffset, disk.byteLength);
  const sectors = Math.floor(bytes.length / sectorBytes);
  const entrySectors = Math.ceil((entryBytes * entryCount) / sectorBytes);
  const first = { header: 1, entries: 2 };
  const backup = { header: sectors - 1, entries: sectors - 1 - entrySectors };
  const usable = { first: 2 + entrySectors, last: backup.entries - 1 };

  const entries = Buffer.alloc(entryBytes * entryCount);
  efiSystemPartition.copy(entries, 0);
  Buffer.from(randomUUID().replaceAll("-", ""), "hex").copy(entries, 16);
  entries.writeBigUInt64LE(BigInt(usable.first), 32);
  entries.writeBigUInt64LE(BigInt(usable.last), 40);
  entries.write(name.slice(0, 36), 56, "utf16le");
  const diskId = Buffer.from(randomUUID().replaceAll("-", ""), "hex");
  for (const [own, other] of [
    [first, backup],
    [backup, first],
  ] as const) {
    const header = Buffer.alloc(headerBytes);
    header.write("EFI PART", 0, "latin1");
    header.writeUInt32LE(0x10000, 8);
    header.writeUInt32LE(headerBytes, 12);
    header.writeBigUInt64LE(BigInt(own.header), 24);
    header.writeBigUInt64LE(BigInt(other.header), 32);
    header.writeBigUInt64LE(BigInt(usable.first), 40);
    header.writeBigUInt64LE(BigInt(usable.last), 48);
    diskId.copy(header, 56);
    header.writeBigUInt64LE(BigInt(own.entries), 72);
    header.writeUInt32LE(entryCount, 80);
    header.writeUInt32LE(entryBytes, 84);
    header.writeUInt32LE(crc32(entries), 88);
    header.writeUInt32LE(crc32(header), 16);
    bytes.fill(0, own.header * sectorBytes, (own.header + 1) * sectorBytes);
    header.copy(bytes, own.header * sectorBytes);
    entries.copy(bytes, own.entries * sectorBytes);
  }
  bytes.fill(0, 0, sectorBytes);
  bytes.write(`boot code of ${name}`, 3, "latin1");
  bytes.writeUInt8(0xee, 446 + 4);
  bytes.writeUInt32LE(1, 446 + 8);
  bytes.writeUInt32LE(Math.min(sectors - 1, 0xffff_ffff), 446 + 12);
  bytes.writeUInt16LE(0xaa55, bootSignatureAt);
}

/** Everything that would make some firmware take the disk for bootable, by either sector size. Nothing: it boots nothing. */
export function bootFindings(disk: Uint8Array): string[] {
  const bytes = Buffer.from(disk.buffer, disk.byteOffset, disk.byteLength);
  const found: string[] = [];
  if (bytes.length >= 512 && bytes.readUInt16LE(bootSignatureAt) === 0xaa55) {
    const partitions = [0, 1, 2, 3].filter((each) => bytes[446 + each * 16 + 4] !== 0).length;
    found.push(`a boot sector with ${partitions} partitions`);
  }
  for (const sectorBytes of [512, 4096]) {
    const sectors = Math.floor(bytes.length / sectorBytes);
    for (const [name, sector] of [
      ["primary", 1],
      ["backup", sectors - 1],
    ] as const)
      if (sector > 0 && validHeader(bytes, sectorBytes, sector))
        found.push(`a valid ${name} GPT of ${sectorBytes}-byte sectors`);
  }
  return found;
}

function validHeader(bytes: Buffer, sectorBytes: number, sector: number): boolean {
  const at = sector * sectorBytes;
  if (at + headerBytes > bytes.length || bytes.toString("latin1", at, at + 8) !== "EFI PART") return false;
  const length = bytes.readUInt32LE(at + 12);
  if (length < headerBytes || length > 512 || at + length > bytes.length) return false;
  const header = Buffer.from(bytes.subarray(at, at + length));
  const stated = header.readUInt32LE(16);
  header.writeUInt32LE(0, 16);
  if (crc32(header) !== stated || header.readBigUInt64LE(24) !== BigInt(sector)) return false;
  const start = Number(header.readBigUInt64LE(72)) * sectorBytes;
  const end = start + header.readUInt32LE(80) * header.readUInt32LE(84);
  return end <= bytes.length && crc32(bytes.subarray(start, end)) === header.readUInt32LE(88);
}
