// Signatures of what several hosts may use at a time: cluster file systems, replicas, object stores.
import { type Detector, type Found, magic } from "./detector.ts";
import { type Spots, textField, uuidField } from "./spots.ts";

const kib = 1024;
const mib = 1024 * kib;

export const sharedStorage: readonly Detector[] = [
  { kind: "VMFS_volume_member", use: "member", shared: true, detect: vmfsVolume },
  { kind: "VMFS", use: "filesystem", shared: true, detect: vmfs },
  { kind: "gpfs", use: "member", shared: true, detect: gpfs },
  { kind: "gfs2", use: "filesystem", shared: true, detect: (spots) => gfs(spots, "gfs2") },
  { kind: "gfs", use: "filesystem", shared: true, detect: (spots) => gfs(spots, "gfs") },
  { kind: "ocfs2", use: "filesystem", shared: true, detect: ocfs2 },
  { kind: "ocfs", use: "filesystem", shared: true, detect: magic(8 * kib, "OracleCFS") },
  {
    kind: "oracleasm",
    use: "member",
    shared: true,
    detect: (spots) =>
      spots.has(32, "ORCLDISK") ? { offset: 32, label: textField(spots.bytes(40, 24)) } : null,
  },
  { kind: "ceph_bluestore", use: "member", shared: true, detect: bluestore },
  { kind: "drbd", use: "member", shared: true, detect: drbd },
  { kind: "drbdmanage_control_volume", use: "other", shared: true, detect: magic(0, "$DRBDmgr=q") },
  {
    kind: "scoutfs",
    use: "filesystem",
    shared: true,
    detect: (spots) =>
      spots.has(64 * kib + 4, "\x8b\x42\x3c\x10")
        ? { offset: 64 * kib + 4, uuid: uuidField(spots.bytes(64 * kib + 56, 16)) }
        : null,
  },
];

function vmfsVolume(spots: Spots): Found | null {
  if (!spots.has(mib, "\x0d\xd0\x01\xc0")) return null;
  return {
    offset: mib,
    uuid: textField(spots.bytes(mib + 532, 35)),
    version: `${spots.view(mib + 4, 4)?.getUint32(0, true) ?? ""}`,
  };
}

function vmfs(spots: Spots): Found | null {
  const offset = 2 * mib;
  if (!spots.has(offset, "\x5e\xf1\xab\x2f")) return null;
  return {
    offset,
    uuid: vmwareUuid(spots.bytes(offset + 9, 16)),
    label: textField(spots.bytes(offset + 29, 128)),
    version: `${spots.view(offset + 8, 1)?.getUint8(0) ?? ""}`,
  };
}

/** `4f2d7c1a-8b3e5d60-9c1f-001b21a0b2c3`: the first two words and the half-word little-endian. */
function vmwareUuid(bytes: Uint8Array | null): string | null {
  if (bytes === null) return null;
  const digits = [3, 2, 1, 0, 7, 6, 5, 4, 9, 8, 10, 11, 12, 13, 14, 15]
    .map((at) => bytes[at]!.toString(16).padStart(2, "0"))
    .join("");
  return digits.replace(/^(.{8})(.{8})(.{4})(.{12})$/, "$1-$2-$3-$4");
}

/** A disk of a cluster without a partition table tells in plain text, in its first sectors, that it is one. */
function gpfs(spots: Spots): Found | null {
  const head = spots.bytes(0, 8 * kib);
  if (head === null) return null;
  const offset = Buffer.from(head.buffer, head.byteOffset, head.byteLength).indexOf("NSD descriptor");
  return offset < 0 ? null : { offset };
}

/** Big-endian: magic, type 1 (superblock), then the formats of the file system (GFS 1309, GFS2 1801 and later). */
function gfs(spots: Spots, which: "gfs" | "gfs2"): Found | null {
  const offset = 64 * kib;
  const block = spots.view(offset, 288);
  if (block === null || block.getUint32(0) !== 0x01161970 || block.getUint32(4) !== 1) return null;
  const format = block.getUint32(24);
  if ((format === 1309 ? "gfs" : "gfs2") !== which) return null;
  return {
    offset,
    uuid: uuidField(spots.bytes(offset + 256, 16)),
    label: textField(spots.bytes(offset + 160, 64)),
    version: `${format}`,
  };
}

/** In the third block, whatever a block's size: 512 bytes to 4 KiB. */
function ocfs2(spots: Spots): Found | null {
  for (const offset of [kib, 2 * kib, 4 * kib, 8 * kib]) {
    if (!spots.has(offset, "OCFSV2")) continue;
    return {
      offset,
      label: textField(spots.bytes(offset + 272, 64)),
      uuid: uuidField(spots.bytes(offset + 336, 16)),
    };
  }
  return null;
}

/** An OSD's disk: the line, its UUID as text, and a newline. */
function bluestore(spots: Spots): Found | null {
  if (!spots.has(0, "bluestore block device\n")) return null;
  return { offset: 0, uuid: textField(spots.bytes(23, 36)) };
}

/** Internal metadata ends the disk: its magic number stands at the same place of the last 4 KiB in versions 8 and 9. */
function drbd(spots: Spots): Found | null {
  const start = spots.sizeBytes - (spots.sizeBytes % (4 * kib)) - 4 * kib;
  const block = spots.view(start, 64);
  if (block === null || spots.sizeBytes < 64 * kib) return null;
  const number = block.getUint32(60);
  if (number !== 0x8374026b && number !== 0x8374026c && number !== 0x8374026d) return null;
  const version = number === 0x8374026d ? "9" : "8";
  const device = block.getBigUint64(version === "9" ? 48 : 40);
  return { offset: start + 60, uuid: device === 0n ? null : device.toString(16).padStart(16, "0"), version };
}
