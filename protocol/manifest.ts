// An image's manifest: its size, the digest of every 1 MiB group, and how the groups are stored for transfer.
import Type from "typebox";
import { hex } from "./bytes.ts";
import { assert, BedplateError } from "./errors.ts";
import { decodeFrame, encodeFrame } from "./frames.ts";
import { digestBytes, groupBytes, groupCount } from "./groups.ts";
import { limits } from "./limits.ts";
import { Bytes, checker, FixedBytes, Name } from "./schema.ts";

export { digestBytes, groupBytes, groupCount, groupLength } from "./groups.ts";

export interface Manifest {
  /** The raw image, at most 2^53-1. */
  readonly sizeBytes: number;
  /** Of the image's partition table; null when it has none. */
  readonly sectorBytes: 512 | 4096 | null;
  /** BLAKE3 of the raw image: what `b3sum` prints. */
  readonly root: Uint8Array;
  /**
   * 32 bytes a group: the BLAKE3 chaining value of that aligned 1 MiB as a subtree of the whole. The last group may be
   * short; an image of one group stores the root itself.
   */
  readonly groups: Uint8Array;
  /** Bytes of each group's zstd frame in the frames file, in order; 0 for a group of zeroes, which has no frame. */
  readonly frameBytes: Uint32Array;
  readonly name: string;
  /** What was imported: raw, gzip, zstd, xz, qcow2. */
  readonly importedFrom: string;
}

const Wire = Type.Object({
  bedplate: Type.Literal("manifest/1"),
  sizeBytes: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
  sectorBytes: Type.Union([Type.Literal(512), Type.Literal(4096), Type.Null()]),
  groupBytes: Type.Literal(groupBytes),
  root: FixedBytes(digestBytes),
  groups: Bytes,
  /** u32, little-endian, one a group. */
  frames: Bytes,
  name: Name,
  importedFrom: Type.String({ maxLength: 64 }),
});
const check = checker(Wire, "image.bad-manifest", "manifest");

export function groupDigest(manifest: Manifest, group: number): Uint8Array {
  return manifest.groups.subarray(group * digestBytes, (group + 1) * digestBytes);
}

export function encodeManifest(manifest: Manifest): Uint8Array {
  const frames = new Uint8Array(manifest.frameBytes.length * 4);
  const view = new DataView(frames.buffer);
  manifest.frameBytes.forEach((length, i) => {
    view.setUint32(4 * i, length, true);
  });
  const { frameBytes: _, ...rest } = manifest;
  const bytes = encodeFrame({ bedplate: "manifest/1", groupBytes, ...rest, frames });
  assert(bytes.length <= limits.manifestBytesMax, "a manifest within its bound");
  return bytes;
}

/**
 * Reads a manifest and checks that its parts agree. Whether the groups add up to the root is for the caller to check
 * with `mergeGroups`: until then nothing in it is trusted.
 * @throws `image.bad-manifest`
 */
export function decodeManifest(bytes: Uint8Array): Manifest {
  let value: unknown;
  try {
    value = decodeFrame(bytes, limits.manifestBytesMax);
  } catch (cause) {
    throw new BedplateError("image.bad-manifest", "The manifest is not a plain MessagePack document.", {
      cause,
    });
  }
  const wire = check(value);
  const count = groupCount(wire.sizeBytes);
  if (wire.groups.length !== count * digestBytes || wire.frames.length !== count * 4) {
    throw new BedplateError(
      "image.bad-manifest",
      `The manifest of ${wire.sizeBytes} bytes must describe ${count} groups.`,
      {
        details: {
          root: hex(wire.root),
          groups: wire.groups.length / digestBytes,
          frames: wire.frames.length / 4,
        },
      },
    );
  }
  const frames = new DataView(wire.frames.buffer, wire.frames.byteOffset, wire.frames.length);
  const frameBytes = Uint32Array.from({ length: count }, (_, i) => frames.getUint32(4 * i, true));
  const { sizeBytes, sectorBytes, name, importedFrom } = wire;
  return {
    sizeBytes,
    sectorBytes,
    name,
    importedFrom,
    frameBytes,
    root: Uint8Array.from(wire.root),
    groups: Uint8Array.from(wire.groups),
  };
}

/** Where each group's frame starts in the frames file; one more entry for its end. */
export function frameOffsets(manifest: Manifest): Float64Array {
  const offsets = new Float64Array(manifest.frameBytes.length + 1);
  manifest.frameBytes.forEach((length, i) => {
    offsets[i + 1] = offsets[i]! + length;
  });
  return offsets;
}
