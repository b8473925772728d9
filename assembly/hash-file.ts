// Hashes files and streams: whole groups by worker threads that read straight into WebAssembly memory, the rest in place.

import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { addAbortSignal, type Readable } from "node:stream";
import { Piscina } from "piscina";
import { BedplateError, type ErrorReport, errorOf } from "../protocol/errors.ts";
import { entryUrl } from "./built.ts";
import { type HashJob, type HashWorkerData, slots } from "./hash-job.ts";
import { checkRange, loadBlake3 } from "./load.ts";
import { digestBytes, groupBytes } from "./memory-map.ts";
import { mergeOf, streamHasherOf } from "./tree.ts";

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
const threadsMax = 256;

/** `threads`: at most so many at once; `os.availableParallelism()` is what affinity and cgroup quota allow. */
export function createFileHasher({ threads }: { threads: number }): FileHasher {
  checkRange(threads, { least: 1, most: threadsMax, what: "the number of threads" });
  const kernel = loadBlake3();
  const merge = mergeOf(kernel);
  let pool: Piscina | undefined;
  const startedPool = () => {
    pool ??= new Piscina({
      filename: entryUrl("assembly/hash-worker.ts").href,
      workerData: { kernel } satisfies HashWorkerData,
      minThreads: 0,
      maxThreads: threads,
      idleTimeout: 2000,
      // Jobs are long: a worker need not spin or block for the next one.
      atomics: "disabled",
    });
    return pool;
  };
  return {
    async hash(path, options) {
      if (options.signal.aborted) throw aborted(options.signal.reason);
      await using handle = await openFile(path);
      const status = await handle.stat();
      if (status.isDirectory()) throw new BedplateError("file.unreadable", `${path} is a directory.`);
      if (!status.isFile() || status.size <= inPlaceBytesMax) {
        const stream = handle.createReadStream({ highWaterMark: groupBytes, autoClose: false });
        const result = await hashStream(stream, options).catch((error) => unreadable(path, error));
        if (status.isFile() && result.bytes < status.size) throw changed(path);
        return result;
      }
      const groups = Math.ceil(status.size / groupBytes);
      const jobs = options.algorithm === "blake3" ? Math.min(threads, groups) : 1;
      const output = new Uint8Array(
        new SharedArrayBuffer(options.algorithm === "blake3" ? groups * digestBytes : digestBytes),
      );
      await runJobs(startedPool(), { path, jobs, fd: handle.fd, bytes: status.size, output, options });
      const digest = options.algorithm === "blake3" ? merge(output, groups) : new Uint8Array(output);
      return { digest, bytes: status.size };
    },
    async [Symbol.asyncDispose]() {
      await pool?.destroy();
    },
  };
}

/** Hashes one file with threads of its own; for many, use {@link createFileHasher}. */
export async function hashFile(
  path: string,
  options: HashOptions & { threads: number },
): Promise<FileDigest> {
  await using hasher = createFileHasher(options);
  return await hasher.hash(path, options);
}

/**
 * Hashes what a stream gives until its end, on the calling thread.
 * @throws `hash.aborted`; the stream's own error
 */
export async function hashStream(
  stream: Readable,
  { algorithm, signal, onProgress }: HashOptions,
): Promise<FileDigest> {
  const hasher = algorithm === "blake3" ? streamHasherOf(loadBlake3()) : createHash("sha256");
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

interface Run {
  readonly path: string;
  readonly jobs: number;
  readonly fd: number;
  readonly bytes: number;
  readonly output: Uint8Array<SharedArrayBuffer>;
  readonly options: HashOptions;
}

/** Runs the jobs of one file to the end of all: the first failure or the signal stops them, and `fd` is free afterwards. */
async function runJobs(pool: Piscina, { path, jobs, fd, bytes, output, options }: Run): Promise<void> {
  const { algorithm, signal, onProgress } = options;
  const control = new Int32Array(new SharedArrayBuffer(4 * Object.keys(slots).length));
  const stop = () => {
    Atomics.store(control, slots.stop, 1);
  };
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  let running = true;
  const job: HashJob = { algorithm, path, fd, bytes, control, output };
  const reports = Array.from({ length: jobs }, () =>
    (pool.run(job) as Promise<ErrorReport | undefined>).then(
      (report) => {
        if (report !== undefined) stop();
        return report && errorOf(report);
      },
      (cause) => {
        stop();
        return new BedplateError("worker.died", `A worker that hashed ${path} died.`, { cause });
      },
    ),
  );
  const followed = onProgress && followProgress({ control, bytes, onProgress, running: () => running });
  const errors = (await Promise.all(reports)).filter((error) => error !== undefined);
  running = false;
  Atomics.notify(control, slots.done);
  signal.removeEventListener("abort", stop);
  await followed;
  if (signal.aborted) throw aborted(signal.reason);
  if (errors.length > 0) throw errors[0];
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
