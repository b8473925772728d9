import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeReadings, readingValue } from "../../protocol/readings.ts";

// A second implementation of the encoding, in big integers, to decode against.
function encode(values: readonly bigint[], previous: readonly bigint[]): Uint8Array {
  const bitmap = new Uint8Array(Math.ceil(values.length / 8));
  const bytes: number[] = [];
  values.forEach((value, k) => {
    const difference = BigInt.asIntN(64, value - previous[k]!);
    if (difference === 0n) return;
    bitmap[k >> 3]! |= 1 << (k & 7);
    let zigzag = BigInt.asUintN(64, (difference << 1n) ^ (difference >> 63n));
    while (zigzag >= 128n) {
      bytes.push(Number(zigzag & 127n) | 128);
      zigzag >>= 7n;
    }
    bytes.push(Number(zigzag));
  });
  return Uint8Array.from([...bitmap, ...bytes]);
}

const u64 = fc.oneof(
  fc.bigInt(0n, 2n ** 64n - 1n),
  fc.bigInt(0n, 300n),
  fc.constantFrom(2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n),
);

test("any values decode, as key frame and as difference", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(u64, u64), { maxLength: 40 }), (pairs) => {
      const previous = pairs.map(([a]) => a);
      const next = pairs.map(([, b]) => b);
      const values = new BigUint64Array(pairs.length).fill(7n);
      decodeReadings(
        encode(
          previous,
          previous.map(() => 0n),
        ),
        values,
        { key: true },
      );
      expect([...values]).toEqual(previous);
      decodeReadings(encode(next, previous), values, { key: false });
      expect([...values]).toEqual(next);
    }),
  );
});

test("garbage is refused with a code, never read past its end", () => {
  const table = new BigUint64Array(9);
  for (const data of [
    "",
    "01",
    "0100",
    "010080",
    "0000ff",
    "0002ff",
    "000301",
    "0100ffffffffffffffffffff01",
    "0100ffffffffffffffffff02",
  ]) {
    expect(() => decodeReadings(Buffer.from(data, "hex"), table, { key: false }), data).toThrow(
      expect.objectContaining({ code: "message.invalid" }),
    );
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (data) => {
      try {
        decodeReadings(data, new BigUint64Array(9), { key: true });
      } catch (error) {
        expect(error).toHaveProperty("code", "message.invalid");
      }
    }),
  );
});

test("values are scaled to their unit without a rounding tail", () => {
  expect(readingValue(7n, { scale: 0.01 })).toBe(0.07);
  expect(readingValue(3n, { scale: 1024 })).toBe(3072);
  expect(readingValue(2n ** 64n - 1n, { scale: 1, signed: true })).toBe(-1);
  expect(readingValue(123456789n, { scale: 1e-6 })).toBe(123.456789);
});
