// The meter's kernels over strings and BigInts, for comparison with kernels/meter.ts.
const modulus = 1n << 64n;
const most = modulus - 1n;
const leastMagnitude = 1n << 63n;

export interface ReferenceScan {
  readonly numbers: bigint[];
  readonly shape: bigint;
  readonly saturated: boolean;
}

/** Splits at separators, keeping newlines; see kernels/meter.ts for what is a number and what makes the shape. */
export function scan(input: Uint8Array): ReferenceScan {
  const numbers: bigint[] = [];
  let shape = 0xcbf29ce484222325n;
  let saturated = false;
  const mix = (event: number) => {
    shape = ((shape ^ BigInt(event)) * 0x100000001b3n) % modulus;
  };
  const text = Buffer.from(input).toString("latin1");
  for (const [word] of text.matchAll(/\n|[^\t\n ()/:,=]+/g)) {
    const number = /^(-?)(\d+)(?:\.(\d+))?$/.exec(word);
    if (word === "\n") mix(257);
    else if (number) {
      const [, sign, whole, decimals = ""] = number;
      const magnitude = BigInt(`${whole}${decimals}`);
      const bound = sign === "-" ? leastMagnitude : most;
      saturated ||= magnitude > bound;
      const bounded = magnitude > bound ? bound : magnitude;
      numbers.push(BigInt.asUintN(64, sign === "-" ? -bounded : bounded));
      mix(258 + decimals.length);
    } else {
      for (const byte of Buffer.from(word, "latin1")) mix(byte);
      mix(256);
    }
  }
  return { numbers, shape, saturated };
}

/** Readings of `values` against `previous` (zeroes for a key frame). */
export function encode(previous: readonly bigint[], values: readonly bigint[]): Uint8Array<ArrayBuffer> {
  const bitmap = new Array<number>(Math.ceil(values.length / 8)).fill(0);
  const varints: number[] = [];
  for (const [k, value] of values.entries()) {
    const difference = BigInt.asIntN(64, value - previous[k]!);
    if (difference === 0n) continue;
    bitmap[k >> 3]! |= 1 << (k & 7);
    let zigzag = difference < 0n ? -2n * difference - 1n : 2n * difference;
    for (; zigzag >= 128n; zigzag /= 128n) varints.push(Number(zigzag % 128n) + 128);
    varints.push(Number(zigzag));
  }
  return Uint8Array.from([...bitmap, ...varints]);
}

/** Increase of each counter, and the numbers of those that fell. */
export function deltas(
  previous: readonly bigint[],
  values: readonly bigint[],
): { deltas: bigint[]; resets: number[] } {
  const resets = [...values.keys()].filter((k) => values[k]! < previous[k]!);
  return { deltas: values.map((value, k) => (value < previous[k]! ? 0n : value - previous[k]!)), resets };
}
