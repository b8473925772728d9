// `bedplate` as a user meets it: a process of its own with a home of its own, its exit code, stdout and stderr.
import { type ChildProcess, spawn } from "node:child_process";
import { expect } from "vitest";
import { programPath } from "./programs.ts";

export const bedplateProgram = programPath("bedplate");

export interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What `--json` prints of an error. */
export interface Failure {
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly hint?: string;
    readonly details?: Readonly<Record<string, unknown>>;
  };
}

export interface CommandLine {
  start(argv: readonly string[]): { readonly child: ChildProcess; readonly ended: Promise<Run> };
  run(...argv: string[]): Promise<Run>;
  /** With `--json`: its document, when it ended with `code`. */
  json<T>(code: number, ...argv: string[]): Promise<T>;
  /** The code of its error, and its exit code. */
  refusal(...argv: string[]): Promise<readonly [number | null, string]>;
}

/** `environment`: all that it gets but PATH. `program`: the bundle of these sources unless given. */
export function commandLine(
  environment: Readonly<Record<string, string>>,
  program = bedplateProgram,
): CommandLine {
  const start: CommandLine["start"] = (argv) => {
    const child = spawn(process.execPath, [program, ...argv], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { PATH: process.env.PATH, NODE_DISABLE_COMPILE_CACHE: "1", ...environment },
    });
    let [stdout, stderr] = ["", ""];
    child.stdout!.on("data", (chunk: Buffer) => {
      stdout += chunk;
    });
    child.stderr!.on("data", (chunk: Buffer) => {
      stderr += chunk;
    });
    const ended = new Promise<Run>((resolve) =>
      child.once("close", (code) => resolve({ code, stdout, stderr })),
    );
    return { child, ended };
  };
  const run: CommandLine["run"] = (...argv) => start(argv).ended;
  // What stands after -- is the program's.
  const asJson = (argv: string[]) => ["--json", ...argv];
  return {
    start,
    run,
    async json<T>(code: number, ...argv: string[]) {
      const ended = await run(...asJson(argv));
      expect(ended.code, `${argv.join(" ")}: ${ended.stdout}${ended.stderr}`).toBe(code);
      return JSON.parse(ended.stdout) as T;
    },
    async refusal(...argv) {
      const { code, stdout, stderr } = await run(...asJson(argv));
      expect(stdout, `${argv.join(" ")}: ${stderr}`).toMatch(/^\{/);
      const { error } = JSON.parse(stdout) as Partial<Failure>;
      return [code, error?.code ?? `no error: ${stdout}`];
    },
  };
}
