// Exponential histograms of scale 5 over u64: 32 buckets an octave, each a u32 count, found by bits and one comparison.
import { histogramBuckets, histogramBytes, histogramCount, histogramsOffset, meterSeriesMax, valuesOffset } from "../memory-map";
import { bounds, boundsBelow } from "./generated/histogram-bounds";

/**
 * Counts `count` values of the table from number `first`. Bucket 0 is for zeroes; a value in (2^((k-1)/32), 2^(k/32)] goes
 * to bucket k + 1 (upper bounds included, as in OTLP). A count ends at 2^32 - 1, so that merging stays exact in any order.
 */
export function observe(histogram: u32, first: u32, count: u32): void {
  if (histogram >= <u32>histogramCount || count > <u32>meterSeriesMax || first > <u32>meterSeriesMax - count) unreachable();
  const buckets = <usize>histogramsOffset + histogram * histogramBytes;
  for (let k = first, end = first + count; k < end; k++) {
    const value = load<u64>(valuesOffset + k * 8);
    let bucket: u32 = 0;
    if (value) {
      const zeroes = clz<u64>(value);
      // The leading one at bit 63; the six bits behind it name a stretch that holds at most one bound.
      const mantissa = value << zeroes;
      const below = <u32>load<u8>(boundsBelow + <usize>((mantissa >> 57) & 63));
      bucket = <u32>((63 - zeroes) << 5) + below + <u32>(mantissa > load<u64>(bounds + below * 8)) + 1;
    }
    const at = buckets + bucket * 4;
    const sum = load<u32>(at) + 1;
    if (sum) store<u32>(at, sum);
  }
}

/** Adds the counts of histogram `source` to those of `target`. */
export function mergeHistogram(target: u32, source: u32): void {
  if (target >= <u32>histogramCount || source >= <u32>histogramCount) unreachable();
  const to = <usize>histogramsOffset + target * histogramBytes, from = <usize>histogramsOffset + source * histogramBytes;
  for (let at: usize = 0; at < <usize>(histogramBuckets * 4); at += 4) {
    store<u32>(to + at, <u32>min<u64>(<u64>load<u32>(to + at) + load<u32>(from + at), u32.MAX_VALUE));
  }
}
