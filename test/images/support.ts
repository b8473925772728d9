// What the image tests share: directories of their own, reproducible content, and qcow2 files made by hand.
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { zstdDecompressSync } from "node:zlib";
import { blake3 } from "hash-wasm";
import { readLayout, stretchesOf } from "../../controller/images/layout.ts";
import type { StoredPart } from "../../controller/images/stored-part.ts";
import { findProgram } from "../../controller/images/tool.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { decodeManifest, frameOffsets, groupLength } from "../../protocol/manifest.ts";

export const mib = 1024 * 1024;
export const systemPrograms = { path: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" };
export const hasProgram = async (name: string) => (await findProgram(name, systemPrograms)) !== undefined;

export async function temporaryDirectory(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), "bedplate-images-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Bytes that compress to about half, the same for the same seed. */
export function content(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let state = seed * 2654435761;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = (state >>> 24) & 0x1f;
  }
  return bytes;
}

/** The same with groups of zeroes: number 1, and the last whole one. */
export function contentWithHoles(length: number): Uint8Array<ArrayBuffer> {
  const bytes = content(length, 2);
  bytes.fill(0, mib, 2 * mib);
  bytes.fill(0, (Math.floor(length / mib) - 1) * mib, Math.floor(length / mib) * mib);
  return bytes;
}

export const rootOf = (bytes: Uint8Array): Promise<string> => blake3(bytes);

/** A stored image's bytes, put together again from its frames. */
export async function readStored(store: string, root: string): Promise<Uint8Array> {
  const manifest = decodeManifest(await readFile(join(store, root, "manifest")));
  const offsets = frameOffsets(manifest);
  const frames = await readFrames(join(store, root), offsets.at(-1)!);
  const pieces = Array.from(manifest.frameBytes, (length, group) =>
    length === 0
      ? new Uint8Array(groupLength(manifest.sizeBytes, group))
      : zstdDecompressSync(frames.subarray(offsets[group], offsets[group + 1])),
  );
  return Buffer.concat(pieces);
}

/** All of an image's frames, wherever they lie. */
export async function readFrames(directory: string, storedBytes: number): Promise<Buffer> {
  const layout = await readLayout(directory, storedBytes);
  const stretches = stretchesOf(layout, { start: 0, end: storedBytes });
  const pieces = stretches.map(async ({ name, start, end }) =>
    (await readFile(join(directory, name))).subarray(start, end),
  );
  return Buffer.concat(await Promise.all(pieces));
}

/** A part of an image of an open store, by default all of it. */
export async function readPart(
  part: StoredPart,
  range: { readonly start: number; readonly end: number } = { start: 0, end: part.sizeBytes },
): Promise<Buffer> {
  return await buffer(await part.read(range));
}

export const namesIn = async (directory: string): Promise<string[]> =>
  (await readdir(directory).catch(() => [])).sort();

/** The code of the BedplateError that `action` ends with; any other end fails the test by its name. */
export async function codeOf(action: Promise<unknown> | (() => unknown)): Promise<string> {
  return (await errorOf(action)).code;
}

export async function errorOf(action: Promise<unknown> | (() => unknown)): Promise<BedplateError> {
  try {
    await (typeof action === "function" ? action() : action);
  } catch (error) {
    if (error instanceof BedplateError) return error;
    throw error;
  }
  throw new Error("it succeeded");
}

export async function* pieces(bytes: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

export interface Qcow2Options {
  readonly version?: 2 | 3;
  readonly sizeBytes?: number;
  /** Host cluster of each guest cluster's data: 0 is none, else an index into `clusters` plus one. */
  readonly map?: readonly number[];
  readonly clusters?: readonly Uint8Array[];
  /** Bytes to put over the finished file. */
  readonly patches?: readonly { at: number; bytes: readonly number[] }[];
}

export const qcow2ClusterBytes = 65536;

/** Header, L1, one L2, refcount table, refcount block, then data: six clusters and more. At most 512 MiB of disk. */
export function makeQcow2({
  version = 3,
  sizeBytes = mib,
  map = [],
  clusters = [],
  patches = [],
}: Qcow2Options = {}): Uint8Array<ArrayBuffer> {
  const file = new Uint8Array((5 + clusters.length) * qcow2ClusterBytes);
  const view = new DataView(file.buffer);
  const at = (cluster: number) => BigInt(cluster * qcow2ClusterBytes);
  view.setUint32(0, 0x514649fb);
  view.setUint32(4, version);
  view.setUint32(20, 16);
  view.setBigUint64(24, BigInt(sizeBytes));
  view.setUint32(36, 1);
  view.setBigUint64(40, at(1));
  view.setBigUint64(48, at(3));
  view.setUint32(56, 1);
  if (version === 3) {
    view.setUint32(96, 4);
    view.setUint32(100, 104);
  }
  const copied = 1n << 63n;
  view.setBigUint64(qcow2ClusterBytes, at(2) | copied);
  for (const [i, cluster] of map.entries())
    view.setBigUint64(2 * qcow2ClusterBytes + 8 * i, cluster === 0 ? 0n : at(4 + cluster) | copied);
  view.setBigUint64(3 * qcow2ClusterBytes, at(4));
  for (let cluster = 0; cluster < 5 + clusters.length; cluster++)
    view.setUint16(4 * qcow2ClusterBytes + 2 * cluster, 1);
  for (const [i, bytes] of clusters.entries()) file.set(bytes, (5 + i) * qcow2ClusterBytes);
  for (const patch of patches) file.set(patch.bytes, patch.at);
  return file;
}
