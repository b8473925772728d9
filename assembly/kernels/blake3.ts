// BLAKE3 over groups in windows of this module's memory: chaining values, roots, merging, streams, and the tests for zero
// and equality that go with them. Section numbers are those of the BLAKE3 specification.
import {
  blake3Pages, blockBytes, blockOffset, chunkBytes, chunkValuesBytes, chunkValuesOffset, digestBytes, digestOffset,
  expectedOffset, groupBytes, pageBytes, scratchOffset, stackDepth, stackOffset, windowAlignBytes, windowCount, windowsEnd,
  windowsOffset, zeroBlockBytes, zeroMapBytes, zeroMapOffset, zeroesOffset,
} from "../memory-map";
import { compress, initialValues, lanes4Relaxed, lanes4Shuffled, lanes5Relaxed } from "./generated/blake3-compress";
import { equalBytes, zeroBytes } from "./compare";

export { digestBytes, digestOffset, expectedOffset, groupBytes, windowCount, windowsOffset, zeroMapBytes, zeroMapOffset, zeroesOffset };

// Section 2.1, table 3.
const chunkStart: u32 = 1, chunkEnd: u32 = 2, parent: u32 = 4, rootFlag: u32 = 8;

if (
  memory.size() != blake3Pages || __heap_base > <usize>scratchOffset || windowsOffset % windowAlignBytes != 0
  || windowsEnd != windowsOffset + windowCount * groupBytes || zeroesOffset < windowsEnd || zeroesOffset % windowAlignBytes != 0
  || zeroesOffset + groupBytes > blake3Pages * pageBytes || chunkValuesBytes != (groupBytes / chunkBytes) * digestBytes
  || chunkValuesOffset + chunkValuesBytes > windowsOffset || stackOffset + stackDepth * digestBytes > chunkValuesOffset
  || digestOffset < scratchOffset || digestOffset + digestBytes > zeroMapOffset || zeroMapOffset + zeroMapBytes > expectedOffset
  || expectedOffset + digestBytes > blockOffset || blockOffset + blockBytes > stackOffset
  || zeroMapBytes * 8 * zeroBlockBytes != groupBytes
) unreachable();

/** Traps unless [address, address + length) lies within the windows (or the window of zeroes) and is at most a group. */
function check(address: usize, length: usize): void {
  if (address < <usize>windowsOffset || length > <usize>groupBytes || address > <usize>(zeroesOffset + groupBytes) - length) unreachable();
}

/** One chunk of at most 1024 bytes (section 2.4). `last` is 0 or ROOT. */
function chunk(input: usize, length: usize, counter: u64, last: u32, out: usize): void {
  memory.copy(out, initialValues, digestBytes);
  let flags = chunkStart;
  while (length > 64) {
    compress(out, input, 64, counter, flags, out);
    flags = 0;
    input += 64;
    length -= 64;
  }
  // The last block is padded with zeroes to 64 bytes: in scratch memory, for a short one.
  if (length < 64) {
    memory.fill(blockOffset, 0, blockBytes);
    memory.copy(blockOffset, input, length);
    input = blockOffset;
  }
  compress(out, input, <u32>length, counter, flags | chunkEnd | last, out);
}

function fourChunks(input: usize, counter: u64, out: usize): void {
  if (ASC_FEATURE_RELAXED_SIMD) {
    lanes4Relaxed(input, chunkBytes, 16, counter, 1, 0, chunkStart, chunkEnd, out);
  } else if (ASC_FEATURE_SIMD) {
    lanes4Shuffled(input, chunkBytes, 16, counter, 1, 0, chunkStart, chunkEnd, out);
  } else {
    for (let k = 0; k < 4; k++) chunk(input + k * chunkBytes, chunkBytes, counter + k, 0, out + k * digestBytes);
  }
}

function oneParent(children: usize, last: u32, out: usize): void {
  compress(initialValues, children, 64, 0, parent | last, out);
}

function fourParents(children: usize, out: usize): void {
  if (ASC_FEATURE_RELAXED_SIMD) {
    lanes4Relaxed(children, 64, 1, 0, 0, parent, 0, 0, out);
  } else if (ASC_FEATURE_SIMD) {
    lanes4Shuffled(children, 64, 1, 0, 0, parent, 0, 0, out);
  } else {
    for (let k = 0; k < 4; k++) oneParent(children + k * 64, 0, out + k * digestBytes);
  }
}

/**
 * Merges `count` chaining values in place, level by level, the odd one carried: the same tree as the left-balanced one
 * of section 2.1. Leaves the result in the first place. A single value stays as it is.
 */
