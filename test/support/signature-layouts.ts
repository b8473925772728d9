// Superblocks for tests, made from their documented layouts: one writer for each kind that the probe looks for.
import { type SparseDisk, uuidBytes } from "./sparse-disk.ts";

const kib = 1024;
const mib = 1024 * kib;

/** The uuid of every superblock here that has one of 16 bytes. */
export const uuid = "6c8b2a1e-7f00-4c7e-9d2b-0a1b2c3d4e5f";
const id = uuidBytes(uuid);

export interface Layout {
  /** Writes the superblock for a region that begins at `base` and has `sizeBytes`. */
  readonly put: (disk: SparseDisk, base: number, sizeBytes: number) => void;
  /** What the probe says beside the kind. */
  readonly found: {
    readonly uuid?: string | null;
    readonly label?: string | null;
    readonly version?: string | null;
  };
}

function ext(features: { compatible: number; incompatible: number; readOnly: number }): Layout {
  return {
    put: (disk, base) =>
      disk
        .put(base + kib + 0x38, "\x53\xef")
        .number(base + kib + 0x4c, 1, 4)
        .number(base + kib + 0x5c, features.compatible, 4)
        .number(base + kib + 0x60, features.incompatible, 4)
        .number(base + kib + 0x64, features.readOnly, 4)
        .put(base + kib + 0x68, id)
        .put(base + kib + 0x78, "root"),
    found: { uuid, label: "root", version: "1.0" },
  };
}

function mdOne(version: string, place: (sizeBytes: number) => number): Layout {
  return {
    put: (disk, base, sizeBytes) => {
      const at = place(sizeBytes);
      disk
        .number(base + at, 0xa92b4efc, 4)
        .number(base + at + 4, 1, 4)
        .put(base + at + 16, id)
        .put(base + at + 32, "rack12:0")
        .number(base + at + 144, at / 512, 8);
    },
    found: { uuid, label: "rack12:0", version },
  };
}

function text(offset: number, magic: string, found: Layout["found"] = {}): Layout {
  return { put: (disk, base) => disk.put(base + offset, magic), found };
}

function fromEnd(sectors: number, magic: string): Layout {
  return {
    put: (disk, base, sizeBytes) => disk.put(base + sizeBytes - sectors * 512, magic),
    found: {},
  };
}

