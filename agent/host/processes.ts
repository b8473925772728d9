// Programs as the executor sees them: started with an argument list and a clean environment, never through a shell.
import { type ChildProcess, spawn } from "node:child_process";
import { assert } from "../../protocol/errors.ts";
import { type Cgroup, openCgroup } from "./cgroup.ts";
import { closeWriteEnds, openPipes } from "./pipes.ts";

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

export interface StartOptions {
  readonly directory: string;
  /** All of it: nothing is added. */
  readonly environment: Readonly<Record<string, string>>;
  /** Each piece as it is read, in that order. Valid until it returns. */
  readonly onOutput: (stream: "stdout" | "stderr", bytes: Uint8Array) => void;
  /** What it runs in from its first instruction on. */
  readonly cgroup?: Cgroup | undefined;
}

/** A program in a session and process group of its own, whose number is `pid`. */
export interface StartedProcess {
  readonly pid: number;
  /** The program itself has ended; what it started may live and print on. */
  readonly exited: Promise<{ readonly exitCode: number | null; readonly signal: string | null }>;
  /** All output has come: nobody has it open any more. */
  readonly closed: Promise<void>;
  /** Takes no more output. */
  release(): void;
}

export interface Processes {
  /** Runs to the end. "missing" when there is no such program. @throws the signal's reason, node's own error */
  run(argv: readonly [string, ...string[]], options: ProcessOptions): Promise<ProcessEnd | "missing">;
  /** Standard input is empty. @throws node's own error */
  start(argv: readonly [string, ...string[]], options: StartOptions): Promise<StartedProcess>;
  /** Signals a process, or with its number negated every process of a group at once. "refused": another user's. */
  signal(target: number, signal: NodeJS.Signals): "sent" | "gone" | "refused";
  /** `known`: the directory of an existing one. */
  cgroup(name: string, mode: "make" | "existing", known?: string): Cgroup | undefined;
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
  async start([program, ...rest], { directory, environment, onOutput, cgroup }) {
    const pipes = await openPipes(outputStreams.length, cleanEnvironment);
    // What a program writes is for whom it decides: not the executor's own umask.
    const before = process.umask(usualUmask);
    let child: ChildProcess;
    try {
      const spawned = () =>
        spawn(program, rest, {
          env: environment,
          cwd: directory,
          detached: true,
          stdio: ["ignore", ...(pipes?.map(({ writeEnd }) => writeEnd) ?? (["pipe", "pipe"] as const))],
        });
      child = cgroup === undefined ? spawned() : cgroup.enter(spawned);
    } finally {
      process.umask(before);
      if (pipes !== undefined) closeWriteEnds(pipes);
    }
    const readables = pipes?.map(({ readable }) => readable) ?? [child.stdout!, child.stderr!];
    const exited = Promise.withResolvers<Awaited<StartedProcess["exited"]>>();
    child.on("exit", (exitCode, signal) => exited.resolve({ exitCode, signal }));
    const closed = readables.map((readable, index) => {
      readable.on("error", () => {});
      readable.on("data", (bytes: Buffer) => {
        onOutput(outputStreams[index]!, bytes);
        giveBack(bytes);
      });
      return new Promise<void>((resolve) => readable.once("close", () => resolve()));
    });
    const release = () => {
      for (const readable of readables) readable.destroy();
    };
    try {
      await new Promise<void>((resolve, reject) => {
        child.once("spawn", resolve);
        child.once("error", reject);
      });
    } catch (error) {
      release();
      throw error;
    }
    child.on("error", () => {});
    return { pid: child.pid!, exited: exited.promise, closed: Promise.all(closed).then(() => {}), release };
  },
  cgroup: openCgroup,
  signal(target, signal) {
    // 0, 1 and -1 would be this process's own group, the first of all processes, or everybody.
    assert(Number.isSafeInteger(target) && Math.abs(target) > 1, "what a started program made");
    try {
      process.kill(target, signal);
      return "sent";
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ESRCH") return "gone";
      if (code === "EPERM") return "refused";
      throw error;
    }
  },
};

const outputStreams = ["stdout", "stderr"] as const;
const usualUmask = 0o022;

/** Frees a buffer's memory now, not when the collector comes, where it is the buffer's alone. */
function giveBack(bytes: Buffer): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === bytes.length) buffer.transfer(0);
}

function collect(stream: NodeJS.ReadableStream, bytesMax: number): () => string {
  const pieces: Buffer[] = [];
  let length = 0;
  stream.on("data", (piece: Buffer) => {
    if (length < bytesMax) pieces.push(piece.subarray(0, bytesMax - length));
    length += piece.length;
  });
  return () => Buffer.concat(pieces).toString("utf8");
}
