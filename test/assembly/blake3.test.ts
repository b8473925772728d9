import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { groupBytes } from "../../assembly/index.ts";
import * as reference from "../../assembly/references/blake3.ts";
import { mergeGroups } from "../../assembly/tree.ts";
import { blake3Vectors } from "./blake3-vectors.ts";
import { hex, implementations, kernels, randomBytes } from "./implementations.ts";

const anchor = implementations.find(({ name }) => name === "hash-wasm")!;
const bytes8KiB = randomBytes(8192, 1);

describe.each(implementations)("$name", ({ hash, bytesMax }) => {
  test.each(blake3Vectors)("hashes the published vector of %i bytes", (length, expected) => {
    expect(hex(hash(Uint8Array.from({ length }, (_, k) => k % 251)))).toBe(expected);
  });

  test("agrees with hash-wasm at every length from 0 to 8 KiB", () => {
    for (let length = 0; length <= 8192; length++) {
      const input = bytes8KiB.subarray(0, length);
      if (hex(hash(input)) !== hex(anchor.hash(input))) expect.fail(`differs at ${length} bytes`);
    }
  });

  test("agrees with hash-wasm around the edges of groups and at random lengths", () => {
    const edges = [1, 2, 3, 4, 5].flatMap((groups) =>
      [-1025, -1, 0, 1, 1025].map((off) => groups * groupBytes + off),
    );
    const random = [...randomBytes(4, 7)].map((byte, k) => (byte + 1) * 2 ** (10 + 2 * k) + byte);
    const lengths = [...edges, ...random, 64 * 2 ** 20 - 4097].filter((length) => length <= bytesMax);
    expect(lengths.length).toBeGreaterThan(5);
    for (const length of lengths) {
      const input = randomBytes(length, length);
      if (hex(hash(input)) !== hex(anchor.hash(input))) expect.fail(`differs at ${length} bytes`);
    }
  }, 60_000);
});

