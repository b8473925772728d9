import fc from "fast-check";
import { expect, test } from "vitest";
import { createMeter } from "../../assembly/index.ts";
import { meterLayout } from "../../assembly/layout.ts";
import { instantiate, loadMeter } from "../../assembly/load.ts";
import { histogramBuckets, histogramCount, meterSeriesMax } from "../../assembly/memory-map.ts";
import * as reference from "../../assembly/references/histogram.ts";

const most = 2n ** 64n - 1n;
const badRange = expect.objectContaining({ code: "kernel.bad-range" });
const meter = await createMeter();

/** The counts of histogram `k` after these values alone. */
function observed(k: number, values: readonly bigint[]): number[] {
  meter.histograms[k]!.fill(0);
  meter.values.set(values);
  meter.observe(k, 0, values.length);
  return [...meter.histograms[k]!];
}

/** The one bucket that a value is counted in. */
function bucketOf(value: bigint): number {
  const counts = observed(0, [value]);
  expect(counts.reduce((sum, count) => sum + count)).toBe(1);
  return counts.indexOf(1);
}

const empty = new Array<number>(histogramBuckets).fill(0);
/** Spread over all octaves, and the values beside each. */
const value = fc.oneof(
  fc.constantFrom(0n, 1n, 2n, 3n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, most - 1n, most),
  fc
    .tuple(fc.nat({ max: 63 }), fc.bigInt({ min: 0n, max: most }))
    .map(([bits, raw]) => raw >> BigInt(63 - bits)),
  fc
    .tuple(fc.nat({ max: 63 }), fc.constantFrom(-1n, 0n, 1n))
    .map(([bits, off]) => (1n << BigInt(bits)) + off),
);
const values = fc.array(value, { maxLength: 60 });

test("powers of two end their bucket, and what follows begins the next", () => {
  expect(bucketOf(0n)).toBe(0);
  for (let octave = 0n; octave < 64n; octave++) {
    const power = 1n << octave;
    expect(bucketOf(power), `2^${octave}`).toBe(32 * Number(octave) + 1);
    if (octave > 0n) expect(bucketOf(power + 1n)).toBeGreaterThan(bucketOf(power));
    if (octave > 5n) expect(bucketOf(power + 1n)).toBe(bucketOf(power) + 1);
  }
  expect(bucketOf(most)).toBe(histogramBuckets - 1);
});

test("each bound of the top octaves separates two neighbours exactly", () => {
  for (const octave of [53n, 62n, 63n]) {
    for (let k = 1n; k < 32n; k++) {
      // The largest integer not above 2^(octave + k/32), by the reference.
      let [low, high] = [1n << octave, (2n << octave) - 1n];
      const target = Number(32n * octave + k) + 1;
      while (low < high) {
        const middle = (low + high + 1n) >> 1n;
        if (reference.bucketOf(middle) <= target) low = middle;
        else high = middle - 1n;
      }
      expect([bucketOf(low), bucketOf(low + 1n)]).toEqual([target, target + 1]);
    }
  }
});

test("agrees with the reference on any values", () => {
  fc.assert(
    fc.property(values, (some) => {
      expect(observed(1, some)).toEqual(reference.observe(empty, some));
    }),
    { numRuns: 1000, seed: 3 },
  );
});

test("merging in any order is as if all had been observed in one", () => {
  fc.assert(
    fc.property(values, values, values, (a, b, c) => {
      const all = observed(0, [...a, ...b, ...c]);
      observed(1, a);
      observed(2, b);
      observed(3, c);
      meter.mergeHistogram(2, 3);
      meter.mergeHistogram(2, 1);
      expect([...meter.histograms[2]!]).toEqual(all);
      expect([...meter.histograms[3]!]).toEqual(reference.observe(empty, c));
    }),
    { numRuns: 200, seed: 4 },
  );
});

test("a full count stays full, observed or merged", () => {
  const [full, other] = [meter.histograms[4]!, meter.histograms[5]!];
  full.fill(2 ** 32 - 2);
  other.fill(3);
  meter.values.fill(7n, 0, 3);
  meter.observe(4, 0, 3);
  const expected = reference.observe(new Array(histogramBuckets).fill(2 ** 32 - 2), [7n, 7n, 7n]);
  expect([...full]).toEqual(expected);
  meter.mergeHistogram(4, 5);
  expect([...full]).toEqual(reference.merge(expected, new Array(histogramBuckets).fill(3)));
});

test("counts a stretch of the table, in one histogram only", () => {
  for (const histogram of meter.histograms) histogram.fill(0);
  meter.values.fill(1n);
  meter.values[meterSeriesMax - 1] = 2n;
  meter.observe(histogramCount - 1, meterSeriesMax - 2, 2);
  meter.observe(histogramCount - 1, meterSeriesMax, 0);
  expect([...meter.histograms.at(-1)!]).toEqual(reference.observe(empty, [1n, 2n]));
  for (const histogram of meter.histograms.slice(0, -1)) expect([...histogram]).toEqual(empty);
});

test("refuses histograms and values that do not exist, on both sides of the call", () => {
  const { exports } = instantiate<Record<string, (...args: number[]) => void>>(loadMeter(), meterLayout);
  for (const histogram of [-1, histogramCount, 2 ** 31, 2 ** 32 - 1]) {
    expect(() => meter.observe(histogram, 0, 1)).toThrow(badRange);
    expect(() => meter.mergeHistogram(0, histogram)).toThrow(badRange);
    expect(() => meter.mergeHistogram(histogram, 0)).toThrow(badRange);
    expect(() => exports.observe!(histogram, 0, 1)).toThrow(WebAssembly.RuntimeError);
    expect(() => exports.mergeHistogram!(0, histogram)).toThrow(WebAssembly.RuntimeError);
    expect(() => exports.mergeHistogram!(histogram, 0)).toThrow(WebAssembly.RuntimeError);
  }
  for (const [first, count] of [
    [meterSeriesMax, 1],
    [0, meterSeriesMax + 1],
    [-1, 1],
    [-1, 2],
    [1, -1],
    [2 ** 32 - 1, 2],
  ] as const) {
    expect(() => meter.observe(0, first, count), `${first}, ${count}`).toThrow(badRange);
    expect(() => exports.observe!(0, first, count), `${first}, ${count}`).toThrow(WebAssembly.RuntimeError);
  }
  for (const odd of [0.5, Number.NaN]) {
    expect(() => meter.observe(odd, 0, 1)).toThrow(badRange);
    expect(() => meter.observe(0, odd, 1)).toThrow(badRange);
    expect(() => meter.observe(0, 0, odd)).toThrow(badRange);
  }
});
