// The meter: decimal numbers of /proc texts to u64 columns, columns to a table of series, the table to readings on the wire.
import {
  deltaPreviousOffset, deltasOffset, encodePreviousOffset, encodedBytes, encodedOffset, histogramBuckets, histogramBytes,
  histogramCount, histogramsOffset, indexBytes, indexOffset, inputBytes, inputGuardBytes, inputOffset, meterPages, meterSeriesMax, numbersMax, numbersOffset, pageBytes,
  resetMaskBytes, resetMaskOffset, scanResultOffset, scratchOffset, valuesOffset,
} from "../memory-map";

export { mergeHistogram, observe } from "./histogram";
export {
  deltasOffset, encodedOffset, histogramBuckets, histogramBytes, histogramCount, histogramsOffset, indexOffset, inputBytes,
  inputOffset, meterSeriesMax, numbersMax, numbersOffset, resetMaskBytes, resetMaskOffset, scanResultOffset, valuesOffset,
};

const varintBytesMax = 10;
const tableBytes = meterSeriesMax * 8;

if (
  memory.size() != meterPages || __heap_base > <usize>scratchOffset || scanResultOffset + 16 > indexOffset
  || indexBytes != meterSeriesMax * 4 || indexOffset + indexBytes > resetMaskOffset || resetMaskBytes * 8 != meterSeriesMax
  || resetMaskOffset + resetMaskBytes > inputOffset || inputOffset + inputBytes + inputGuardBytes > numbersOffset
  || numbersMax * 2 < inputBytes || numbersOffset % 8 != 0 || numbersOffset + numbersMax * 8 > valuesOffset
  || valuesOffset % 8 != 0 || valuesOffset + tableBytes > encodePreviousOffset || encodePreviousOffset % 8 != 0
  || encodePreviousOffset + tableBytes > deltaPreviousOffset || deltaPreviousOffset % 8 != 0
  || deltaPreviousOffset + tableBytes > deltasOffset || deltasOffset % 8 != 0 || deltasOffset + tableBytes > encodedOffset
  || encodedBytes < resetMaskBytes + meterSeriesMax * varintBytesMax || encodedOffset + encodedBytes > histogramsOffset
  || histogramsOffset % 16 != 0 || histogramBytes % 16 != 0 || histogramBytes < histogramBuckets * 4
  || histogramsOffset + histogramCount * histogramBytes > meterPages * pageBytes
) unreachable();

// FNV-1a, 64 bit, over events: 0–255 a byte of a word, then these.
const hashBasis: u64 = 0xcbf29ce484222325, hashPrime: u64 = 0x100000001b3;
const eventWordEnd: u64 = 256, eventNewline: u64 = 257, eventNumber: u64 = 258; // eventNumber + decimals

// @ts-ignore: decorator
@inline
function mix(hash: u64, event: u64): u64 {
  return (hash ^ event) * hashPrime;
}

// tab, newline, space ( ) , / : =
const separators: u64 = 1 << 9 | 1 << 10 | 1 << 32 | 1 << 40 | 1 << 41 | 1 << 44 | 1 << 47 | 1 << 58 | 1 << 61;

// @ts-ignore: decorator
@inline
function isSeparator(byte: u32): bool {
  return byte < 64 && ((separators >> byte) & 1) != 0;
}

/**
 * Splits the first `length` bytes of the input into words at separators, and stores each word that is a number
 * (digits, perhaps a leading minus, perhaps one dot between digits, which is dropped: fixed point) as u64: a negative
 * one as two's complement, one beyond 64 bits saturated. Everything else goes into the shape: the other words, newlines,
 * the places of the numbers among them and how many digits follow their dots. Returns how many numbers.
 */
