// Signatures of file systems that one host uses, and of swap. Layouts: the kernel's headers and libblkid's superblocks.
import { type Detector, type Found, magic } from "./detector.ts";
import { type Spots, textField, uuidField, wideTextField } from "./spots.ts";

const kib = 1024;

export const filesystems: readonly Detector[] = [
  { kind: "ext4", use: "filesystem", detect: ext },
  { kind: "xfs", use: "filesystem", detect: xfs },
  { kind: "btrfs", use: "filesystem", detect: btrfs },
  { kind: "swap", use: "swap", detect: swap },
  { kind: "swsuspend", use: "swap", detect: hibernation },
  { kind: "vfat", use: "filesystem", detect: fat },
  {
    kind: "exfat",
    use: "filesystem",
    detect: (spots) =>
      spots.has(3, "EXFAT   ") ? { offset: 3, uuid: volumeSerial(spots, 100), version: null } : null,
  },
  {
    kind: "ntfs",
    use: "filesystem",
    detect: (spots) =>
      spots.has(3, "NTFS    ") ? { offset: 3, uuid: reversedHex(spots.bytes(72, 8)) } : null,
  },
  { kind: "ReFS", use: "filesystem", detect: magic(0, "\0\0\0ReFS\0") },
  {
    kind: "f2fs",
    use: "filesystem",
    detect: (spots) =>
      spots.has(kib, "\x10\x20\xf5\xf2")
        ? {
            offset: kib,
            uuid: uuidField(spots.bytes(kib + 108, 16)),
            label: wideTextField(spots.bytes(kib + 124, 512)),
          }
        : null,
  },
  {
    kind: "nilfs2",
    use: "filesystem",
    detect: (spots) =>
      // Two bytes alone are too common: its own size stands beside them.
      spots.has(kib + 6, "\x34\x34") && numberAt(spots, kib + 32) === spots.sizeBytes
        ? {
            offset: kib + 6,
            uuid: uuidField(spots.bytes(kib + 152, 16)),
            label: textField(spots.bytes(kib + 168, 80)),
          }
        : null,
  },
  {
    kind: "jfs",
    use: "filesystem",
    detect: (spots) =>
      spots.has(32 * kib, "JFS1")
        ? {
            offset: 32 * kib,
            uuid: uuidField(spots.bytes(32 * kib + 136, 16)),
            label: textField(spots.bytes(32 * kib + 152, 16)),
          }
        : null,
  },
  {
    kind: "reiserfs",
    use: "filesystem",
    detect: (spots) =>
      ["ReIsErFs", "ReIsEr2Fs", "ReIsEr3Fs"].some((name) => spots.has(64 * kib + 52, name))
        ? {
            offset: 64 * kib + 52,
            uuid: uuidField(spots.bytes(64 * kib + 84, 16)),
            label: textField(spots.bytes(64 * kib + 100, 16)),
          }
        : null,
  },
  { kind: "reiser4", use: "filesystem", detect: magic(64 * kib, "ReIsEr4") },
  {
    kind: "ufs",
    use: "filesystem",
    detect: (spots) => {
      const at = [8 * kib, 64 * kib].find(
        (start) =>
          spots.has(start + 0x55c, "\x19\x01\x54\x19") || spots.has(start + 0x55c, "\x54\x19\x01\x00"),
      );
      return at === undefined ? null : { offset: at + 0x55c };
    },
  },
  {
    kind: "hfsplus",
    use: "filesystem",
    detect: (spots) =>
      spots.has(kib, "H+\x00\x04") || spots.has(kib, "HX\x00\x05") ? { offset: kib } : null,
  },
  { kind: "apfs", use: "filesystem", detect: magic(32, "NXSB") },
  {
    kind: "vxfs",
    use: "filesystem",
    detect: (spots) =>
      spots.has(kib, "\xf5\xfc\x01\xa5")
        ? { offset: kib }
        : spots.has(8 * kib, "\xa5\x01\xfc\xf5")
          ? { offset: 8 * kib }
          : null,
  },
  {
    kind: "iso9660",
    use: "filesystem",
    detect: (spots) =>
      spots.has(32 * kib + 1, "CD001")
        ? { offset: 32 * kib + 1, label: textField(spots.bytes(32 * kib + 40, 32)) }
        : null,
  },
  {
    kind: "udf",
    use: "filesystem",
    detect: (spots) => {
      // The descriptors of the volume's structure follow each other in blocks of 2 KiB.
      for (let offset = 32 * kib + 1; offset < 64 * kib; offset += 2 * kib)
        if (spots.has(offset, "NSR02") || spots.has(offset, "NSR03")) return { offset };
      return null;
    },
  },
  { kind: "squashfs", use: "filesystem", detect: magic(0, "hsqs") },
  { kind: "cramfs", use: "filesystem", detect: magic(16, "Compressed ROMFS") },
  { kind: "romfs", use: "filesystem", detect: magic(0, "-rom1fs-") },
  {
    kind: "erofs",
    use: "filesystem",
    detect: (spots) =>
      spots.has(kib, "\xe2\xe1\xf5\xe0")
        ? {
            offset: kib,
            uuid: uuidField(spots.bytes(kib + 48, 16)),
            label: textField(spots.bytes(kib + 64, 16)),
          }
        : null,
  },
  { kind: "zonefs", use: "filesystem", detect: magic(0, "SFOZ") },
];

