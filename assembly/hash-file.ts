// Hashes files and streams: whole groups by worker threads that read straight into WebAssembly memory, the rest in place.

import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { addAbortSignal, type Readable } from "node:stream";
import { BedplateError } from "../protocol/errors.ts";
import { coresAllowed } from "./cores.ts";
import { type HashJob, slots } from "./hash-job.ts";
import { createHashPool, type HashPool } from "./hash-pool.ts";
import { type CompiledKernel, checkRange, loadBlake3 } from "./load.ts";
import { digestBytes, groupBytes } from "./memory-map.ts";
import { mergeOf, type StreamHasherAgain, streamHasherOf } from "./tree.ts";

export type HashAlgorithm = "blake3" | "sha256";

export interface FileDigest {
  /** 32 bytes, as `b3sum` or `sha256sum` prints them. */
  readonly digest: Uint8Array<ArrayBuffer>;
  readonly bytes: number;
}

export interface HashOptions {
  readonly algorithm: HashAlgorithm;
  readonly signal: AbortSignal;
  /** Told now and then how many bytes are done. */
  readonly onProgress?: (bytesDone: number) => void;
}

/** Hashes files one after the other or at once, with worker threads that are started on first use. */
export interface FileHasher extends AsyncDisposable {
  /**
   * @throws `file.unreadable`; `file.changed` when the file becomes shorter meanwhile; `hash.aborted` within 100 ms of
   * the signal; `worker.died`
   */
  hash(path: string, options: HashOptions): Promise<FileDigest>;
}

/** Up to this size a file is hashed on the calling thread, at most 1 ms at a time: a worker takes 50 ms to start. */
const inPlaceBytesMax = 4 * groupBytes;
const threadsMax = 1024;

export interface HasherOptions {
  /** At most so many workers at once. Default: {@link coresAllowed}. */
  readonly threads?: number;
  /** Default: the fastest that this V8 can run. */
  readonly kernel?: CompiledKernel;
  /** Default: hash-worker.ts. */
  readonly worker?: URL;
}

export function createFileHasher(hasherOptions: HasherOptions = {}): FileHasher {
  const { threads = Math.min(coresAllowed(), threadsMax), kernel = loadBlake3(), worker } = hasherOptions;
  checkRange(threads, { least: 1, most: threadsMax, what: "the number of threads" });
  const merge = mergeOf(kernel);
  const pool = createHashPool({ threads, kernel, ...(worker === undefined ? {} : { worker }) });
  let inPlace: StreamHasherAgain | undefined;
  const again = () => {
    inPlace ??= streamHasherOf(kernel);
    inPlace.restart();
    return inPlace;
  };
  return {
    async hash(path, options) {
      if (options.signal.aborted) throw aborted(options.signal.reason);
      await using handle = await openFile(path);
      const status = await handle.stat();
      if (status.isDirectory()) throw new BedplateError("file.unreadable", `${path} is a directory.`);
      if (!status.isFile()) {
        const stream = handle.createReadStream({ highWaterMark: groupBytes, autoClose: false });
        return await hashStream(stream, { ...options, kernel }).catch((error) => unreadable(path, error));
      }
      if (status.size <= inPlaceBytesMax) {
        const content = await handle.readFile().catch((error) => unreadable(path, error));
        if (content.length < status.size) throw changed(path);
        // From here to the digest nothing waits: files that are hashed at once do not meet in it.
        const whole = options.algorithm === "blake3" ? again() : createHash("sha256");
        whole.update(content);
        options.onProgress?.(content.length);
        return { digest: new Uint8Array(whole.digest()), bytes: content.length };
      }
      const groups = Math.ceil(status.size / groupBytes);
      const jobs = options.algorithm === "blake3" ? Math.min(threads, groups) : 1;
      const output = new Uint8Array(
        new SharedArrayBuffer(options.algorithm === "blake3" ? groups * digestBytes : digestBytes),
      );
      await runJobs(pool, { path, jobs, fd: handle.fd, bytes: status.size, output, options });
      const digest = options.algorithm === "blake3" ? merge(output, groups) : new Uint8Array(output);
      return { digest, bytes: status.size };
    },
    async [Symbol.asyncDispose]() {
      await pool[Symbol.asyncDispose]();
    },
  };
}

/** Hashes one file with threads of its own; for many, use {@link createFileHasher}. */
export async function hashFile(path: string, options: HashOptions & HasherOptions): Promise<FileDigest> {
  await using hasher = createFileHasher(options);
  return await hasher.hash(path, options);
}

