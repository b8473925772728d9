// An import's input as bytes: a file or an HTTP(S) address, read once from its start, hashed on the way where its sum is known.
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { BedplateError } from "../../protocol/errors.ts";
import { openHttp } from "./http-input.ts";
import { imageLimits } from "./limits.ts";
import { isAddress } from "./small-input.ts";
import type { ExpectedSum } from "./sums.ts";

export interface Input extends AsyncDisposable {
  /** One pass over all bytes. At its end throws `image.digest-mismatch`, and `file.changed` if the file is not what it was. */
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Where it is known beforehand. */
  readonly totalBytes: number | null;
  readonly bytesRead: number;
  /** Its bytes must hash to what somebody says. */
  readonly vouched: boolean;
  /** A regular file whose digest nobody asked for: may be read in any order instead of `bytes`, with `checkUnchanged` after. */
  readonly file: FileHandle | null;
  /** @throws `file.changed` */
  checkUnchanged(): Promise<void>;
}

export interface InputOptions {
  readonly input: string;
  /** What the input as it is must hash to. */
  readonly expected: readonly ExpectedSum[];
  readonly signal: AbortSignal;
}

const readBytes = 256 * 1024;

export async function openInput({ input, expected, signal }: InputOptions): Promise<Input> {
  const source = isAddress(input) ? await openAddress(input, signal) : await openFile(input, signal);
  let bytesRead = 0;
  const counted = async function* () {
    const hashes = expected.map(({ algorithm }) => createHash(algorithm));
    for await (const chunk of source.bytes) {
      signal.throwIfAborted();
      bytesRead += chunk.length;
      // No source is larger than the largest image by more than headers and checksums.
      if (bytesRead > imageLimits.imageBytesMax * 1.01) {
        throw new BedplateError(
          "image.unsupported",
          `The input is larger than any image that is taken (${imageLimits.imageBytesMax} bytes).`,
        );
      }
      for (const hash of hashes) hash.update(chunk);
      yield chunk;
    }
    await source.checkUnchanged();
    for (const [i, hash] of hashes.entries()) checkDigest(hash.digest("hex"), expected[i]!);
  };
  return {
    bytes: counted(),
    totalBytes: source.totalBytes,
    get bytesRead() {
      return bytesRead;
    },
    vouched: expected.length > 0,
    file: expected.length === 0 ? source.file : null,
    checkUnchanged: source.checkUnchanged,
    [Symbol.asyncDispose]: source.close,
  };
}

function checkDigest(found: string, { algorithm, digest }: ExpectedSum): void {
  if (found === digest) return;
  const name = algorithm === "sha256" ? "SHA-256" : "SHA-512";
  throw new BedplateError(
    "image.digest-mismatch",
    `The input's ${name} is ${found}, not ${digest}; nothing is kept.`,
    { hint: "Get the file and its published digest again.", details: { found, expected: digest } },
  );
}

interface Source {
  readonly bytes: AsyncIterable<Uint8Array>;
  readonly totalBytes: number | null;
  readonly file: FileHandle | null;
  checkUnchanged(): Promise<void>;
  close(): Promise<void>;
}

async function openAddress(address: string, signal: AbortSignal): Promise<Source> {
  const ended = new AbortController();
  const body = await openHttp(address, AbortSignal.any([signal, ended.signal]));
  return { ...body, file: null, checkUnchanged: async () => {}, close: async () => ended.abort() };
}

async function openFile(path: string, signal: AbortSignal): Promise<Source> {
  const handle = await open(path, "r").catch((cause) => unreadable(path, cause));
  try {
    const before = await handle.stat();
    if (!before.isFile() && !before.isBlockDevice()) {
      throw new BedplateError("file.unreadable", `${path} is neither a regular file nor a block device.`);
    }
    return {
      bytes: readAll(handle, path, signal),
      totalBytes: before.isFile() ? before.size : null,
      file: before.isFile() ? handle : null,
      async checkUnchanged() {
        const after = await handle.stat();
        if (after.size === before.size && after.mtimeMs === before.mtimeMs) return;
        throw new BedplateError("file.changed", `${path} was written to while it was imported.`);
      },
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function* readAll(handle: FileHandle, path: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  for (;;) {
    signal.throwIfAborted();
    // Fresh memory each time: whoever decodes may keep a piece while the next one is read.
    const buffer = Buffer.allocUnsafeSlow(readBytes);
    const { bytesRead } = await handle
      .read(buffer, 0, readBytes, null)
      .catch((cause) => unreadable(path, cause));
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
  }
}

function unreadable(path: string, cause: unknown): never {
  throw new BedplateError(
    "file.unreadable",
    `${path} cannot be read (${(cause as NodeJS.ErrnoException).code}).`,
    { cause },
  );
}

export interface Peeked extends AsyncDisposable {
  /** Fewer bytes than asked for only when the input ends before. */
  readonly head: Uint8Array;
  /** One pass over all bytes, with those of the head. */
  readonly bytes: AsyncIterable<Uint8Array>;
}

/** Looks at the first `count` bytes. Disposing ends the input wherever it stands. */
export async function peek(bytes: AsyncIterable<Uint8Array>, count: number): Promise<Peeked> {
  const iterator = bytes[Symbol.asyncIterator]();
  const pieces: Uint8Array[] = [];
  let [held, done] = [0, false];
  while (held < count && !done) {
    const next = await iterator.next();
    if (next.done === true) {
      done = true;
    } else {
      pieces.push(next.value);
      held += next.value.length;
    }
  }
  const all = async function* () {
    while (pieces.length > 0) yield pieces.shift()!;
    while (!done) {
      const next = await iterator.next();
      if (next.done === true) return;
      yield next.value;
    }
  };
  return {
    head: Buffer.concat(pieces).subarray(0, count),
    bytes: all(),
    async [Symbol.asyncDispose]() {
      await iterator.return?.();
    },
  };
}
