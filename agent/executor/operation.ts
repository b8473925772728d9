// One run of one operation: its handler, its limits, cancels, progress, and the result that is journalled before it is told.
import { type Command, effectOf, type Outcome, type Result } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import { boundedReport } from "../../protocol/schema.ts";
import type { CommandContext, CommandEnd, ExecutorKind, Command as Handler } from "../commands/command.ts";
import type { Clock } from "../host/clock.ts";
import { createPause } from "../host/pause.ts";
import type { CancelAnswer, Followers } from "./followers.ts";
import type { Journal } from "./journal.ts";
import { linkDuty } from "./link-duty.ts";
import { createProgressMeter } from "./progress.ts";

export type ExecutorCommand = Extract<Command, { kind: ExecutorKind }>;

export interface OperationOptions {
  readonly command: ExecutorCommand;
  /** Of the command's kind. */
  readonly handler: Handler<ExecutorKind>;
  readonly journal: Journal;
  readonly followers: Followers;
  readonly clock: Clock;
  /** Aborts when the process is to stop: the operation stops at a safe point and stays to be resumed. */
  readonly stopping: AbortSignal;
  /** An earlier run passed the point of no return: no cancel and no lost link stops this one either. */
  readonly noReturn: boolean;
  /** An earlier run was paused by an operator, and nobody has said since that it goes on. */
  readonly paused?: boolean;
  /** Resolves when the operation may begin: it has the lane it needs. What it throws is the operation's failure. */
  readonly ready: (signal: AbortSignal) => Promise<void>;
  /** Asked last before it begins, however long it was paused: what it throws is the operation's failure. */
  readonly mayGoOn?: () => Promise<void>;
  /** Told of each phase as it begins, and of the point of no return before it is passed: durable when it returns. */
  readonly onStep?: (step: {
    readonly name: string;
    readonly noReturn?: string;
    readonly at?: string;
    readonly notes?: { readonly [name: string]: Uint8Array };
  }) => void;
  /** What becomes of a handler's end before it is the operation's result: a plan is signed there. */
  readonly finish?: (end: CommandEnd) => Promise<CommandEnd>;
  readonly context: Omit<CommandContext, "run" | "phase" | "pause" | "pointOfNoReturn">;
}

export interface Operation {
  cancel(reason: string): CancelAnswer;
  /** What an operator says; of no effect past the point of no return. */
  pause(paused: boolean): void;
  /** To the end of the run: the result is in the journal, or nothing more is and it can be resumed. */
  run(): Promise<"ended" | "interrupted">;
}

const tickMs = 1000;
/** Of an operation that is paused before its first phase. */
const notBegun = { phase: "prepare", done: 0, total: 0, unit: "items" } as const;