/**
 * Hashes what a stream gives until its end, on the calling thread.
 * @throws `hash.aborted`; the stream's own error
 */
export async function hashStream(
  stream: Readable,
  { algorithm, signal, onProgress, kernel }: HashOptions & Pick<HasherOptions, "kernel">,
): Promise<FileDigest> {
  const hasher = hasherOf(algorithm, kernel);
  let bytes = 0;
  try {
    for await (const chunk of addAbortSignal(signal, stream) as AsyncIterable<Uint8Array>) {
      hasher.update(chunk);
      bytes += chunk.length;
      onProgress?.(bytes);
    }
  } catch (cause) {
    throw signal.aborted ? aborted(cause) : cause;
  }
  return { digest: new Uint8Array(hasher.digest()), bytes };
}

function hasherOf(algorithm: HashAlgorithm, kernel: CompiledKernel | undefined) {
  return algorithm === "blake3" ? streamHasherOf(kernel ?? loadBlake3()) : createHash("sha256");
}

interface Run {
  readonly path: string;
  readonly jobs: number;
  readonly fd: number;
  readonly bytes: number;
  readonly output: Uint8Array<SharedArrayBuffer>;
  readonly options: HashOptions;
}

/** Runs the jobs of one file: the first failure or the signal stops them all, and `fd` is free afterwards. */
async function runJobs(pool: HashPool, { path, jobs, fd, bytes, output, options }: Run): Promise<void> {
  const { algorithm, signal, onProgress } = options;
  const control = new Int32Array(new SharedArrayBuffer(4 * Object.keys(slots).length));
  const stop = () => {
    Atomics.store(control, slots.stop, 1);
  };
  const left = stopsAndLeaves(control, signal, stop);
  let running = true;
  const job: HashJob = { algorithm, path, fd, bytes, control, output };
  let failure: unknown;
  const fail = (error: unknown) => {
    failure ??= error;
    stop();
  };
  const ends = Array.from({ length: jobs }, () => pool.run(job).catch(fail));
  const followed = onProgress && followProgress({ control, bytes, onProgress, running: () => running });
  // Jobs whose workers still start when the signal aborts are not waited for: they find themselves stopped.
  await Promise.race([Promise.all(ends), left.promise]);
  running = false;
  Atomics.notify(control, slots.done);
  left.forget();
  await followed;
  if (signal.aborted) throw aborted(signal.reason);
  if (failure !== undefined) throw failure;
}

/** `promise` resolves when the signal has aborted and no worker touches the file any more. */
function stopsAndLeaves(
  control: Int32Array<SharedArrayBuffer>,
  signal: AbortSignal,
  stop: () => void,
): { readonly promise: Promise<void>; readonly forget: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  const onAbort = async () => {
    stop();
    for (;;) {
      const running = Atomics.load(control, slots.running);
      if (running === 0) return resolve();
      await Atomics.waitAsync(control, slots.running, running, 50).value;
    }
  };
  if (signal.aborted) void onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  return { promise, forget: () => signal.removeEventListener("abort", onAbort) };
}

interface Progress {
  readonly control: Int32Array<SharedArrayBuffer>;
  readonly bytes: number;
  readonly onProgress: (bytesDone: number) => void;
  readonly running: () => boolean;
}

/** Workers notify the counter of finished groups now and then. */
async function followProgress({ control, bytes, onProgress, running }: Progress): Promise<void> {
  while (running()) {
    const done = Atomics.load(control, slots.done);
    onProgress(Math.min(done * groupBytes, bytes));
    await Atomics.waitAsync(control, slots.done, done, 250).value;
  }
  onProgress(Math.min(Atomics.load(control, slots.done) * groupBytes, bytes));
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY);
  } catch (cause) {
    return unreadable(path, cause);
  }
}

function unreadable(path: string, cause: unknown): never {
  if (cause instanceof BedplateError) throw cause;
  const { code } = cause as NodeJS.ErrnoException;
  throw new BedplateError("file.unreadable", `${path} cannot be read (${code ?? String(cause)}).`, { cause });
}

function changed(path: string): BedplateError {
  return new BedplateError("file.changed", `${path} became shorter while it was read.`);
}

function aborted(cause: unknown): BedplateError {
  return new BedplateError("hash.aborted", "Hashing was stopped.", { cause });
}
