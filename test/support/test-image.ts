// Images for tests: bytes of every kind, their manifest and frames, made the straightforward way.
import { randomBytes } from "node:crypto";
import { zstdCompressSync } from "node:zlib";
import { createGroupKernel, mergeGroups } from "../../assembly/index.ts";
import { hex } from "../../protocol/bytes.ts";
import {
  digestBytes,
  encodeManifest,
  groupBytes,
  groupCount,
  groupLength,
  type Manifest,
} from "../../protocol/manifest.ts";

export interface TestImage {
  readonly bytes: Uint8Array;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  readonly frames: Uint8Array;
  /** Where each group's frame begins, and the end. */
  readonly frameStarts: readonly number[];
  /** As a command names it. */
  readonly reference: { readonly root: string; readonly sizeBytes: number };
}

export interface ImageOptions {
  readonly sizeBytes: number;
  readonly sectorBytes?: 512 | 4096 | null;
  /** Groups of zeroes. */
  readonly zeroGroups?: readonly number[];
}

/** Random bytes, half of each group repeating so that it compresses. */
export async function makeImage({
  sizeBytes,
  sectorBytes = null,
  zeroGroups = [],
}: ImageOptions): Promise<TestImage> {
  const bytes = new Uint8Array(sizeBytes);
  for (let group = 0; group < groupCount(sizeBytes); group++) {
    if (zeroGroups.includes(group)) continue;
    const length = groupLength(sizeBytes, group);
    const part = bytes.subarray(group * groupBytes, group * groupBytes + length);
    part.set(randomBytes(Math.ceil(length / 2)));
    part.fill(group % 256, Math.ceil(length / 2));
  }
  return imageOf(bytes, sectorBytes);
}

export async function imageOf(bytes: Uint8Array, sectorBytes: 512 | 4096 | null = null): Promise<TestImage> {
  const kernel = await createGroupKernel();
  const count = groupCount(bytes.length);
  const groups = new Uint8Array(count * digestBytes);
  const frames: Uint8Array[] = [];
  for (let group = 0; group < count; group++) {
    const part = bytes.subarray(group * groupBytes, (group + 1) * groupBytes);
    kernel.windows[0]!.set(part);
    groups.set(kernel.chainingValue(0, part.length, group, { root: count === 1 }), group * digestBytes);
    frames.push(kernel.isZero(0, part.length) ? new Uint8Array() : zstdCompressSync(part));
  }
  const root = mergeGroups(groups, count);
  const frameBytes = Uint32Array.from(frames, (frame) => frame.length);
  const manifest: Manifest = {
    sizeBytes: bytes.length,
    sectorBytes,
    root,
    groups,
    frameBytes,
    name: "test",
    importedFrom: "raw",
  };
  const frameStarts = [0];
  for (const frame of frames) frameStarts.push(frameStarts.at(-1)! + frame.length);
  return {
    bytes,
    manifest,
    manifestBytes: encodeManifest(manifest),
    frames: Buffer.concat(frames),
    frameStarts,
    reference: { root: hex(root), sizeBytes: bytes.length },
  };
}
