// Real processes of the built program, as benches and end-to-end suites start, watch and end them.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const node = process.execPath;
export const builtProgram = fileURLToPath(new URL("../dist/bedplate.js", import.meta.url));
export const builtExecutor = fileURLToPath(new URL("../dist/executor.js", import.meta.url));

export interface Program extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly alive: boolean;
  /** How it ended: a signal's name or `exit code N`. */
  readonly ended: Promise<string>;
  /** All that it wrote so far, standard output and error. */
  log(): string;
  kill(signal: NodeJS.Signals): void;
}

export interface ProgramOptions {
  readonly argv: readonly string[];
  readonly logFile: string;
  readonly environment?: Readonly<Record<string, string>>;
}

/** Nothing of the caller's environment reaches a program: a `NODE_OPTIONS` there would be measured here. */
const plainEnvironment = { PATH: process.env.PATH ?? "/usr/bin:/bin", HOME: "/nonexistent" } as const;

const stopMs = 10_000;

/** In a process group of its own. Disposed of, it is told to stop, and killed when it does not. */
export function startProgram({ argv, logFile, environment }: ProgramOptions): Program {
  const log = openSync(logFile, "a", 0o600);
  const [program, ...rest] = argv;
  const child = spawn(program!, rest, {
    detached: true,
    cwd: "/",
    stdio: ["ignore", log, log],
    env: { ...plainEnvironment, TMPDIR: tmpdir(), ...environment },
  });
  closeSync(log);
  const ended = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  const alive = () => child.pid !== undefined && child.exitCode === null && child.signalCode === null;
  return {
    child,
    pid: child.pid ?? -1,
    ended,
    get alive() {
      return alive();
    },
    log: () => readFileSync(logFile, "utf8"),
    kill: (signal) => void child.kill(signal),
    async [Symbol.asyncDispose]() {
      if (!alive()) return;
      child.kill("SIGTERM");
      await Promise.race([ended, sleep(stopMs)]);
      child.kill("SIGKILL");
      await ended;
    },
  };
}

export interface Memory {
  readonly residentKib: number;
  /** What is not a page of some file. */
  readonly anonymousKib: number;
}

export function memoryOf(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]);
  return { residentKib: field("VmRSS"), anonymousKib: field("RssAnon") };
}

/** USER_HZ, which Linux shows to programs whatever it is within. */
const ticksPerSecond = 100;

/** Processor time that a process has used, all its threads, in seconds: fields 14 and 15 of proc(5)'s stat. */
export function processorSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  // The name between the brackets may hold anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** Polls until `what` gives a value; fails with what `tell` says. */
export async function eventually<T>(
  timeoutMs: number,
  what: () => T | undefined | false | Promise<T | undefined | false>,
  tell: () => string = () => what.toString(),
): Promise<T> {
  const until = performance.now() + timeoutMs;
  for (;;) {
    const value = await what();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > until) throw new Error(`not within ${timeoutMs} ms: ${tell()}`);
    await sleep(50);
  }
}
