// BLAKE3 over groups of 1 MiB in the memory of a WebAssembly instance: disk buffer and hash input at once.
import { blake3Layout } from "./layout.ts";
import { type CompiledKernel, checkRange, guarded, instantiate, loadBlake3, type Variant } from "./load.ts";
import {
  chunkBytes,
  digestBytes,
  digestOffset,
  expectedOffset,
  groupBytes,
  windowCount,
  windowsOffset,
  zeroBlockBytes,
  zeroesOffset,
  zeroMapBytes,
  zeroMapOffset,
} from "./memory-map.ts";

export interface GroupOptions {
  /** The group is the whole input, and the digest its finished root hash. Default false: a subtree of a larger input. */
  readonly root?: boolean;
}

export interface PassOptions extends GroupOptions {
  /** 32 bytes that the digest ought to be. */
  readonly expected?: Uint8Array;
}

export interface GroupPass {
  /** 32 fresh bytes. */
  readonly digest: Uint8Array<ArrayBuffer>;
  /** Whether the digest is the expected one; undefined when none was given. */
  readonly matches: boolean | undefined;
  /** Whether all bytes are zero. */
  readonly zero: boolean;
  /** Bit k, least significant first, says that the group's k-th block of 4096 bytes (the last may be short) is all zero: 32 fresh bytes. */
  readonly zeroBlocks: Uint8Array<ArrayBuffer>;
}

/**
 * One WebAssembly instance with its private memory of 5 MiB. Not to be shared between threads. Each method throws
 * `kernel.bad-range` for a window, length or group that does not exist.
 */
export interface GroupKernel {
  readonly variant: Variant;
  /** Four windows of groupBytes, each a view on the instance's memory, aligned to 4096 for O_DIRECT. */
  readonly windows: readonly Uint8Array<ArrayBuffer>[];
  /** A window of groupBytes zeroes, for writing them. Nobody ever writes into it. */
  readonly zeroes: Uint8Array<ArrayBuffer>;
  /**
   * Subtree chaining value of bytes [0, length) of a window as group number `group` of a larger input (length at least
   * 1), or with `root` the BLAKE3 hash of an input of one group (group 0, any length): 32 fresh bytes.
   */
  chainingValue(
    window: number,
    length: number,
    group: number,
    options?: GroupOptions,
  ): Uint8Array<ArrayBuffer>;
  /** The chaining value, whether it is the expected one, and what is zero, at the cost of the chaining value. */
  groupPass(window: number, length: number, group: number, options?: PassOptions): GroupPass;
  isZero(window: number, length: number): boolean;
  equal(windowA: number, windowB: number, length: number): boolean;
}

/** The fastest variant here, or the named one. */
export async function createGroupKernel(variant?: Variant): Promise<GroupKernel> {
  return groupKernelOf(await compileKernel(variant));
}

/** Compiles a module that can be posted to workers, which make their kernels from it with {@link groupKernelOf}. */
export async function compileKernel(variant?: Variant): Promise<CompiledKernel> {
  return loadBlake3(variant);
}

/** The functions of kernels/blake3.ts. */
export interface Blake3Exports {
  chainingValue(input: number, length: number, counter: bigint, root: number): void;
  groupPass(input: number, length: number, counter: bigint, root: number): number;
  merge(values: number, count: number, root: number): void;
  streamPush(index: bigint): void;
  streamFinish(count: bigint): void;
  isZero(input: number, length: number): number;
  equal(a: number, b: number, length: number): number;
}

/** What the kernel's group pass returns. */
const passBits = { zero: 1, matches: 2 } as const;

/** Chunk counters stay exact in a double, and far above any disk. */
const groupMax = 2 ** 43 - 1;

export function groupKernelOf({ module, variant }: CompiledKernel): GroupKernel {
  const { exports, memory } = instantiate<Blake3Exports>(module, blake3Layout);
  const addressOf = (window: number, length: number) => {
    checkRange(window, { least: 0, most: windowCount - 1, what: "the window" });
    checkRange(length, { least: 0, most: groupBytes, what: "the length" });
    return windowsOffset + window * groupBytes;
  };
  const counterOf = (length: number, group: number, root: boolean) => {
    checkRange(length, { least: root ? 0 : 1, most: groupBytes, what: "the length" });
    checkRange(group, { least: 0, most: root ? 0 : groupMax, what: "the group" });
    return BigInt(group * (groupBytes / chunkBytes));
  };
  const expectedDigest = new Uint8Array(memory, expectedOffset, digestBytes);
  const copy = (offset: number, length: number) => new Uint8Array(memory.slice(offset, offset + length));

  return {
    variant,
    windows: Array.from(
      { length: windowCount },
      (_, k) => new Uint8Array(memory, windowsOffset + k * groupBytes, groupBytes),
    ),
    zeroes: new Uint8Array(memory, zeroesOffset, groupBytes),
    chainingValue(window, length, group, { root = false } = {}) {
      const address = addressOf(window, length);
      const counter = counterOf(length, group, root);
      guarded(() => exports.chainingValue(address, length, counter, Number(root)));
      return copy(digestOffset, digestBytes);
    },
    groupPass(window, length, group, { root = false, expected } = {}) {
      const address = addressOf(window, length);
      const counter = counterOf(length, group, root);
      if (expected !== undefined) {
        checkRange(expected.length, { least: digestBytes, most: digestBytes, what: "the digest's length" });
        expectedDigest.set(expected);
      }
      const found = guarded(() => exports.groupPass(address, length, counter, Number(root)));
      return {
        digest: copy(digestOffset, digestBytes),
        matches: expected && (found & passBits.matches) !== 0,
        zero: (found & passBits.zero) !== 0,
        zeroBlocks: copy(zeroMapOffset, zeroMapBytes),
      };
    },
    isZero(window, length) {
      const address = addressOf(window, length);
      return guarded(() => exports.isZero(address, length)) === 1;
    },
    equal(windowA, windowB, length) {
      const [a, b] = [addressOf(windowA, length), addressOf(windowB, length)];
      return guarded(() => exports.equal(a, b, length)) === 1;
    },
  };
}

/** How many blocks of 4096 bytes a group of `length` bytes has in its zero map. */
export function zeroBlockCount(length: number): number {
  return Math.ceil(length / zeroBlockBytes);
}
