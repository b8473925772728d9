import fc from "fast-check";
import { expect, test } from "vitest";
import { BedplateError } from "../../protocol/errors.ts";
import { decodeFrame, encodeFrame, scanFrame } from "../../protocol/frames.ts";
import { limits } from "../../protocol/limits.ts";

const codeOf = (work: () => unknown) => {
  try {
    work();
  } catch (error) {
    return error instanceof BedplateError ? error.code : error;
  }
  return "none";
};

test("integers keep 64 bits both ways", () => {
  for (const value of [0, 1, -1, 2 ** 32, -(2 ** 33), Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER]) {
    expect(decodeFrame(encodeFrame({ value }))).toEqual({ value });
  }
  for (const value of [2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n, -(2n ** 63n)])
    expect(decodeFrame(encodeFrame({ value }))).toEqual({ value });
});

test("a wide integer is an integer on the wire, not a float", () => {
  expect(Buffer.from(encodeFrame(2 ** 40)).toString("hex")).toBe("d30000010000000000");
});

test("plain values come back as they were", () => {
  const value = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 5 },
      fc.string(),
      fc.boolean(),
      fc.constant(null),
      fc.maxSafeInteger(),
      fc.uint8Array(),
      fc.array(tie("value"), { maxLength: 5 }),
      tie("map"),
    ),
    map: fc.dictionary(
      fc.string({ maxLength: 20 }).filter((key) => key !== "__proto__"),
      tie("value"),
      { maxKeys: 5 },
    ),
  }));
  const plain = (x: unknown): unknown =>
    x instanceof Uint8Array
      ? [...x]
      : Array.isArray(x)
        ? x.map(plain)
        : x !== null && typeof x === "object"
          ? Object.fromEntries(Object.entries(x).map(([k, v]) => [k, plain(v)]))
          : x;
  fc.assert(
    fc.property(value.map, (map) => {
      expect(plain(decodeFrame(encodeFrame(map)))).toEqual(plain(map));
    }),
    { numRuns: 300 },
  );
});

test("no bytes make the scan throw anything but a code, and what it passes is unpacked", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      const code = codeOf(() => scanFrame(bytes));
      expect(typeof code).toBe("string");
      if (code === "none") decodeFrame(bytes);
    }),
    { numRuns: 5000 },
  );
});

test("a mebibyte of nested arrays is refused without overflowing the stack", () => {
  expect(codeOf(() => decodeFrame(new Uint8Array(limits.frameBytesMax).fill(0x91)))).toBe("frame.too-deep");
});

test("a frame larger than its limit is not even scanned", () => {
  expect(codeOf(() => decodeFrame(new Uint8Array(limits.frameBytesMax + 1)))).toBe("frame.too-large");
  expect(codeOf(() => decodeFrame(new Uint8Array(100), 99))).toBe("frame.too-large");
});

test("a count that the bytes cannot hold is refused before anything is allocated", () => {
  const before = process.memoryUsage().arrayBuffers;
  for (const claim of ["dcffff", "ddffffffff", "deffff", "dfffffffff", "c6ffffffff", "dbffffffff"]) {
    expect(codeOf(() => decodeFrame(Buffer.from(claim, "hex")))).toMatch(/^frame\.(too-large|malformed)$/);
  }
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1 << 20);
});