/** Kind to layout; where a kind has several, a letter follows the name after a blank. */
export const layouts: { readonly [name: string]: Layout } = {
  ext4: ext({ compatible: 0x3c, incompatible: 0x2c2, readOnly: 0x46b }),
  ext3: ext({ compatible: 0x4, incompatible: 0x2, readOnly: 0x1 }),
  ext2: ext({ compatible: 0, incompatible: 0x2, readOnly: 0x1 }),
  jbd: ext({ compatible: 0, incompatible: 0x8, readOnly: 0 }),
  xfs: {
    put: (disk, base) =>
      disk
        .put(base, "XFSB")
        .put(base + 32, id)
        .put(base + 108, "scratch"),
    found: { uuid, label: "scratch" },
  },
  btrfs: {
    put: (disk, base) =>
      disk
        .put(base + 65_600, "_BHRfS_M")
        .put(base + 65_568, id)
        .put(base + 65_835, "pool"),
    found: { uuid, label: "pool" },
  },
  swap: {
    put: (disk, base) =>
      disk
        .put(base + 4086, "SWAPSPACE2")
        .put(base + 1036, id)
        .put(base + 1052, "swap0"),
    found: { uuid, label: "swap0", version: "1" },
  },
  "swap of 64 KiB pages": {
    put: (disk, base) => disk.put(base + 65_526, "SWAPSPACE2").put(base + 1036, id),
    found: { uuid, label: null },
  },
  swsuspend: text(4086, "S1SUSPEND"),
  vfat: {
    put: (disk, base) =>
      disk
        .number(base + 11, 512, 2)
        .number(base + 13, 8, 1)
        .put(base + 67, "\x3d\x4c\x2b\x1a")
        .put(base + 71, "ESP        FAT32   ")
        .put(base + 510, "\x55\xaa"),
    found: { uuid: "1A2B-4C3D", label: "ESP", version: "FAT32" },
  },
  "vfat 16": {
    put: (disk, base) =>
      disk
        .number(base + 11, 512, 2)
        .number(base + 13, 4, 1)
        .put(base + 43, "NO NAME    FAT16   ")
        .put(base + 510, "\x55\xaa"),
    found: { uuid: null, label: null, version: "FAT16" },
  },
  exfat: text(3, "EXFAT   "),
  ntfs: {
    put: (disk, base) => disk.put(base + 3, "NTFS    ").put(base + 72, "\x01\x23\x45\x67\x89\xab\xcd\xef"),
    found: { uuid: "EFCDAB8967452301" },
  },
  ReFS: text(0, "\0\0\0ReFS\0"),
  f2fs: {
    put: (disk, base) =>
      disk
        .put(base + kib, "\x10\x20\xf5\xf2")
        .put(base + kib + 108, id)
        .put(base + kib + 124, Buffer.from("flash", "utf16le")),
    found: { uuid, label: "flash" },
  },
  nilfs2: {
    put: (disk, base, sizeBytes) =>
      disk
        .put(base + kib + 6, "\x34\x34")
        .number(base + kib + 32, sizeBytes, 8)
        .put(base + kib + 152, id),
    found: { uuid },
  },
  jfs: {
    put: (disk, base) =>
      disk
        .put(base + 32 * kib, "JFS1")
        .put(base + 32 * kib + 136, id)
        .put(base + 32 * kib + 152, "old"),
    found: { uuid, label: "old" },
  },
  reiserfs: {
    put: (disk, base) => disk.put(base + 64 * kib + 52, "ReIsEr2Fs").put(base + 64 * kib + 84, id),
    found: { uuid },
  },
  reiser4: text(64 * kib, "ReIsEr4"),
  ufs: text(64 * kib + 0x55c, "\x19\x01\x54\x19"),
  hfsplus: text(kib, "H+\x00\x04"),
  apfs: text(32, "NXSB"),
  vxfs: text(kib, "\xf5\xfc\x01\xa5"),
  iso9660: {
    put: (disk, base) =>
      disk.put(base + 32 * kib + 1, "CD001").put(base + 32 * kib + 40, "Debian 12.8.0 amd64 n           "),
    found: { label: "Debian 12.8.0 amd64 n" },
  },
  udf: text(32 * kib + 2049, "NSR03"),
  squashfs: text(0, "hsqs"),
  cramfs: text(16, "Compressed ROMFS"),
  romfs: text(0, "-rom1fs-"),
  erofs: {
    put: (disk, base) =>
      disk
        .put(base + kib, "\xe2\xe1\xf5\xe0")
        .put(base + kib + 48, id)
        .put(base + kib + 64, "system"),
    found: { uuid, label: "system" },
  },
  zonefs: text(0, "SFOZ"),
  LVM2_member: {
    put: (disk, base) =>
      disk
        .put(base + 512, "LABELONE")
        .number(base + 512 + 8, 1, 8)
        .number(base + 512 + 20, 32, 4)
        .put(base + 512 + 24, "LVM2 001")
        .put(base + 512 + 32, "h6gP1xqS0aBcDeFgHiJkLmNoPqRsTuVw")
        // One data area at 1 MiB, the pair of zeroes, one metadata area at 4 KiB.
        .number(base + 512 + 72, mib, 8)
        .number(base + 512 + 104, 4096, 8)
        .put(base + 4096 + 4, " LVM2 x[5A%r0N*>")
        .number(base + 4096 + 40, 512, 8)
        .put(base + 4096 + 512, 'vg-data {\nid = "x"\n'),
    found: { uuid: "h6gP1x-qS0a-BcDe-FgHi-JkLm-NoPq-RsTuVw", label: "vg-data", version: "LVM2 001" },
  },
  LVM1_member: text(0, "HM\x01\x00", { version: "1" }),
  "linux_raid_member 1.0": mdOne("1.0", (sizeBytes) => sizeBytes - (sizeBytes % 4096) - 8192),
  "linux_raid_member 1.1": mdOne("1.1", () => 0),
  "linux_raid_member 1.2": mdOne("1.2", () => 4096),
  "linux_raid_member 0.90": {
    put: (disk, base, sizeBytes) => {
      const at = base + sizeBytes - (sizeBytes % 65_536) - 65_536;
      disk
        .number(at, 0xa92b4efc, 4)
        .number(at + 8, 90, 4)
        .number(at + 20, 0x11223344, 4)
        .number(at + 52, 0x55667788, 4);
    },
    found: { uuid: "11223344:55667788:00000000:00000000", version: "0.90" },
  },
  crypto_LUKS: {
    put: (disk, base) =>
      disk
        .put(base, "LUKS\xba\xbe")
        .number(base + 6, 2, 2, "big")
        .put(base + 24, "vault")
        .put(base + 168, uuid),
    found: { uuid, label: "vault", version: "2" },
  },
  "crypto_LUKS second header": {
    put: (disk, base) =>
      disk
        .put(base + 16 * kib, "SKUL\xba\xbe")
        .number(base + 16 * kib + 6, 2, 2, "big")
        .put(base + 16 * kib + 168, uuid),
    found: { uuid, version: "2" },
  },
  BitLocker: text(3, "-FVE-FS-"),
  bcache: {
    put: (disk, base) =>
      disk
        .put(base + 4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")
        .put(base + 4136, id),
    found: { uuid },
  },
  bcachefs: {
    put: (disk, base) =>
      disk
        .put(base + 4120, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef")
        .put(base + 4152, id),
    found: { uuid },
  },
  stratis: {
    put: (disk, base) =>
      disk
        .put(base + 516, "!Stra0tis\x86\xff\x02^\x41rh")
        .put(base + 544, "0123456789abcdef0123456789abcdef"),
    found: { uuid: "0123456789abcdef0123456789abcdef" },
  },
  vdo: text(0, "dmvdo001"),
  DM_verity_hash: text(0, "verity\0\0"),
  DM_integrity: text(0, "integrt\0"),
  DM_snapshot_cow: text(0, "SnAp"),
  isw_raid_member: fromEnd(2, "Intel Raid ISM Cfg Sig. 1.3.00"),
  nvidia_raid_member: fromEnd(2, "NVIDIA  "),
  lsi_mega_raid_member: fromEnd(1, "$XIDE$"),
  promise_fasttrack_raid_member: fromEnd(63, "Promise Technology, Inc."),
  adaptec_raid_member: {
    put: (disk, base, sizeBytes) =>
      disk.put(base + sizeBytes - 512, "\x37\xfc\x4d\x1e").put(base + sizeBytes - 256, "DPTM"),
    found: {},
  },
  ddf_raid_member: {
    put: (disk, base, sizeBytes) =>
      disk
        .put(base + sizeBytes - 512, "\xde\x11\xde\x11")
        .put(base + sizeBytes - 504, "LSI     guid-of-24-bytes")
        .put(base + sizeBytes - 480, "01.02.00"),
    found: { uuid: "LSI guid-of-24-bytes", version: "01.02.00" },
  },
  zfs_member: { put: (disk, base) => putPairs(disk, base + 16 * kib), found: zfsFound() },
  "zfs_member third label": {
    put: (disk, base, sizeBytes) =>
      putPairs(disk, base + sizeBytes - (sizeBytes % (256 * kib)) - 512 * kib + 16 * kib),
    found: zfsFound(),
  },
  "zfs_member ring only": text(128 * kib + 20 * kib, "\x0c\xb1\xba\x00\0\0\0\0"),
  VMFS_volume_member: {
    put: (disk, base) =>
      disk
        .put(base + mib, "\x0d\xd0\x01\xc0")
        .number(base + mib + 4, 5, 4)
        .put(base + mib + 532, "4f2d7c1a-8b3e5d60-9c1f-001b21a0b2c3"),
    found: { uuid: "4f2d7c1a-8b3e5d60-9c1f-001b21a0b2c3", version: "5" },
  },
  VMFS: {
    put: (disk, base) =>
      disk
        .put(base + 2 * mib, "\x5e\xf1\xab\x2f")
        .number(base + 2 * mib + 8, 81, 1)
        .put(base + 2 * mib + 9, "\x1a\x7c\x2d\x4f\x60\x5d\x3e\x8b\x1f\x9c\x00\x1b\x21\xa0\xb2\xc3")
        .put(base + 2 * mib + 29, "datastore1"),
    found: { uuid: "4f2d7c1a-8b3e5d60-9c1f-001b21a0b2c3", label: "datastore1", version: "81" },
  },
  gpfs: text(1024, "NSD descriptor for /dev/sdc created by GPFS Tue Mar  3 10:11:12 2020"),
  gfs2: gfs(1801),
  gfs: gfs(1309),
  ocfs2: {
    put: (disk, base) =>
      disk
        .put(base + 8 * kib, "OCFSV2")
        .put(base + 8 * kib + 272, "ovm")
        .put(base + 8 * kib + 336, id),
    found: { uuid, label: "ovm" },
  },
  ocfs: text(8 * kib, "OracleCFS"),
  oracleasm: text(32, "ORCLDISKDATA01", { label: "DATA01" }),
  ceph_bluestore: text(0, `bluestore block device\n${uuid}\n`, { uuid }),
  drbd: {
    put: (disk, base, sizeBytes) =>
      disk
        .number(base + sizeBytes - 4096 + 60, 0x8374026d, 4, "big")
        .number(base + sizeBytes - 4096 + 48, 0xabcdn, 8, "big"),
    found: { uuid: "000000000000abcd", version: "9" },
  },
  drbdmanage_control_volume: text(0, "$DRBDmgr=q"),
  scoutfs: text(64 * kib + 4, "\x8b\x42\x3c\x10"),
};

function gfs(format: number): Layout {
  return {
    put: (disk, base) =>
      disk
        .number(base + 64 * kib, 0x01161970, 4, "big")
        .number(base + 64 * kib + 4, 1, 4, "big")
        .number(base + 64 * kib + 24, format, 4, "big")
        .put(base + 64 * kib + 160, "alpha:web")
        .put(base + 64 * kib + 256, id),
    found: { uuid, label: "alpha:web", version: `${format}` },
  };
}

function zfsFound(): Layout["found"] {
  return { uuid: "9876543210123456789", label: "tank", version: "5000" };
}

/** A packed list of names in XDR, as a label of ZFS has it. */
function putPairs(disk: SparseDisk, start: number): void {
  disk.put(start, "\x01\x01\0\0").number(start + 8, 1, 4, "big");
  let at = start + 12;
  for (const [name, value] of [
    ["version", 5000n],
    ["name", "tank"],
    ["state", 0n],
    ["pool_guid", 9876543210123456789n],
  ] as const) {
    const nameBytes = (name.length + 3) & ~3;
    const valueBytes = typeof value === "string" ? 4 + ((value.length + 3) & ~3) : 8;
    const size = 12 + nameBytes + 8 + valueBytes;
    disk
      .number(at, size, 4, "big")
      .number(at + 4, size, 4, "big")
      .number(at + 8, name.length, 4, "big")
      .put(at + 12, name);
    const after = at + 12 + nameBytes;
    disk.number(after, typeof value === "string" ? 9 : 8, 4, "big").number(after + 4, 1, 4, "big");
    if (typeof value === "string") disk.number(after + 8, value.length, 4, "big").put(after + 12, value);
    else disk.number(after + 8, value, 8, "big");
    at += size;
  }
}
