// Every implementation of BLAKE3 that must agree: our reference, the kernel variants, and two foreign ones.
import { blake3 as nobleBlake3 } from "@noble/hashes/blake3.js";
import { createBLAKE3 } from "hash-wasm";
import { groupKernelOf } from "../../assembly/group-kernel.ts";
import { loadBlake3, variants } from "../../assembly/load.ts";
import { groupBytes } from "../../assembly/memory-map.ts";
import * as reference from "../../assembly/references/blake3.ts";
import { mergeOf, streamHasherOf } from "../../assembly/tree.ts";

export interface Implementation {
  readonly name: string;
  /** The whole hash, by whatever way suits the length: one group, or groups merged. */
  hash(input: Uint8Array): Uint8Array;
  /** Longest input that takes it about a second. */
  readonly bytesMax: number;
}

/** A kernel variant as group kernel, merge and stream hasher. */
export const kernels = variants.map((variant) => {
  const compiled = loadBlake3(variant);
  const kernel = groupKernelOf(compiled);
  const merge = mergeOf(compiled);
  const chainingValue = (input: Uint8Array, group: number, root: boolean) => {
    kernel.windows[1]!.set(input);
    return kernel.chainingValue(1, input.length, group, { root });
  };
  const hash = (input: Uint8Array) => {
    const groups = Math.max(1, Math.ceil(input.length / groupBytes));
    if (groups === 1) return chainingValue(input, 0, true);
    const digests = new Uint8Array(32 * groups);
    for (let group = 0; group < groups; group++) {
      const bytes = input.subarray(group * groupBytes, (group + 1) * groupBytes);
      digests.set(chainingValue(bytes, group, false), 32 * group);
    }
    return merge(digests, groups);
  };
  return {
    name: `kernel ${variant}`,
    variant,
    compiled,
    kernel,
    merge,
    chainingValue,
    hash,
    stream: () => streamHasherOf(compiled),
  };
});

const hashWasm = await createBLAKE3();

export const implementations: readonly Implementation[] = [
  { name: "reference", hash: (input) => reference.chainingValue(input, 0n, true), bytesMax: 2 << 20 },
  ...kernels.map(({ name, hash }) => ({ name, hash, bytesMax: 64 << 20 })),
  { name: "hash-wasm", hash: (input) => hashWasm.init().update(input).digest("binary"), bytesMax: 64 << 20 },
  { name: "@noble/hashes", hash: (input) => nobleBlake3(input), bytesMax: 4 << 20 },
];

export const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

/** Reproducible bytes (xorshift32), none of them the same for another seed. */
export function randomBytes(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = (seed * 2654435761 + 1) | 0 || 1;
  for (let k = 0; k < words.length; k++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[k] = state;
  }
  return new Uint8Array(words.buffer, 0, length);
}
