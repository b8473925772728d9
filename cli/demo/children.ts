// The demo's controller and agent: real processes of this very program, with a log each, ended with the demo.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { entryUrl } from "../../assembly/built.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { deadline } from "../clock.ts";

export interface Child extends AsyncDisposable {
  readonly pid: number;
  /** Rejects when the process ends, with the end of its log: to race against what needs it alive. */
  readonly died: Promise<never>;
}

export interface ChildOptions {
  /** For messages. */
  readonly name: string;
  readonly argv: readonly [string, ...string[]];
  readonly logFile: string;
  /** Runs as this user and group. */
  readonly uid?: number;
  readonly home: string;
  /** Called with each line of standard output, which else goes to the log. */
  readonly onLine?: (line: string) => void;
}

/** How to start this program: the same Node, the same sources or bundle. */
export function programArguments(): [string, string] {
  return [process.execPath, fileURLToPath(entryUrl("cli/bedplate.ts"))];
}

const stopMs = 5000;

/** In a process group of its own: an interrupt from the terminal reaches the demo alone, which then ends in order. */
export function startChild({ name, argv, logFile, uid, home, onLine }: ChildOptions): Child {
  const log = openSync(logFile, "a", 0o600);
  const [program, ...rest] = argv;
  const child = spawn(program, rest, {
    detached: true,
    stdio: ["ignore", onLine === undefined ? log : "pipe", log],
    env: {
      PATH: process.env.PATH ?? "/usr/bin:/bin",
      HOME: home,
      TMPDIR: home,
      NODE_DISABLE_COMPILE_CACHE: "1",
    },
    cwd: "/",
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  closeSync(log);
  if (child.stdout !== null && onLine !== undefined)
    createInterface({ input: child.stdout }).on("line", onLine);
  const ended = endOf(child);
  const died = ended.then((how) => {
    throw new BedplateError("demo.failed", `The demo's ${name} ended (${how}): ${tailOf(logFile)}`);
  });
  died.catch(() => {});
  return {
    pid: child.pid ?? -1,
    died,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGTERM");
      using patience = deadline(stopMs, new Error("too slow"));
      const slow = Promise.withResolvers<void>();
      patience.signal.addEventListener("abort", () => slow.resolve(), { once: true });
      await Promise.race([ended, slow.promise]);
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
      await ended;
    },
  };
}

function endOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
}

export function tailOf(logFile: string): string {
  try {
    return readFileSync(logFile, "utf8").trim().split("\n").slice(-4).join(" | ").slice(-1500);
  } catch {
    return "no log";
  }
}
