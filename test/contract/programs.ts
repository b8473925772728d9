// Real processes of the built program for the contract's suites: started, watched, ended by signals, and cleaned up.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const node = process.execPath;
export const builtProgram = fileURLToPath(new URL("../../dist/bedplate.js", import.meta.url));
export const builtExecutor = fileURLToPath(new URL("../../dist/executor.js", import.meta.url));

export interface Program extends AsyncDisposable {
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
  readonly stdin?: "ignore" | "pipe";
}

/** Nothing of the test runner's environment reaches a program: a `NODE_OPTIONS` there would be measured here. */
export const plainEnvironment = { PATH: process.env.PATH ?? "/usr/bin:/bin", HOME: "/nonexistent" } as const;

const stopMs = 10_000;

/** In a process group of its own. Disposed of, it is told to stop, and killed when it does not. */
export function startProgram({
  argv,
  logFile,
  environment,
}: ProgramOptions): Program & { readonly child: ChildProcess } {
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

export interface Directory extends AsyncDisposable {
  readonly path: string;
}

/** A temporary directory. Whatever still runs with something of it mounted is killed before it goes. */
export async function openDirectory(name: string): Promise<Directory> {
  const path = await mkdtemp(join(tmpdir(), `bedplate-${name}-`));
  return {
    path,
    async [Symbol.asyncDispose]() {
      for (const pid of mountedUnder(path)) killIfAlive(pid);
      await rm(path, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** Processes that see a directory under `path` mounted somewhere: the host's own agent and executors. */
export function mountedUnder(path: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/mountinfo`, "utf8").includes(`${path.replace(/^\/tmp/, "")}/`);
      } catch {
        return false;
      }
    })
    .map(Number);
}

export function killIfAlive(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended by itself.
  }
}

export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

export function hasProgram(...names: readonly string[]): boolean {
  return names.every((name) => spawnSync("sh", ["-c", `command -v ${name}`]).status === 0);
}

/** Resident memory of a process, in KiB, by field of its smaps_rollup or status. */
export function memoryOf(pid: number): { readonly residentKib: number; readonly anonymousKib: number } {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]);
  return { residentKib: field("VmRSS"), anonymousKib: field("RssAnon") };
}

/** Polls until `what` holds; fails with the last thing it said. */
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
