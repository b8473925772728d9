// Parses the header of a qcow2 file and refuses, before any program opens it, what would make that program open other files.
import { BedplateError } from "../../protocol/errors.ts";
import { imageLimits } from "./limits.ts";

/** https://www.qemu.org/docs/master/interop/qcow2.html */
export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterBytes: number;
  /** Of the disk within. */
  readonly sizeBytes: number;
  readonly compression: "deflate" | "zstd";
  readonly extendedL2: boolean;
  /** Internal snapshots; only the active state is converted. */
  readonly snapshots: number;
}

const magic = 0x514649fb;
const v2Bytes = 72;
const v3Bytes = 104;

const incompatible = { dirty: 1n, corrupt: 2n, externalData: 4n, compression: 8n, extendedL2: 16n } as const;
const incompatibleKnown = 31n;
const autoclearRawExternalData = 2n;

const extension = {
  end: 0,
  backingFormat: 0xe2792aca,
  encryption: 0x0537be77,
  externalData: 0x44415441,
} as const;

/**
 * @param head the file's first bytes: its first cluster, or at least 1 MiB, or all of the file
 * @param fileBytes the whole file's length, where it is known already
 * @throws `image.unsafe` for backing files, external data files and encryption; `image.corrupt`, `image.truncated` and
 * `image.unsupported` for what is no sound qcow2 of version 2 or 3
 */
export function parseQcow2(head: Uint8Array, fileBytes?: number): Qcow2Header {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (head.length < v2Bytes)
    throw new BedplateError("image.truncated", "The qcow2 file ends within its header.");
  if (view.getUint32(0) !== magic)
    throw new BedplateError("image.corrupt", "The file does not start as qcow2 does.");
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) {
    throw new BedplateError(
      "image.unsupported",
      `The qcow2 file has version ${version}; versions 2 and 3 are taken.`,
    );
  }
  if (version === 3 && head.length < v3Bytes)
    throw new BedplateError("image.truncated", "The qcow2 file ends within its header.");
  refuseOtherFiles(view, version);

  const clusterBits = view.getUint32(20);
  if (clusterBits < 9 || clusterBits > 21)
    corrupt(`its cluster size of 2^${clusterBits} bytes is out of range`);
  const clusterBytes = 2 ** clusterBits;
  const sizeBytes = sizeOf(view);
  const extendedL2 = version === 3 && hasBit(view, 72, incompatible.extendedL2);
  if (extendedL2 && clusterBits < 14) corrupt("its clusters are too small for extended L2 entries");
  checkTables(view, { clusterBytes, sizeBytes, extendedL2, fileBytes });
  const snapshots = view.getUint32(60);
  if (snapshots > 65536) corrupt(`it claims ${snapshots} snapshots`);

  const headerBytes = version === 3 ? headerLength(view, clusterBytes) : v2Bytes;
  const compression = version === 3 ? compressionOf(view, headerBytes) : "deflate";
  scanExtensions(view, headerBytes, clusterBytes);
  return { version, clusterBytes, sizeBytes, compression, extendedL2, snapshots };
}

function refuseOtherFiles(view: DataView, version: 2 | 3): void {
  if (view.getBigUint64(8) !== 0n || view.getUint32(16) !== 0) unsafe("a backing file");
  const method = view.getUint32(32);
  if (method !== 0) unsafe(method === 2 ? "LUKS encryption" : "encryption");
  if (version !== 3) return;
  const features = view.getBigUint64(72);
  if ((features & incompatible.externalData) !== 0n || hasBit(view, 88, autoclearRawExternalData))
    unsafe("an external data file");
  if ((features & incompatible.corrupt) !== 0n) corrupt("it is marked corrupt");
  if ((features & ~incompatibleKnown) !== 0n) {
    throw new BedplateError(
      "image.unsupported",
      `The qcow2 file uses features that are not known here (0x${features.toString(16)}).`,
    );
  }
}

