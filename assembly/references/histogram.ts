// Exponential histograms of scale 5 by BigInt, for comparison with kernels/histogram.ts.

const most = 2 ** 32 - 1;

/** The bucket of a u64: 0 for zero, else k + 1 where 2^((k-1)/32) < value <= 2^(k/32). */
export function bucketOf(value: bigint): number {
  if (value === 0n) return 0;
  // value <= 2^(k/32) is value^32 <= 2^k: the least such k is the bit length of value^32 - 1.
  const below = value ** 32n - 1n;
  return (below === 0n ? 0 : below.toString(2).length) + 1;
}

/** Counts end at 2^32 - 1. */
export function observe(counts: readonly number[], values: readonly bigint[]): number[] {
  const sums = [...counts];
  for (const value of values) {
    const bucket = bucketOf(value);
    sums[bucket] = Math.min(sums[bucket]! + 1, most);
  }
  return sums;
}

export function merge(target: readonly number[], source: readonly number[]): number[] {
  return target.map((count, bucket) => Math.min(count + source[bucket]!, most));
}
