// One run of one operation: its handler, its limits, cancels, progress, and the result that is journalled before it is told.
import type { Command, Outcome, Result } from "../../protocol/commands.ts";
import { BedplateError, type ErrorReport, reportOf } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import type { CommandContext, CommandEnd, ExecutorKind } from "../commands/command.ts";
import { commands } from "../commands/index.ts";
import type { Clock } from "../host/clock.ts";
import type { CancelAnswer, Followers } from "./followers.ts";
import type { Journal } from "./journal.ts";
import { createProgressMeter } from "./progress.ts";

export type ExecutorCommand = Extract<Command, { kind: ExecutorKind }>;

export interface OperationOptions {
  readonly command: ExecutorCommand;
  readonly journal: Journal;
  readonly followers: Followers;
  readonly clock: Clock;
  /** Aborts when the process is to stop: the operation stops at a safe point and stays to be resumed. */
  readonly stopping: AbortSignal;
  /** Resolves when the operation may begin: it has the lane it needs. What it throws is the operation's failure. */
  readonly ready: (signal: AbortSignal) => Promise<void>;
  /** Told of each phase as it begins, and of the point of no return before it is passed: durable when it returns. */
  readonly onStep?: (step: { readonly name: string; readonly noReturn?: string }) => void;
  /** What becomes of a handler's end before it is the operation's result: a plan is signed there. */
  readonly finish?: (end: CommandEnd) => Promise<CommandEnd>;
  readonly context: Omit<CommandContext, "run" | "phase" | "pointOfNoReturn">;
}

export interface Operation {
  cancel(reason: string): CancelAnswer;
  /** To the end of the run: the result is in the journal, or nothing more is and it can be resumed. */
  run(): Promise<"ended" | "interrupted">;
}

const tickMs = 1000;
const textMax = 4096;

export function createOperation(options: OperationOptions): Operation {
  const { command, journal, followers, clock, stopping, context } = options;
  const { runForSeconds, stallAfterSeconds } = command.limits;
  const controller = new AbortController();
  const { signal } = controller;
  const interruption = new BedplateError(
    "executor.lost",
    "The executor was told to stop; the operation will be resumed.",
  );
  let tooLate: string | undefined;
  const stop = (why: Error) => controller.abort(why);

  const runHandler = async (run: number): Promise<CommandEnd> => {
    const meter = createProgressMeter(() => clock.monotonic());
    const startedMs = clock.monotonic();
    const tick = () => {
      const progress = meter.sample();
      if (progress !== undefined) followers.publish({ type: "progress", progress });
      const now = clock.monotonic();
      if (runForSeconds !== undefined && now - startedMs > runForSeconds * 1000) {
        stop(
          new BedplateError(
            "command.timed-out",
            `The operation ran longer than its limit of ${runForSeconds} s.`,
          ),
        );
      } else if (stallAfterSeconds !== undefined && now - meter.movedAtMs() > stallAfterSeconds * 1000) {
        stop(
          new BedplateError("command.stalled", `Nothing moved for ${stallAfterSeconds} s.`, {
            details: { progress },
          }),
        );
      }
    };
    const ended = new AbortController();
    const ticking = repeat(clock, ended.signal, tick);
    try {
      // Each kind's handler takes its own command; which one that is, the index has checked.
      const handler = commands[command.kind] as {
        run(command: Command, context: CommandContext, signal: AbortSignal): Promise<CommandEnd>;
      };
      const end = await handler.run(
        command,
        {
          ...context,
          run,
          phase(phase) {
            meter.begin(phase);
            tick();
            options.onStep?.({ name: phase.name });
          },
          pointOfNoReturn(why) {
            signal.throwIfAborted();
            options.onStep?.({ name: "point-of-no-return", noReturn: why });
            tooLate = why;
          },
        },
        signal,
      );
      return options.finish === undefined ? end : await options.finish(end);
    } finally {
      ended.abort();
      await ticking;
    }
  };

  return {
    cancel(reason) {
      if (tooLate !== undefined) return { answer: "too-late", reason: tooLate };
      stop(
        new BedplateError(
          "command.cancelled",
          reason === "" ? "The operation was cancelled." : `The operation was cancelled: ${reason}`,
        ),
      );
      return { answer: "cancelling", reason: "it stops at the next safe point" };
    },
    async run() {
      const interrupt = () => stop(interruption);
      stopping.addEventListener("abort", interrupt, { once: true });
      if (stopping.aborted) interrupt();
      let startedAt = clock.now();
      let end: CommandEnd & { readonly outcome: Outcome };
      try {
        await options.ready(signal);
        startedAt = clock.now();
        const started = journal.startRun(command.id, startedAt);
        followers.publish(started);
        const done = await runHandler(started.type === "running" ? started.run : 1);
        end = { ...done, outcome: done.error === undefined ? "succeeded" : "failed" };
      } catch (error) {
        const ending = endingOf(error, signal);
        if (ending.error === interruption || ending.error.cause === interruption) return "interrupted";
        end = { output: undefined, ...ending };
      } finally {
        stopping.removeEventListener("abort", interrupt);
        tooLate ??= "the operation has ended";
      }
      const at = clock.now();
      const result = resultOf(end, startedAt, at);
      followers.publish(journal.finish(command.id, { type: "result", at, result }));
      return "ended";
    },
  };
}

/** What a run that threw means: an abort is told by its reason, unless something else went wrong first. */
function endingOf(error: unknown, signal: AbortSignal): { readonly outcome: Outcome; readonly error: Error } {
  const thrown = error instanceof Error ? error : new Error(String(error));
  if (!signal.aborted) {
    const late = thrown instanceof BedplateError && thrown.code === "command.expired";
    return { outcome: late ? "timed-out" : "failed", error: thrown };
  }
  const reason = signal.reason as BedplateError;
  if (thrown instanceof BedplateError && thrown.code !== reason.code)
    return { outcome: "failed", error: thrown };
  return {
    outcome: reason.code === "command.cancelled" ? "cancelled" : "timed-out",
    // A handler may have added what state it leaves behind.
    error: thrown instanceof BedplateError ? thrown : reason,
  };
}

function resultOf(
  end: CommandEnd & { readonly outcome: Outcome },
  startedAt: number,
  endedAt: number,
): Result {
  const result: Result = {
    outcome: end.outcome,
    startedAt,
    endedAt,
    ...(end.output === undefined ? {} : { output: end.output }),
    ...(end.error === undefined ? {} : { error: boundedReport(end.error) }),
  };
  if (JSON.stringify(result).length <= limits.resultBytesMax) return result;
  return {
    outcome: "failed",
    startedAt,
    endedAt,
    error: {
      code: "internal",
      message: `The operation ${end.outcome}, but its result is larger than ${limits.resultBytesMax} bytes.`,
    },
  };
}

/** An error's report within the bounds of the wire. */
export function boundedReport(error: unknown): ErrorReport {
  const report = reportOf(error);
  const small = JSON.stringify(report.details ?? {}).length <= limits.resultBytesMax / 2;
  return {
    code: report.code,
    message: report.message.slice(0, textMax),
    ...(report.hint === undefined ? {} : { hint: report.hint.slice(0, textMax) }),
    ...(report.details === undefined || !small ? {} : { details: report.details }),
  };
}

async function repeat(clock: Clock, ended: AbortSignal, tick: () => void): Promise<void> {
  for (;;) {
    try {
      await clock.sleep(tickMs, ended);
    } catch {
      return;
    }
    tick();
  }
}