function sizeOf(view: DataView): number {
  const size = view.getBigUint64(24);
  if (size === 0n) throw new BedplateError("image.unsupported", "The qcow2 file holds a disk of size 0.");
  if (size > BigInt(imageLimits.imageBytesMax)) {
    throw new BedplateError(
      "image.expansion",
      `The qcow2 file holds a disk of ${size} bytes; at most ${imageLimits.imageBytesMax} are taken.`,
    );
  }
  if (size % 512n !== 0n) corrupt("its disk size is no multiple of 512");
  return Number(size);
}

interface Tables {
  readonly clusterBytes: number;
  readonly sizeBytes: number;
  readonly extendedL2: boolean;
  readonly fileBytes: number | undefined;
}

/** The tables the header points at must be aligned, large enough and within the file. */
function checkTables(view: DataView, { clusterBytes, sizeBytes, extendedL2, fileBytes }: Tables): void {
  const within = (what: string, offset: bigint, length: number) => {
    if (offset === 0n || offset % BigInt(clusterBytes) !== 0n) corrupt(`its ${what} is not at a cluster`);
    if (fileBytes !== undefined && offset + BigInt(length) > BigInt(fileBytes)) {
      throw new BedplateError("image.truncated", `The qcow2 file ends before or within its ${what}.`);
    }
  };
  const l1Entries = view.getUint32(36);
  const bytesPerEntry = (clusterBytes / (extendedL2 ? 16 : 8)) * clusterBytes;
  if (l1Entries < Math.ceil(sizeBytes / bytesPerEntry)) corrupt("its L1 table is too small for its disk");
  if (l1Entries * 8 > 32 * 1024 * 1024) corrupt("its L1 table is larger than 32 MiB");
  within("L1 table", view.getBigUint64(40), l1Entries * 8);
  const refcountClusters = view.getUint32(56);
  if (refcountClusters * clusterBytes > 8 * 1024 * 1024) corrupt("its refcount table is larger than 8 MiB");
  within("refcount table", view.getBigUint64(48), 0);
}

function headerLength(view: DataView, clusterBytes: number): number {
  if (view.getUint32(96) > 6) corrupt("its refcount order is above 6");
  const length = view.getUint32(100);
  if (length < v3Bytes || length % 8 !== 0 || length > clusterBytes)
    corrupt(`its header length of ${length} is out of range`);
  return length;
}

function compressionOf(view: DataView, headerBytes: number): "deflate" | "zstd" {
  const type = headerBytes > v3Bytes && view.byteLength > v3Bytes ? view.getUint8(v3Bytes) : 0;
  if ((type !== 0) !== hasBit(view, 72, incompatible.compression))
    corrupt("its compression type and its feature bits disagree");
  if (type > 1)
    throw new BedplateError(
      "image.unsupported",
      `The qcow2 file uses compression type ${type}, which is not known here.`,
    );
  return type === 1 ? "zstd" : "deflate";
}

/** Extensions fill the first cluster up to an end marker. Those not known are for others to ignore, as the format says. */
function scanExtensions(view: DataView, start: number, clusterBytes: number): void {
  for (let at = start; at + 8 <= clusterBytes; ) {
    if (at + 8 > view.byteLength) {
      throw new BedplateError(
        "image.truncated",
        "The qcow2 file ends within its header extensions, or they go on past what is read of them.",
      );
    }
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === extension.end) return;
    if (type === extension.externalData) unsafe("an external data file");
    if (type === extension.encryption) unsafe("encryption");
    if (type === extension.backingFormat) unsafe("the format of a backing file");
    if (length > clusterBytes - at - 8) corrupt(`its header extension at ${at} leaves the first cluster`);
    at += 8 + Math.ceil(length / 8) * 8;
  }
}

function hasBit(view: DataView, offset: number, bit: bigint): boolean {
  return (view.getBigUint64(offset) & bit) !== 0n;
}

function unsafe(what: string): never {
  throw new BedplateError("image.unsafe", `The qcow2 file names ${what}, and is refused unopened.`, {
    hint: "Flatten it where it was made: qemu-img convert -O qcow2 SOURCE STANDALONE.qcow2.",
  });
}

function corrupt(why: string): never {
  throw new BedplateError("image.corrupt", `The qcow2 file is not sound: ${why}.`);
}