function mergeLevels(values: usize, count: i32, last: u32): void {
  while (count > 2) {
    const pairs = count >> 1;
    let pair = 0;
    // Writing runs behind reading: four parents are read whole before the first is stored.
    for (; pair + 4 <= pairs; pair += 4) fourParents(values + pair * 64, values + pair * digestBytes);
    for (; pair < pairs; pair++) oneParent(values + pair * 64, 0, values + pair * digestBytes);
    if (count & 1) memory.copy(values + pairs * digestBytes, values + (count - 1) * digestBytes, digestBytes);
    count = pairs + (count & 1);
  }
  if (count == 2) oneParent(values, last, values);
}

/** Chaining value of the subtree over [input, input + length), whose first chunk is number `counter`: to digestOffset. */
export function chainingValue(input: usize, length: usize, counter: u64, root: bool): void {
  check(input, length);
  if (length == 0 && !root) unreachable();
  const last: u32 = root ? rootFlag : 0;
  if (length <= <usize>chunkBytes) return chunk(input, length, counter, last, digestOffset);
  const whole = <i32>(length / chunkBytes);
  let index = 0;
  if (ASC_FEATURE_RELAXED_SIMD) {
    for (; index + 5 <= whole; index += 5) lanes5Relaxed(input + index * chunkBytes, chunkBytes, 16, counter + index, 1, 0, chunkStart, chunkEnd, chunkValuesOffset + index * digestBytes);
  }
  for (; index + 4 <= whole; index += 4) fourChunks(input + index * chunkBytes, counter + index, chunkValuesOffset + index * digestBytes);
  for (; index < whole; index++) chunk(input + index * chunkBytes, chunkBytes, counter + index, 0, chunkValuesOffset + index * digestBytes);
  const rest = length % chunkBytes;
  if (rest) chunk(input + index * chunkBytes, rest, counter + index, 0, chunkValuesOffset + index++ * digestBytes);
  mergeLevels(chunkValuesOffset, index, last);
  memory.copy(digestOffset, chunkValuesOffset, digestBytes);
}

/** Merges `count` chaining values of equal complete subtrees (the last may be smaller), in place at `values`: to digestOffset. */
export function merge(values: usize, count: i32, root: bool): void {
  if (count < 1 || count > groupBytes / digestBytes) unreachable();
  check(values, count * digestBytes);
  // In place: never over the window of zeroes.
  if (values + count * digestBytes > <usize>windowsEnd) unreachable();
  mergeLevels(values, count, root ? rootFlag : 0);
  memory.copy(digestOffset, values, digestBytes);
}

/** Adds the value at digestOffset to the stack of a stream, as its group number `index`; more input must follow it. */
export function streamPush(index: u64): void {
  let depth = <i32>popcnt<u64>(index);
  if (depth + 1 >= stackDepth) unreachable();
  memory.copy(stackOffset + depth * digestBytes, digestOffset, digestBytes);
  // Each trailing one of the index is a complete subtree to the left that this one completes.
  for (; index & 1; index >>= 1) {
    depth--;
    oneParent(stackOffset + depth * digestBytes, 0, stackOffset + depth * digestBytes);
  }
}

/** Root of a stream of `count` groups pushed before and the last one, whose value is at digestOffset: to digestOffset. */
export function streamFinish(count: u64): void {
  let depth = <i32>popcnt<u64>(count);
  if (depth == 0 || depth + 1 >= stackDepth) unreachable();
  memory.copy(stackOffset + depth * digestBytes, digestOffset, digestBytes);
  for (; depth > 0; depth--) oneParent(stackOffset + (depth - 1) * digestBytes, depth == 1 ? rootFlag : 0, stackOffset + (depth - 1) * digestBytes);
  memory.copy(digestOffset, stackOffset, digestBytes);
}

/**
 * One visit to a group: chaining value to digestOffset, map of its zero 4 KiB blocks (the last may be short) to
 * zeroMapOffset; returns 1 when all of it is zero, plus 2 when the chaining value is the one at expectedOffset. The zero
 * test leaves a block at its first other byte, so that it costs full data nothing, and zero data 3 % of its hash.
 */
export function groupPass(input: usize, length: usize, counter: u64, root: bool): u32 {
  chainingValue(input, length, counter, root);
  memory.fill(zeroMapOffset, 0, zeroMapBytes);
  let all: u32 = 1;
  for (let block = 0, at: usize = 0; at < length; block++, at += zeroBlockBytes) {
    if (zeroBytes(input + at, min<usize>(zeroBlockBytes, length - at))) {
      const byte = <usize>zeroMapOffset + (block >> 3);
      store<u8>(byte, load<u8>(byte) | (<u8>1 << <u8>(block & 7)));
    } else all = 0;
  }
  return all | <u32>equalBytes(digestOffset, expectedOffset, digestBytes) << 1;
}

export function isZero(input: usize, length: usize): bool {
  check(input, length);
  return zeroBytes(input, length);
}

export function equal(a: usize, b: usize, length: usize): bool {
  check(a, length);
  check(b, length);
  return equalBytes(a, b, length);
}
