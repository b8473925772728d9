// A small image of one group, with its manifest and frames, made without any of the code under test.
import { zstdCompressSync } from "node:zlib";
import { blake3 } from "@noble/hashes/blake3.js";
import { hex } from "../../protocol/bytes.ts";
import { encodeManifest } from "../../protocol/manifest.ts";

export interface SmallImage {
  readonly raw: Uint8Array;
  readonly root: string;
  readonly manifest: Uint8Array;
  readonly frames: Uint8Array;
}

export function smallImage(name: string, sizeBytes = 5000, salt = 1): SmallImage {
  const raw = Uint8Array.from({ length: sizeBytes }, (_, i) => (i * 31 + salt * 7 + (i >> 8)) & 0xff);
  const root = blake3(raw);
  const frames = Uint8Array.from(zstdCompressSync(raw));
  const manifest = encodeManifest({
    sizeBytes,
    sectorBytes: null,
    root,
    groups: root,
    frameBytes: Uint32Array.of(frames.length),
    name,
    importedFrom: "raw",
  });
  return { raw, root: hex(root), manifest, frames };
}
