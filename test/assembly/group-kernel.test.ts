import { describe, expect, test } from "vitest";
import { groupBytes, zeroBlockBytes } from "../../assembly/index.ts";
import { blake3Layout } from "../../assembly/layout.ts";
import { instantiate } from "../../assembly/load.ts";
import { windowsEnd, windowsOffset, zeroesOffset } from "../../assembly/memory-map.ts";
import * as reference from "../../assembly/references/blake3.ts";
import * as compare from "../../assembly/references/compare.ts";
import { hex, kernels, randomBytes } from "./implementations.ts";

const badRange = expect.objectContaining({ code: "kernel.bad-range" });
const lengths = [0, 1, 7, 8, 63, 64, 65, 4095, 4096, 4097, 12_289, 100_000, groupBytes - 1, groupBytes];

describe.each(kernels)("$name", ({ kernel, compiled }) => {
  test("windows are aligned for O_DIRECT and lie apart", () => {
    expect(kernel.windows.length).toBeGreaterThanOrEqual(3);
    for (const [k, window] of [...kernel.windows, kernel.zeroes].entries()) {
      expect(window.length).toBe(groupBytes);
      expect(window.byteOffset % 4096).toBe(0);
      expect(window.byteOffset).toBe(windowsOffset + k * groupBytes);
    }
    expect(compare.isZero(kernel.zeroes)).toBe(true);
  });

  test("finds a single other byte wherever it is", () => {
    const [window] = kernel.windows as [Uint8Array];
    for (const length of lengths) {
      window.fill(0);
      if (length < groupBytes) window[length] = 1;
      expect(kernel.isZero(0, length), `${length} zeroes`).toBe(true);
      for (const at of [0, 1, 8, 63, 64, length >> 1, length - 2, length - 1]) {
        if (at < 0 || at >= length) continue;
        window[at] = 128;
        expect(kernel.isZero(0, length), `byte ${at} of ${length}`).toBe(false);
        window[at] = 0;
      }
    }
  });

  test("compares windows", () => {
    const [a, b] = kernel.windows as [Uint8Array, Uint8Array];
    for (const length of lengths) {
      a.set(randomBytes(groupBytes, length));
      b.set(a);
      if (length < groupBytes) b[length]! ^= 1;
      expect(kernel.equal(0, 1, length)).toBe(true);
      expect(kernel.equal(1, 0, length)).toBe(true);
      for (const at of [0, 1, 8, 63, 64, length >> 1, length - 1]) {
        if (at < 0 || at >= length) continue;
        b[at]! ^= 64;
        expect(kernel.equal(0, 1, length), `byte ${at} of ${length}`).toBe(false);
        b[at]! ^= 64;
      }
    }
  });

  test("the group pass gives digest and zero map of mixed, zero and short groups", () => {
    const window = kernel.windows[2]!;
    for (const [seed, length] of [0, 1, 4096, 4097, 70_000, groupBytes - 5, groupBytes].entries()) {
      const root = length === 0;
      for (const zeroEvery of [1, 2, 3, 17, 1000]) {
        const input = randomBytes(length, seed);
        for (let block = 0; block * zeroBlockBytes < length; block++) {
          if (block % zeroEvery === 0) input.fill(0, block * zeroBlockBytes, (block + 1) * zeroBlockBytes);
        }
        window.fill(255).set(input);
        const pass = kernel.groupPass(2, length, root ? 0 : 3, { root });
        expect(hex(pass.zeroBlocks)).toBe(hex(compare.zeroBlocks(input)));
        expect(pass.zero).toBe(compare.isZero(input));
        if (length <= 70_000) {
          expect(hex(pass.digest)).toBe(hex(reference.chainingValue(input, root ? 0n : 3072n, root)));
        } else {
          expect(hex(pass.digest)).toBe(hex(kernel.chainingValue(2, length, 3)));
        }
      }
    }
  });

  test("the group pass says whether the digest is the expected one", () => {
    const window = kernel.windows[1]!;
    for (const length of [1, 5000, groupBytes]) {
      window.set(randomBytes(length, length));
      const { digest, matches } = kernel.groupPass(1, length, 5);
      expect(matches).toBe(undefined);
      expect(kernel.groupPass(1, length, 5, { expected: digest }).matches).toBe(true);
      for (let at = 0; at < 32; at++) {
        const other = digest.slice();
        other[at]! ^= 1 << (at & 7);
        const pass = kernel.groupPass(1, length, 5, { expected: other });
        expect([pass.matches, hex(pass.digest)], `byte ${at}`).toEqual([false, hex(digest)]);
      }
      expect(kernel.groupPass(1, length, 6, { expected: digest }).matches).toBe(false);
    }
    const zeroes = kernel.windows[3]!.fill(0).subarray(0, 4096);
    const expected = reference.chainingValue(zeroes, 0n, true);
    expect(kernel.groupPass(3, 4096, 0, { root: true, expected })).toMatchObject({
      matches: true,
      zero: true,
    });
    for (const bytes of [0, 31, 33])
      expect(() => kernel.groupPass(0, 1, 0, { expected: new Uint8Array(bytes) })).toThrow(badRange);
  });

  test("digests are fresh bytes", () => {
    const first = kernel.chainingValue(0, 10, 1);
    const kept = hex(first);
    kernel.chainingValue(0, 11, 1);
    expect(hex(first)).toBe(kept);
  });

  test("refuses windows, lengths and groups that do not exist", () => {
    for (const window of [-1, 4, 0.5, Number.NaN, 2 ** 32, Number.POSITIVE_INFINITY]) {
      expect(() => kernel.chainingValue(window, 1, 0)).toThrow(badRange);
      expect(() => kernel.groupPass(window, 1, 0)).toThrow(badRange);
      expect(() => kernel.isZero(window, 1)).toThrow(badRange);
      expect(() => kernel.equal(0, window, 1)).toThrow(badRange);
    }
    for (const length of [-1, groupBytes + 1, 2 ** 32, 2 ** 32 + 1, Number.NaN, 1.5]) {
      expect(() => kernel.chainingValue(0, length, 0)).toThrow(badRange);
      expect(() => kernel.groupPass(0, length, 0)).toThrow(badRange);
      expect(() => kernel.isZero(0, length)).toThrow(badRange);
      expect(() => kernel.equal(0, 1, length)).toThrow(badRange);
    }
    expect(() => kernel.chainingValue(0, 0, 0)).toThrow(badRange);
    expect(() => kernel.chainingValue(0, 1, 1, { root: true })).toThrow(badRange);
    for (const group of [-1, 0.5, 2 ** 43, Number.NaN])
      expect(() => kernel.chainingValue(0, 1, group)).toThrow(badRange);
  });

  test("traps on hostile addresses at each kernel's entry, and works on", () => {
    const { exports } = instantiate<Record<string, (...args: (number | bigint)[]) => number>>(
      compiled.module,
      blake3Layout,
    );
    const top = zeroesOffset + groupBytes;
    const bad: [number, number][] = [
      [0, 1],
      [windowsOffset - 1, 1],
      [windowsOffset, groupBytes + 1],
      [windowsOffset, -1],
      [top, 1],
      [top - 10, 11],
      [-1, 2],
      [-64, 64],
      [0xffffffff, 1],
      [0x7fffffff, 0x7fffffff],
      [windowsOffset, 0xffffffff],
    ];
    for (const [address, length] of bad) {
      const what = `${address} + ${length}`;
      expect(() => exports.chainingValue!(address, length, 0n, 0), what).toThrow(WebAssembly.RuntimeError);
      expect(() => exports.groupPass!(address, length, 0n, 0), what).toThrow(WebAssembly.RuntimeError);
      expect(() => exports.isZero!(address, length), what).toThrow(WebAssembly.RuntimeError);
      expect(() => exports.equal!(address, windowsOffset, length), what).toThrow(WebAssembly.RuntimeError);
      expect(() => exports.equal!(windowsOffset, address, length), what).toThrow(WebAssembly.RuntimeError);
    }
    for (const [values, count] of [
      [0, 1],
      [windowsOffset, 0],
      [windowsOffset, -1],
      [windowsOffset, 32_769],
      [zeroesOffset, 1],
      [windowsEnd - 32, 2],
      [-32, 1],
    ] as const) {
      expect(() => exports.merge!(values, count, 1), `${values}, ${count}`).toThrow(WebAssembly.RuntimeError);
    }
    for (const index of [2n ** 54n - 1n, -1n]) {
      expect(() => exports.streamPush!(index)).toThrow(WebAssembly.RuntimeError);
      expect(() => exports.streamFinish!(index)).toThrow(WebAssembly.RuntimeError);
    }
    expect(() => exports.streamFinish!(0n)).toThrow(WebAssembly.RuntimeError);
    expect(exports.isZero!(top - 10, 10)).toBe(1);
    expect(exports.isZero!(top, 0)).toBe(1);
  });
});