export function scan(length: usize): i32 {
  if (length > <usize>inputBytes) unreachable();
  const end = <usize>inputOffset + length;
  store<u8>(end, 10);
  let at: usize = inputOffset, out: usize = numbersOffset;
  let shape = hashBasis;
  let saturated: u32 = 0;
  while (at < end) {
    let byte: u32 = load<u8>(at);
    if (isSeparator(byte)) {
      if (byte == 10) shape = mix(shape, eventNewline);
      at++;
      continue;
    }
    const word = at;
    const negative = byte == 45; // -
    if (negative) byte = load<u8>(++at);
    let value: u64 = 0, overflow: u32 = 0;
    let digits = 0, dotAt = 0;
    while (true) {
      const digit = byte - 48;
      if (digit < 10) {
        // 19 digits always fit.
        if (digits >= 19 && (overflow || value > 1844674407370955161 || (value == 1844674407370955161 && digit > 5))) overflow = 1;
        else value = value * 10 + digit;
        digits++;
      } else if (byte == 46 && digits > 0 && dotAt == 0 && <u32>load<u8>(at, 1) - 48 < 10) {
        dotAt = digits;
      } else break;
      byte = load<u8>(++at);
    }
    if (digits > 0 && isSeparator(byte)) {
      if (overflow) value = u64.MAX_VALUE;
      if (negative) {
        if (value > 0x8000000000000000) {
          value = 0x8000000000000000;
          overflow = 1;
        }
        value = 0 - value;
      }
      saturated |= overflow;
      store<u64>(out, value);
      out += 8;
      shape = mix(shape, eventNumber + (dotAt ? digits - dotAt : 0));
      continue;
    }
    for (at = word, byte = load<u8>(at); !isSeparator(byte); byte = load<u8>(++at)) shape = mix(shape, byte);
    shape = mix(shape, eventWordEnd);
  }
  store<u64>(scanResultOffset, shape);
  store<u32>(scanResultOffset, saturated, 8);
  return <i32>((out - numbersOffset) >> 3);
}

/** values[target + k] = numbers[index[k]], for k < count. Traps on an index that the last scan (of `numbers`) does not have. */
export function gather(target: u32, count: u32, numbers: u32): void {
  if (count > <u32>meterSeriesMax || target > <u32>meterSeriesMax - count || numbers > <u32>numbersMax) unreachable();
  for (let k: u32 = 0; k < count; k++) {
    const index = load<u32>(indexOffset + k * 4);
    if (index >= numbers) unreachable();
    store<u64>(valuesOffset + (target + k) * 8, load<u64>(numbersOffset + index * 8));
  }
}

/**
 * Readings of the first `count` series: a bitmap of those that changed (bit k of ceil(count / 8) bytes, least significant
 * first), then for each the zigzag form of its difference modulo 2^64 as LEB128. A key frame differs from zeroes.
 * Returns how many bytes, at encodedOffset.
 */
export function encode(count: u32, key: bool): u32 {
  if (count > <u32>meterSeriesMax) unreachable();
  if (key) memory.fill(encodePreviousOffset, 0, tableBytes);
  const bitmapBytes = (count + 7) >> 3;
  memory.fill(encodedOffset, 0, bitmapBytes);
  let out: usize = encodedOffset + bitmapBytes;
  for (let k: u32 = 0; k < count; k++) {
    const value = load<u64>(valuesOffset + k * 8);
    const difference = <i64>(value - load<u64>(encodePreviousOffset + k * 8));
    if (difference == 0) continue;
    store<u64>(encodePreviousOffset + k * 8, value);
    const byte = <usize>encodedOffset + (k >> 3);
    store<u8>(byte, load<u8>(byte) | (<u8>1 << <u8>(k & 7)));
    let zigzag = <u64>(difference << 1) ^ <u64>(difference >> 63);
    while (zigzag >= 128) {
      store<u8>(out++, <u8>zigzag | 128);
      zigzag >>= 7;
    }
    store<u8>(out++, <u8>zigzag);
  }
  return <u32>(out - encodedOffset);
}

/**
 * Counter deltas of the first `count` series since the last call, at deltasOffset. A value below the previous one is a
 * reset: delta 0, its bit set at resetMaskOffset. The `first` call has no previous: all deltas 0. Returns how many resets.
 */
export function deltas(count: u32, first: bool): u32 {
  if (count > <u32>meterSeriesMax) unreachable();
  memory.fill(resetMaskOffset, 0, resetMaskBytes);
  let resets: u32 = 0;
  for (let k: u32 = 0; k < count; k++) {
    const value = load<u64>(valuesOffset + k * 8);
    const previous = load<u64>(deltaPreviousOffset + k * 8);
    let delta: u64 = 0;
    if (!first) {
      if (value >= previous) delta = value - previous;
      else {
        const byte = <usize>resetMaskOffset + (k >> 3);
        store<u8>(byte, load<u8>(byte) | (<u8>1 << <u8>(k & 7)));
        resets++;
      }
    }
    store<u64>(deltasOffset + k * 8, delta);
    store<u64>(deltaPreviousOffset + k * 8, value);
  }
  return resets;
}