/** Documentation/filesystems/ext4/super.rst. */
function ext(spots: Spots): Found | null {
  const at = spots.view(kib, 264);
  if (at === null || at.getUint16(0x38, true) !== 0xef53) return null;
  const compatible = at.getUint32(0x5c, true);
  const incompatible = at.getUint32(0x60, true);
  const readOnly = at.getUint32(0x64, true);
  // 0x8: a journal device of its own. Extents, 64 bits, huge files and all newer: ext4.
  const kind =
    (incompatible & 0x8) !== 0
      ? "jbd"
      : (incompatible & ~0x16) !== 0 || (readOnly & ~0x7) !== 0
        ? "ext4"
        : (compatible & 0x4) !== 0
          ? "ext3"
          : "ext2";
  return {
    offset: kib + 0x38,
    kind,
    uuid: uuidField(spots.bytes(kib + 0x68, 16)),
    label: textField(spots.bytes(kib + 0x78, 16)),
    version: `${at.getUint32(0x4c, true)}.${at.getUint16(0x3e, true)}`,
  };
}

function xfs(spots: Spots): Found | null {
  if (!spots.has(0, "XFSB")) return null;
  return { offset: 0, uuid: uuidField(spots.bytes(32, 16)), label: textField(spots.bytes(108, 12)) };
}

function btrfs(spots: Spots): Found | null {
  const at = 64 * kib;
  if (!spots.has(at + 0x40, "_BHRfS_M")) return null;
  return {
    offset: at + 0x40,
    uuid: uuidField(spots.bytes(at + 0x20, 16)),
    label: textField(spots.bytes(at + 0x12b, 256)),
  };
}

/** The magic number ends the first page, whose size is the machine's that made it. */
const pages = [4, 8, 16, 32, 64].map((size) => size * kib);

function swap(spots: Spots): Found | null {
  for (const page of pages) {
    const offset = page - 10;
    if (spots.has(offset, "SWAPSPACE2")) {
      return {
        offset,
        uuid: uuidField(spots.bytes(kib + 12, 16)),
        label: textField(spots.bytes(kib + 28, 16)),
        version: "1",
      };
    }
    if (spots.has(offset, "SWAP-SPACE")) return { offset, version: "0" };
  }
  return null;
}

/** A machine sleeps in this swap space: whoever overwrites it loses that machine's state. */
function hibernation(spots: Spots): Found | null {
  for (const page of pages) {
    const offset = page - 10;
    if (["S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"].some((text) => spots.has(offset, text))) {
      return { offset, uuid: uuidField(spots.bytes(kib + 12, 16)) };
    }
  }
  return null;
}

/** Microsoft's FAT specification: a boot sector whose numbers make sense, and one of the names where they stand. */
function fat(spots: Spots): Found | null {
  const boot = spots.view(0, 512);
  if (boot === null || boot.getUint16(510, true) !== 0xaa55) return null;
  const sectorBytes = boot.getUint16(11, true);
  const perCluster = boot.getUint8(13);
  if (
    ![512, 1024, 2048, 4096].includes(sectorBytes) ||
    perCluster === 0 ||
    (perCluster & (perCluster - 1)) !== 0
  )
    return null;
  if (spots.has(82, "FAT32   "))
    return { offset: 82, uuid: volumeSerial(spots, 67), label: fatLabel(spots, 71), version: "FAT32" };
  const name = ["FAT12   ", "FAT16   ", "FAT     "].find((text) => spots.has(54, text));
  if (name === undefined) return null;
  return { offset: 54, uuid: volumeSerial(spots, 39), label: fatLabel(spots, 43), version: name.trim() };
}

function fatLabel(spots: Spots, offset: number): string | null {
  const label = textField(spots.bytes(offset, 11));
  return label === "NO NAME" ? null : label;
}

/** `1A2B-3C4D`. */
function volumeSerial(spots: Spots, offset: number): string | null {
  const digits = reversedHex(spots.bytes(offset, 4));
  return digits === null ? null : `${digits.slice(0, 4)}-${digits.slice(4)}`;
}

function reversedHex(bytes: Uint8Array | null): string | null {
  if (bytes === null || bytes.every((byte) => byte === 0)) return null;
  return Buffer.from(bytes).reverse().toString("hex").toUpperCase();
}

/** Little-endian, 64 bits; null past what a number holds. */
function numberAt(spots: Spots, offset: number): number | null {
  const value = spots.view(offset, 8)?.getBigUint64(0, true);
  return value === undefined || value > BigInt(Number.MAX_SAFE_INTEGER) ? null : Number(value);
}
