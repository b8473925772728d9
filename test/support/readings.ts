// The plain encoder of readings, the other side of protocol/readings.ts, for tests.

/** Bitmap of the series that changed, then the zigzag varint of each difference; a key frame is told against zeroes. */
export function encodeReadings(
  values: readonly bigint[],
  before: readonly bigint[] = values.map(() => 0n),
): Uint8Array {
  const bytes: number[] = new Array<number>(Math.ceil(values.length / 8)).fill(0);
  values.forEach((value, k) => {
    const difference = BigInt.asIntN(64, value - before[k]!);
    if (difference === 0n) return;
    bytes[k >> 3]! |= 1 << (k & 7);
    let zigzag = BigInt.asUintN(64, (difference << 1n) ^ (difference >> 63n));
    while (zigzag >= 0x80n) {
      bytes.push(Number(zigzag & 0x7fn) | 0x80);
      zigzag >>= 7n;
    }
    bytes.push(Number(zigzag));
  });
  return Uint8Array.from(bytes);
}