describe.each(kernels)("$name", ({ chainingValue, merge, stream, compiled, hash }) => {
  test("agrees with hash-wasm at every length from 8 to 16 KiB", () => {
    const input = randomBytes(16384, 2);
    for (let length = 8192; length <= 16384; length++) {
      const bytes = input.subarray(0, length);
      if (hex(hash(bytes)) !== hex(anchor.hash(bytes))) expect.fail(`differs at ${length} bytes`);
    }
  });

  test("gives the reference's chaining values for groups anywhere, also past 2^32 chunks", () => {
    for (const [index, length] of [1, 63, 64, 1024, 1025, 4096, 4097, 70_000, groupBytes].entries()) {
      for (const group of [0, 1, 7, 2 ** 22 - 1, 2 ** 22, 2 ** 22 + 1, 2 ** 32, 2 ** 43 - 1]) {
        if (length === groupBytes && group % 7 !== 0) continue;
        const input = randomBytes(length, 100 + index);
        const expected = reference.chainingValue(input, BigInt(group) * 1024n, false);
        expect(hex(chainingValue(input, group, false)), `${length} bytes as group ${group}`).toBe(
          hex(expected),
        );
      }
    }
  });

  test("carries the chunk counter within four lanes", () => {
    // Groups are aligned, so only the kernel's own entry can meet this; it must not depend on that.
    const { exports } = new WebAssembly.Instance(compiled.module);
    const { chainingValue: raw, memory, windowsOffset, digestOffset } = exports as unknown as RawExports;
    const input = randomBytes(9000, 3);
    new Uint8Array(memory.buffer).set(input, windowsOffset.value);
    for (let back = 0n; back < 9n; back++) {
      const counter = 2n ** 32n - back;
      raw(windowsOffset.value, input.length, counter, 0);
      const found = new Uint8Array(memory.buffer, digestOffset.value, 32);
      expect(hex(found), `counter ${counter}`).toBe(hex(reference.chainingValue(input, counter, false)));
    }
  });

  test("hashes from any address, of any length, with any counter", () => {
    const { exports } = new WebAssembly.Instance(compiled.module);
    const { chainingValue: raw, memory, windowsOffset, digestOffset } = exports as unknown as RawExports;
    const window = new Uint8Array(memory.buffer, windowsOffset.value, 4 * groupBytes);
    window.set(randomBytes(window.length, 9));
    const choices = new Uint32Array(randomBytes(12 * 150, 10).buffer);
    for (let k = 0; k < choices.length; k += 3) {
      const offset = choices[k]! % (3 * groupBytes);
      const length = 1 + (choices[k + 1]! % 20_000);
      const counter = (BigInt(choices[k + 2]!) << 21n) | BigInt(offset);
      raw(windowsOffset.value + offset, length, counter, 0);
      const found = hex(new Uint8Array(memory.buffer, digestOffset.value, 32));
      const expected = hex(reference.chainingValue(window.subarray(offset, offset + length), counter, false));
      if (found !== expected) expect.fail(`differs for ${length} bytes at ${offset}, chunk ${counter}`);
    }
  });

  test("merges any number of digests like the reference", () => {
    for (const count of [
      ...Array.from({ length: 70 }, (_, k) => k + 1),
      1000,
      1023,
      1025,
      32768,
      32769,
      65537,
    ]) {
      const digests = randomBytes(32 * count, count);
      const before = hex(digests.subarray(0, 64));
      expect(hex(merge(digests, count)), `${count} digests`).toBe(hex(reference.merge(digests, true)));
      expect(hex(digests.subarray(0, 64))).toBe(before);
    }
  });

  test("hashes streams in whatever pieces they come", () => {
    for (const [length, piece] of [
      [0, 1],
      [1, 1],
      [5000, 7],
      [groupBytes, 4096],
      [groupBytes + 1, 99_991],
      [3 * groupBytes, groupBytes],
      [9 * groupBytes + 5, 333_333],
      [13 * groupBytes, 5 * groupBytes],
    ] as const) {
      const input = randomBytes(length, length + piece);
      const hasher = stream();
      for (let at = 0; at < length; at += piece) hasher.update(input.subarray(at, at + piece));
      expect(hex(hasher.digest()), `${length} bytes by ${piece}`).toBe(hex(anchor.hash(input)));
      expect(() => hasher.update(input)).toThrow(expect.objectContaining({ code: "kernel.bad-range" }));
      expect(() => hasher.digest()).toThrow(expect.objectContaining({ code: "kernel.bad-range" }));
    }
  });
});

test("mergeGroups gives the root, and the only digest as it is", () => {
  const digests = randomBytes(32 * 5, 5);
  expect(hex(mergeGroups(digests, 5))).toBe(hex(reference.merge(digests, true)));
  expect(hex(mergeGroups(digests.subarray(0, 32), 1))).toBe(hex(digests.subarray(0, 32)));
  for (const count of [0, -1, 4, 6, 1.5, Number.NaN]) {
    expect(() => mergeGroups(digests, count)).toThrow(expect.objectContaining({ code: "kernel.bad-range" }));
  }
});

const b3sum = spawnSync("b3sum", ["--version"]);

test.skipIf(b3sum.status !== 0)("agrees with b3sum at random lengths", () => {
  const lengths = [...new Uint32Array(randomBytes(4 * 8, 12).buffer)].map(
    (word) => word >>> ((word & 15) % 13),
  );
  for (const length of [0, 1, ...lengths.map((word) => word % (5 * groupBytes))]) {
    const input = randomBytes(length, length + 1);
    const { stdout } = spawnSync("b3sum", ["--no-names"], { input });
    for (const { name, hash } of kernels)
      expect(hex(hash(input)), `${name}, ${length} bytes`).toBe(stdout.toString().trim());
  }
});

interface RawExports {
  chainingValue(input: number, length: number, counter: bigint, root: number): void;
  memory: WebAssembly.Memory;
  windowsOffset: WebAssembly.Global;
  digestOffset: WebAssembly.Global;
}
