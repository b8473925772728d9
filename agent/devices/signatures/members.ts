// Signatures of what makes a disk a part of something larger (RAID, volume groups, caches, replicas), and of encryption.
import { type Detector, type Found, magic } from "./detector.ts";
import { type Spots, textField, uuidField } from "./spots.ts";

const kib = 1024;
const sector = 512;
const bcacheMagic = "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
const bcachefsMagic = "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";

export const members: readonly Detector[] = [
  { kind: "LVM2_member", use: "member", detect: lvm },
  { kind: "LVM1_member", use: "member", detect: lvm1 },
  { kind: "linux_raid_member", use: "member", detect: md },
  { kind: "crypto_LUKS", use: "encrypted", detect: luks },
  { kind: "BitLocker", use: "encrypted", detect: magic(3, "-FVE-FS-") },
  { kind: "bcache", use: "member", detect: (spots) => bcache(spots, bcacheMagic, 16) },
  { kind: "bcachefs", use: "filesystem", detect: (spots) => bcache(spots, bcachefsMagic, 32) },
  { kind: "stratis", use: "member", detect: stratis },
  { kind: "vdo", use: "member", detect: magic(0, "dmvdo001") },
  { kind: "DM_verity_hash", use: "other", detect: magic(0, "verity\0\0") },
  { kind: "DM_integrity", use: "member", detect: magic(0, "integrt\0") },
  { kind: "DM_snapshot_cow", use: "other", detect: magic(0, "SnAp") },
  { kind: "isw_raid_member", use: "member", detect: fromEnd(2, "Intel Raid ISM Cfg Sig. ") },
  { kind: "nvidia_raid_member", use: "member", detect: fromEnd(2, "NVIDIA  ") },
  { kind: "lsi_mega_raid_member", use: "member", detect: fromEnd(1, "$XIDE$") },
  { kind: "promise_fasttrack_raid_member", use: "member", detect: promise },
  { kind: "adaptec_raid_member", use: "member", detect: adaptec },
  { kind: "ddf_raid_member", use: "member", detect: ddf },
];

/** A label in one of the first four sectors: `LABELONE`, its own sector's number, `LVM2 001`, then the volume's id. */
function lvm(spots: Spots): Found | null {
  for (let number = 0; number < 4; number++) {
    const offset = number * sector;
    if (!spots.has(offset, "LABELONE") || !spots.has(offset + 24, "LVM2 001")) continue;
    const header = spots.view(offset, sector);
    if (header === null) continue;
    const content = offset + Math.min(header.getUint32(20, true), sector);
    const id = textField(spots.bytes(content, 32));
    return {
      offset,
      uuid:
        id === null
          ? null
          : id.replace(/^(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})(.{6})$/, "$1-$2-$3-$4-$5-$6-$7"),
      label: volumeGroup(spots, content + 40),
      version: "LVM2 001",
    };
  }
  return null;
}

const areasMax = 8;

/**
 * The name of the volume group: the first word of the text that the first metadata area names. After the volume's id
 * and size stand pairs of offset and length: data areas up to a pair of zeroes, then metadata areas.
 */
