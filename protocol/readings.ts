// Readings on the wire: a bitmap of the series that changed, then one zigzag varint of the difference for each.
import { BedplateError } from "./errors.ts";

/**
 * Applies one frame to `values` in place. Bit k (least significant first) of the bitmap, ceil(count/8) bytes, says that
 * series k changed; its varint (LEB128) is the zigzag form of the difference, modulo 2^64. A key frame starts from zero.
 * @throws `message.invalid` when the frame is short, long, or claims series beyond `count`; `values` is then unusable
 */
export function decodeReadings(data: Uint8Array, values: BigUint64Array, options: { key: boolean }): void {
  const count = values.length;
  const bitmapBytes = Math.ceil(count / 8);
  if (data.length < bitmapBytes)
    invalid(`it has ${data.length} bytes, its bitmap alone needs ${bitmapBytes}`);
  if (options.key) values.fill(0n);
  let at = bitmapBytes;
  for (let k = 0; k < bitmapBytes * 8; k++) {
    if ((data[k >> 3]! & (1 << (k & 7))) === 0) continue;
    if (k >= count) invalid(`its bitmap marks series ${k} of ${count}`);
    // Small differences, nearly all of them, stay in plain numbers.
    let low = 0;
    let scale = 1;
    let byte = data[at++] ?? invalid("it ends within a difference");
    while (byte >= 0x80 && scale < 2 ** 42) {
      low += (byte & 0x7f) * scale;
      scale *= 128;
      byte = data[at++] ?? invalid("it ends within a difference");
    }
    let zigzag: bigint;
    if (byte < 0x80) {
      zigzag = BigInt(low + byte * scale);
    } else {
      zigzag = BigInt(low);
      let shift = BigInt(Math.log2(scale));
      for (;;) {
        if (shift > 63n) invalid("a difference has more than 64 bits");
        zigzag |= BigInt(byte & 0x7f) << shift;
        if (byte < 0x80) break;
        shift += 7n;
        byte = data[at++] ?? invalid("it ends within a difference");
      }
      if (zigzag >> 64n !== 0n) invalid("a difference has more than 64 bits");
    }
    const difference = (zigzag & 1n) === 1n ? -((zigzag + 1n) >> 1n) : zigzag >> 1n;
    values[k] = values[k]! + difference;
  }
  if (at !== data.length) invalid(`${data.length - at} bytes follow its last difference`);
}

function invalid(what: string): never {
  throw new BedplateError("message.invalid", `The batch of readings is not valid: ${what}.`);
}

/** A series' integer in its unit. Beyond 2^53 the nearest double. */
export function readingValue(
  raw: bigint,
  series: { readonly scale: number; readonly signed?: boolean | undefined },
): number {
  const integer = Number(series.signed === true ? BigInt.asIntN(64, raw) : raw);
  // Dividing by the whole reciprocal gives 0.07 where multiplying by 0.01 gives 0.07000000000000001.
  const reciprocal = Math.round(1 / series.scale);
  return series.scale < 1 && Math.abs(1 / series.scale - reciprocal) < 1e-6
    ? integer / reciprocal
    : integer * series.scale;
}
