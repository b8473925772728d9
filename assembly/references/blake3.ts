// BLAKE3 as its specification reads, for comparison with kernels/blake3.ts: slow and plain.
const initialValues = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];
const permutation = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const flags = { chunkStart: 1, chunkEnd: 2, parent: 4, root: 8 } as const;
const blockBytes = 64;
const chunkBytes = 1024;

/**
 * The chaining value of the subtree over `input`, whose first chunk is number `counter`; with `root` the hash of an
 * input that is all of it. Section 2.1: the left subtree is the largest power of two of chunks that leaves something.
 */
export function chainingValue(input: Uint8Array, counter: bigint, root: boolean): Uint8Array<ArrayBuffer> {
  if (input.length <= chunkBytes) return bytesOf(chunk(input, counter, root));
  const left = leftBytes(input.length);
  const children = new Uint8Array(2 * 32);
  children.set(chainingValue(input.subarray(0, left), counter, false));
  children.set(chainingValue(input.subarray(left), counter + BigInt(left / chunkBytes), false), 32);
  return bytesOf(parent(children, root));
}

/** The same tree over digests of 32 bytes instead of chunks; one digest stays as it is. */
export function merge(digests: Uint8Array, root: boolean): Uint8Array<ArrayBuffer> {
  const count = digests.length / 32;
  if (count === 1) return new Uint8Array(digests);
  const left = (leftBytes(count * chunkBytes) / chunkBytes) * 32;
  const children = new Uint8Array(2 * 32);
  children.set(merge(digests.subarray(0, left), false));
  children.set(merge(digests.subarray(left), false), 32);
  return bytesOf(parent(children, root));
}

function leftBytes(length: number): number {
  let chunks = 1;
  while (2 * chunks * chunkBytes < length) chunks *= 2;
  return chunks * chunkBytes;
}

/** Section 2.4. */
function chunk(input: Uint8Array, counter: bigint, root: boolean): number[] {
  let value: number[] = initialValues;
  const blocks = Math.max(1, Math.ceil(input.length / blockBytes));
  for (let index = 0; index < blocks; index++) {
    const block = input.subarray(index * blockBytes, (index + 1) * blockBytes);
    let flag = 0;
    if (index === 0) flag |= flags.chunkStart;
    if (index === blocks - 1) flag |= flags.chunkEnd | (root ? flags.root : 0);
    value = compress(value, wordsOf(block), counter, block.length, flag);
  }
  return value;
}

/** Section 2.5. */
function parent(children: Uint8Array, root: boolean): number[] {
  return compress(initialValues, wordsOf(children), 0n, blockBytes, flags.parent | (root ? flags.root : 0));
}

/** Section 2.2; the first half of the output, which is all that is needed. */
function compress(
  value: readonly number[],
  block: readonly number[],
  counter: bigint,
  length: number,
  flag: number,
): number[] {
  const low = Number(BigInt.asUintN(32, counter));
  const high = Number(BigInt.asUintN(32, counter >> 32n));
  const state = [...value, ...initialValues.slice(0, 4), low, high, length, flag];
  let message = block;
  for (let round = 0; round < 7; round++) {
    for (let k = 0; k < 4; k++) mix(state, k, 4 + k, 8 + k, 12 + k, message[2 * k]!, message[2 * k + 1]!);
    for (let k = 0; k < 4; k++) {
      mix(
        state,
        k,
        4 + ((k + 1) % 4),
        8 + ((k + 2) % 4),
        12 + ((k + 3) % 4),
        message[8 + 2 * k]!,
        message[9 + 2 * k]!,
      );
    }
    const previous = message;
    message = permutation.map((from) => previous[from]!);
  }
  return value.map((_, k) => state[k]! ^ state[k + 8]!);
}

function mix(
  state: number[],
  a: number,
  b: number,
  c: number,
  d: number,
  first: number,
  second: number,
): void {
  state[a] = (state[a]! + state[b]! + first) | 0;
  state[d] = rotateRight(state[d]! ^ state[a]!, 16);
  state[c] = (state[c]! + state[d]!) | 0;
  state[b] = rotateRight(state[b]! ^ state[c]!, 12);
  state[a] = (state[a]! + state[b]! + second) | 0;
  state[d] = rotateRight(state[d]! ^ state[a]!, 8);
  state[c] = (state[c]! + state[d]!) | 0;
  state[b] = rotateRight(state[b]! ^ state[c]!, 7);
}

function rotateRight(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits));
}

/** Sixteen little-endian words of a block padded with zeroes. */
function wordsOf(block: Uint8Array): number[] {
  const at = (k: number) => block[k] ?? 0;
  return Array.from(
    { length: 16 },
    (_, k) => at(4 * k) | (at(4 * k + 1) << 8) | (at(4 * k + 2) << 16) | (at(4 * k + 3) << 24),
  );
}

function bytesOf(words: readonly number[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  for (const [k, word] of words.entries()) view.setUint32(4 * k, word, true);
  return bytes;
}
