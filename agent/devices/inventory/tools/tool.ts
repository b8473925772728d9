// What an optional program is to the inventory: run with an argument list and a time limit, its absence a reported reason.
import type { ToolReport } from "../../../../protocol/inventory.ts";
import type { Clock } from "../../../host/clock.ts";
import type { Processes } from "../../../host/processes.ts";
import { cleanLine } from "../../facts.ts";
import { rounded } from "../collect.ts";

export interface ToolHost {
  readonly processes: Processes;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** One program, asked any number of times; its report tells the worst that happened. */
export interface Tool {
  /** What it printed, or null. `accepts` says which exit codes are no failure. */
  ask(argv: readonly string[], accepts?: (exitCode: number) => boolean): Promise<string | null>;
  report(): ToolReport;
}

const onceMs = 10_000;
const allMs = 30_000;
const outputBytesMax = 256 * 1024;

export function createTool(name: string, { processes, clock, signal }: ToolHost): Tool {
  let state: ToolReport["state"] = "not-needed";
  let reason: string | null = null;
  let ms = 0;
  const fail = (why: string) => {
    if (state !== "missing") state = "failed";
    reason ??= cleanLine(why, 256);
    return null;
  };
  return {
    async ask(argv, accepts = (exitCode) => exitCode === 0) {
      // Told once; asking again makes it no more present.
      if (state === "missing") return null;
      if (ms >= allMs) return fail(`not asked again after ${allMs / 1000} s`);
      const started = clock.monotonic();
      const late = new Error(`${name} did not end within ${onceMs / 1000} s`);
      using deadline = clock.deadline(Math.min(onceMs, allMs - ms), signal, late);
      try {
        const end = await processes.run([name, ...argv], { signal: deadline, outputBytesMax });
        if (end === "missing") {
          state = "missing";
          reason = `${name} is not installed`;
          return null;
        }
        if (end.exitCode === null || !accepts(end.exitCode))
          return fail(`exit code ${end.exitCode}: ${end.errors.trim() || end.output.trim()}`);
        if (state === "not-needed") state = "used";
        return end.output;
      } catch (error) {
        signal.throwIfAborted();
        return fail(error instanceof Error ? error.message : String(error));
      } finally {
        ms += clock.monotonic() - started;
      }
    },
    report: () => ({ tool: name, state, reason, ms: rounded(ms) }),
  };
}

/** A member of parsed JSON, however deep; undefined where the way there ends. */
export function member(value: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>(
    (at, key) =>
      typeof at === "object" && at !== null && Object.hasOwn(at, key)
        ? (at as Record<string | number, unknown>)[key]
        : undefined,
    value,
  );
}

export function lineAt(value: unknown, ...path: readonly (string | number)[]): string | null {
  const found = member(value, ...path);
  if (typeof found !== "string" && typeof found !== "number") return null;
  return cleanLine(`${found}`, 256) || null;
}

/** A whole number from 0 on. */
export function countAt(value: unknown, ...path: readonly (string | number)[]): number | null {
  const found = member(value, ...path);
  const number = typeof found === "string" && /^\d{1,15}$/.test(found) ? Number(found) : found;
  return typeof number === "number" && Number.isSafeInteger(number) && number >= 0 ? number : null;
}

/** Undefined when it is no JSON. */
export function parsed(text: string | null): unknown {
  try {
    return text === null ? undefined : (JSON.parse(text) as unknown);
  } catch {
    return undefined;
  }
}
