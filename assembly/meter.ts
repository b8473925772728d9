// The meter: parses /proc texts into a table of u64 series and encodes the table as readings, all in WebAssembly memory.
import { meterLayout } from "./layout.ts";
import { checkRange, guarded, instantiate, loadMeter } from "./load.ts";
import {
  deltasOffset,
  encodedOffset,
  histogramBuckets,
  histogramBytes,
  histogramCount,
  histogramsOffset,
  indexOffset,
  inputBytes,
  inputOffset,
  meterSeriesMax,
  numbersMax,
  numbersOffset,
  resetMaskBytes,
  resetMaskOffset,
  scanResultOffset,
  valuesOffset,
} from "./memory-map.ts";

export interface Scan {
  /** How many numbers stand at the start of {@link Meter.numbers}. */
  readonly count: number;
  /** 64-bit hash of all but the numbers' digits, signs and the separators' amount: the same shape, the same columns. */
  readonly shape: bigint;
  /** A number was beyond 64 bits and stands as the nearest that fits. */
  readonly saturated: boolean;
}

export interface Deltas {
  /** A view, valid until the next call: the increase of each series, 0 where it was reset. */
  readonly deltas: BigUint64Array<ArrayBuffer>;
  /** A view, valid until the next call: bit k, least significant first, says that series k fell and so was reset. */
  readonly resets: Uint8Array<ArrayBuffer>;
  readonly resetCount: number;
}

/** One WebAssembly instance with its private memory. Every method throws `kernel.bad-range` for what lies outside its tables. */
export interface Meter {
  /** Where texts are read to: a view of 256 KiB. */
  readonly input: Uint8Array<ArrayBuffer>;
  /** The numbers of the last scan: a view. */
  readonly numbers: BigUint64Array<ArrayBuffer>;
  /** The table of series: a view of 8192 values. */
  readonly values: BigUint64Array<ArrayBuffer>;
  /**
   * Parses the first `length` bytes of the input. Words end at space, tab, newline, ':', '=', '(', ')', ',' and '/'. A
   * word is a number when it is digits, perhaps with a leading minus (two's complement) and one dot between digits
   * ("0.52" is 52: fixed point).
   */
  scan(length: number): Scan;
  /** values[target + k] = numbers[indexes[k]]; each index must be below the last scan's count. */
  gather(target: number, indexes: Uint16Array | Uint32Array): void;
  /**
   * The first `seriesCount` values as readings (protocol/readings.ts decodes them): what changed since the last frame,
   * or with `key` all of them against zero. Fresh bytes, at most 10.2 a series.
   */
  encode(seriesCount: number, options: { readonly key: boolean }): Uint8Array<ArrayBuffer>;
  /** Increase of the first `seriesCount` values since the last call; the `first` one has nothing to compare with: all 0. */
  deltas(seriesCount: number, options: { readonly first: boolean }): Deltas;
  /**
   * Sixteen exponential histograms, each a view of 2050 counts: of zeroes, then bucket k ≥ 1 of values in
   * (2^((k-2)/32), 2^((k-1)/32)], which is index k - 2 at scale 5 of OTLP's exponential histogram. A count ends at
   * 2^32 - 1 and stays there. `fill(0)` empties one.
   */
  readonly histograms: readonly Uint32Array<ArrayBuffer>[];
  /** Counts `count` values of the table, from number `first`, in a histogram. */
  observe(histogram: number, first: number, count: number): void;
  /** Adds the counts of `source` to those of `target`: as if all had been observed there, in whatever order. */
  mergeHistogram(target: number, source: number): void;
}

/** The functions of kernels/meter.ts. */
interface MeterExports {
  scan(length: number): number;
  gather(target: number, count: number, numbers: number): void;
  encode(count: number, key: number): number;
  deltas(count: number, first: number): number;
  observe(histogram: number, first: number, count: number): void;
  mergeHistogram(target: number, source: number): void;
}

export async function createMeter(): Promise<Meter> {
  const { exports, memory } = instantiate<MeterExports>(loadMeter(), meterLayout);
  const shape = new BigUint64Array(memory, scanResultOffset, 1);
  const saturated = new Uint32Array(memory, scanResultOffset + 8, 1);
  const index = new Uint32Array(memory, indexOffset, meterSeriesMax);
  const deltas = new BigUint64Array(memory, deltasOffset, meterSeriesMax);
  const resets = new Uint8Array(memory, resetMaskOffset, resetMaskBytes);
  const checkSeries = (count: number) =>
    checkRange(count, { least: 0, most: meterSeriesMax, what: "the number of series" });
  const checkHistogram = (histogram: number) =>
    checkRange(histogram, { least: 0, most: histogramCount - 1, what: "the histogram" });
  let numberCount = 0;
  return {
    input: new Uint8Array(memory, inputOffset, inputBytes),
    numbers: new BigUint64Array(memory, numbersOffset, numbersMax),
    values: new BigUint64Array(memory, valuesOffset, meterSeriesMax),
    scan(length) {
      checkRange(length, { least: 0, most: inputBytes, what: "the length" });
      numberCount = 0;
      numberCount = guarded(() => exports.scan(length));
      return { count: numberCount, shape: shape[0]!, saturated: saturated[0] === 1 };
    },
    gather(target, indexes) {
      checkRange(target, { least: 0, most: meterSeriesMax, what: "the target" });
      checkSeries(target + indexes.length);
      for (const at of indexes) checkRange(at, { least: 0, most: numberCount - 1, what: "an index" });
      index.set(indexes);
      guarded(() => exports.gather(target, indexes.length, numberCount));
    },
    encode(seriesCount, { key }) {
      checkSeries(seriesCount);
      const length = guarded(() => exports.encode(seriesCount, Number(key)));
      return new Uint8Array(memory.slice(encodedOffset, encodedOffset + length));
    },
    deltas(seriesCount, { first }) {
      checkSeries(seriesCount);
      const resetCount = guarded(() => exports.deltas(seriesCount, Number(first)));
      return { deltas: deltas.subarray(0, seriesCount), resets, resetCount };
    },
    histograms: Array.from(
      { length: histogramCount },
      (_, k) => new Uint32Array(memory, histogramsOffset + k * histogramBytes, histogramBuckets),
    ),
    observe(histogram, first, count) {
      checkHistogram(histogram);
      checkRange(first, { least: 0, most: meterSeriesMax, what: "the first value" });
      checkRange(count, { least: 0, most: meterSeriesMax - first, what: "the number of values" });
      guarded(() => exports.observe(histogram, first, count));
    },
    mergeHistogram(target, source) {
      checkHistogram(target);
      checkHistogram(source);
      guarded(() => exports.mergeHistogram(target, source));
    },
  };
}