export function createOperation(options: OperationOptions): Operation {
  const { command, handler, journal, followers, clock, stopping, context } = options;
  const { stallAfterSeconds, onLinkLost } = command.limits;
  const runForSeconds = command.limits.runForSeconds ?? handler.runForSeconds;
  const controller = new AbortController();
  const { signal } = controller;
  const interruption = new BedplateError(
    "executor.lost",
    "The executor was told to stop before the operation had ended.",
  );
  let tooLate = options.noReturn ? "an earlier run of it passed the point of no return" : undefined;
  /** By this run: then nothing but the process's own end stops it. Until then its limits do, also where an earlier one had. */
  let passed = false;
  const stop = (why: Error) => {
    if (!passed) controller.abort(why);
  };
  const pause = createPause(signal);
  let asked = options.paused ?? false;
  const meter = createProgressMeter(() => clock.monotonic());
  /** When the handler began, by the monotonic clock. */
  let begunMs: number | undefined;
  let linkUpMs = clock.monotonic();

  const watchLink = (nowMs: number) => {
    if (followers.linkUp()) linkUpMs = nowMs;
    const duty = tooLate === undefined ? linkDuty(onLinkLost, { nowMs, upAtMs: linkUpMs }) : "go-on";
    pause.set(duty === "pause" || (asked && tooLate === undefined));
    if (duty === "abort") {
      stop(
        new BedplateError(
          "command.link-lost",
          "The host has lost its link, and the command says to stop then.",
        ),
      );
    }
  };
  const watchLimits = (nowMs: number) => {
    if (begunMs === undefined) return;
    if (runForSeconds !== undefined && nowMs - begunMs > runForSeconds * 1000) {
      stop(
        new BedplateError(
          "command.timed-out",
          `The operation ran longer than its limit of ${runForSeconds} s.`,
        ),
      );
    } else if (stallAfterSeconds !== undefined && nowMs - meter.movedAtMs() > stallAfterSeconds * 1000) {
      stop(
        new BedplateError("command.stalled", `Nothing moved for ${stallAfterSeconds} s.`, {
          details: { progress: meter.sample() },
        }),
      );
    }
  };
  const tick = () => {
    const nowMs = clock.monotonic();
    watchLink(nowMs);
    const progress = meter.sample();
    if (pause.paused) meter.hold();
    if (pause.paused) {
      const told = { ...(progress ?? notBegun), paused: true, rate: 0, secondsLeft: null };
      followers.publish({ type: "progress", progress: told });
    } else if (progress !== undefined) followers.publish({ type: "progress", progress });
    watchLimits(nowMs);
  };

  const runHandler = async (run: number): Promise<CommandEnd> => {
    begunMs = clock.monotonic();
    meter.hold();
    const end = await handler.run(
      command,
      {
        ...context,
        run,
        phase(phase) {
          meter.begin(phase);
          tick();
          options.onStep?.({ name: phase.name, ...(phase.at === undefined ? {} : { at: phase.at.name }) });
        },
        pause,
        pointOfNoReturn(why, notes) {
          signal.throwIfAborted();
          const kept = notes === undefined ? {} : { notes };
          options.onStep?.({ name: "point-of-no-return", noReturn: why, ...kept });
          tooLate = why;
          passed = true;
          pause.set(false);
        },
      },
      signal,
    );
    return options.finish === undefined ? end : await options.finish(end);
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
      const reasonNow =
        begunMs === undefined ? "it has not begun, and will not" : "it stops at the next safe point";
      return { answer: "cancelling", reason: reasonNow };
    },
    pause(paused) {
      asked = paused;
      tick();
    },
    async run() {
      const interrupt = () => controller.abort(interruption);
      stopping.addEventListener("abort", interrupt, { once: true });
      if (stopping.aborted) interrupt();
      linkUpMs = clock.monotonic();
      pause.set(asked && tooLate === undefined);
      const ended = new AbortController();
      const ticking = repeat(clock, ended.signal, tick);
      let startedAt = clock.now();
      let end: CommandEnd & { readonly outcome: Outcome };
      try {
        await options.ready(signal);
        do {
          await pause.safePoint();
          await options.mayGoOn?.();
          signal.throwIfAborted();
        } while (pause.paused);
        startedAt = clock.now();
        const started = journal.startRun(command.id, startedAt);
        followers.publish(started);
        const done = await runHandler(started.type === "running" ? started.run : 1);
        end =
          done.error === undefined
            ? { ...done, outcome: "succeeded" }
            : { ...done, ...endingOf(done.error, signal) };
      } catch (error) {
        end = { output: undefined, ...endingOf(error, signal) };
      } finally {
        stopping.removeEventListener("abort", interrupt);
        ended.abort();
        await ticking;
        passed = true;
        tooLate ??= "the operation has ended";
      }
      if (signal.reason === interruption && isLost(end.error)) {
        if (begunMs === undefined || effectOf(command) !== "once") return "interrupted";
        end = { ...end, outcome: "indeterminate", error: cutOff(end.error) };
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
  const asked = reason.code === "command.cancelled" || reason.code === "command.link-lost";
  return {
    outcome: asked ? "cancelled" : "timed-out",
    // A handler may have added what state it leaves behind.
    error: thrown instanceof BedplateError ? thrown : reason,
  };
}

function isLost(error: Error | undefined): error is BedplateError {
  return error instanceof BedplateError && error.code === "executor.lost";
}

/** What must not be repeated is over, when its executor is told to stop. */
function cutOff(cause: BedplateError): BedplateError {
  return new BedplateError(
    "command.indeterminate",
    "The executor was told to stop, so the operation was cut off; it must not be repeated, and how far it came is not known.",
    { ...(cause.details === undefined ? {} : { details: cause.details }), cause },
  );
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
  // Bytes, not characters: whoever reads it closes at a line that is too long, and would again.
  if (Buffer.byteLength(JSON.stringify(result)) <= limits.resultBytesMax) return result;
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
