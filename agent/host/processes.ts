// Programs as the executor sees them: started with an argument list and a clean environment, never through a shell.
import { spawn } from "node:child_process";

export interface ProcessOptions {
  readonly signal: AbortSignal;
  /** The child gets this open file as its descriptor 3. */
  readonly descriptor3?: number;
  /** Of each of standard output and error; what follows is dropped. Default 64 KiB. */
  readonly outputBytesMax?: number;
}

export interface ProcessEnd {
  /** Null when a signal ended it. */
  readonly exitCode: number | null;
  readonly output: string;
  readonly errors: string;
}

export interface Processes {
  /** Runs to the end. "missing" when there is no such program. @throws the signal's reason, node's own error */
  run(argv: readonly [string, ...string[]], options: ProcessOptions): Promise<ProcessEnd | "missing">;
}

/**
 * All that a child inherits: no NODE_OPTIONS, no LD_PRELOAD, no locale of the caller's. The last two are glibc's: buffers
 * of a MiB go back to the system when they are freed, whichever thread took them (15 MB less for an executor).
 */
export const cleanEnvironment = {
  PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
  LANG: "C.UTF-8",
  LC_ALL: "C.UTF-8",
  MALLOC_ARENA_MAX: "2",
  MALLOC_MMAP_THRESHOLD_: "131072",
} as const;

export const systemProcesses: Processes = {
  run([program, ...rest], { signal, descriptor3, outputBytesMax = 65_536 }) {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<ProcessEnd | "missing">();
    const child = spawn(program, rest, {
      env: cleanEnvironment,
      cwd: "/",
      stdio: ["ignore", "pipe", "pipe", ...(descriptor3 === undefined ? [] : [descriptor3])],
      signal,
      killSignal: "SIGKILL",
    });
    const output = collect(child.stdout!, outputBytesMax);
    const errors = collect(child.stderr!, outputBytesMax);
    child.on("error", (error: NodeJS.ErrnoException) => {
      if (signal.aborted) reject(signal.reason);
      else if (error.code === "ENOENT") resolve("missing");
      else reject(error);
    });
    child.on("close", (exitCode) => resolve({ exitCode, output: output(), errors: errors() }));
    return promise;
  },
};

function collect(stream: NodeJS.ReadableStream, bytesMax: number): () => string {
  const pieces: Buffer[] = [];
  let length = 0;
  stream.on("data", (piece: Buffer) => {
    if (length < bytesMax) pieces.push(piece.subarray(0, bytesMax - length));
    length += piece.length;
  });
  return () => Buffer.concat(pieces).toString("utf8");
}