function volumeGroup(spots: Spots, pairs: number): string | null {
  let metadata = false;
  for (let index = 0; index < areasMax; index++) {
    const pair = spots.view(pairs + index * 16, 16);
    if (pair === null) return null;
    const start = Number(pair.getBigUint64(0, true));
    if (start === 0) {
      if (metadata) return null;
      metadata = true;
      continue;
    }
    if (!metadata) continue;
    if (!spots.has(start + 4, " LVM2 x[5A%r0N*>")) return null;
    const text = spots.view(start + 40, 8);
    if (text === null) return null;
    const name = textField(spots.bytes(start + Number(text.getBigUint64(0, true)), 128));
    return /^([A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}) \{/.exec(name ?? "")?.[1] ?? null;
  }
  return null;
}

function lvm1(spots: Spots): Found | null {
  const header = spots.view(0, 4);
  if (header === null || !spots.has(0, "HM")) return null;
  const version = header.getUint16(2, true);
  return version === 1 || version === 2 ? { offset: 0, version: `${version}` } : null;
}

const mdMagic = 0xa92b4efc;

/** Versions 1.1 and 1.2 at the beginning; 1.0 and 0.90 at the end. */
function md(spots: Spots): Found | null {
  const { sizeBytes } = spots;
  const places = [
    { offset: 0, version: "1.1" },
    { offset: 4 * kib, version: "1.2" },
    { offset: sizeBytes - (sizeBytes % (4 * kib)) - 8 * kib, version: "1.0" },
  ];
  for (const { offset, version } of places) {
    const block = spots.view(offset, 160);
    if (block === null || block.getUint32(0, true) !== mdMagic || block.getUint32(4, true) !== 1) continue;
    // It tells where it lies: the end of a partition is also the end of its disk.
    if (block.getBigUint64(144, true) !== BigInt(offset / sector)) continue;
    return {
      offset,
      version,
      uuid: uuidField(spots.bytes(offset + 16, 16)),
      label: textField(spots.bytes(offset + 32, 32)),
    };
  }
  const offset = sizeBytes - (sizeBytes % (64 * kib)) - 64 * kib;
  const block = spots.view(offset, 64);
  if (block === null) return null;
  const little = block.getUint32(0, true) === mdMagic;
  if (!little && block.getUint32(0, false) !== mdMagic) return null;
  const words = [20, 52, 56, 60].map((at) => block.getUint32(at, little).toString(16).padStart(8, "0"));
  return { offset, version: "0.90", uuid: words.join(":") };
}

function luks(spots: Spots): Found | null {
  // LUKS2 has a second header, which remains when the first is overwritten.
  for (const offset of [0, 16 * kib, 32 * kib, 64 * kib]) {
    if (!spots.has(offset, offset === 0 ? "LUKS\xba\xbe" : "SKUL\xba\xbe")) continue;
    const version = spots.view(offset + 6, 2)?.getUint16(0) ?? 0;
    return {
      offset,
      version: `${version}`,
      uuid: textField(spots.bytes(offset + 168, 40)),
      label: version === 2 ? textField(spots.bytes(offset + 24, 48)) : null,
    };
  }
  return null;
}

function bcache(spots: Spots, text: string, uuidAt: number): Found | null {
  const offset = 4 * kib + 24;
  return spots.has(offset, text) ? { offset, uuid: uuidField(spots.bytes(offset + uuidAt, 16)) } : null;
}

function stratis(spots: Spots): Found | null {
  for (const start of [sector, 9 * sector]) {
    if (!spots.has(start + 4, "!Stra0tis\x86\xff\x02^\x41rh")) continue;
    return { offset: start + 4, uuid: textField(spots.bytes(start + 32, 32)) };
  }
  return null;
}

function fromEnd(sectors: number, text: string): Detector["detect"] {
  return (spots) => {
    const offset = (Math.floor(spots.sizeBytes / sector) - sectors) * sector;
    return spots.has(offset, text) ? { offset } : null;
  };
}

function promise(spots: Spots): Found | null {
  for (const sectors of [16, 63, 255, 256]) {
    const found = fromEnd(sectors, "Promise Technology, Inc.")(spots);
    if (found !== null) return found;
  }
  return null;
}

function adaptec(spots: Spots): Found | null {
  const offset = (Math.floor(spots.sizeBytes / sector) - 1) * sector;
  return spots.has(offset, "\x37\xfc\x4d\x1e") && spots.has(offset + 256, "DPTM") ? { offset } : null;
}

/** SNIA's Common RAID Disk Data Format: the anchor in the last sector, or the header 257 before the end. */
function ddf(spots: Spots): Found | null {
  for (const sectors of [1, 257]) {
    const offset = (Math.floor(spots.sizeBytes / sector) - sectors) * sector;
    if (!spots.has(offset, "\xde\x11\xde\x11") && !spots.has(offset, "\x11\xde\x11\xde")) continue;
    return {
      offset,
      uuid: textField(spots.bytes(offset + 8, 24)),
      version: textField(spots.bytes(offset + 32, 8)),
    };
  }
  return null;
}
