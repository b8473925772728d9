// The life of a command as the controller sees it, pure: (state, event) → state. A simulator drives this very function.
import { isTerminal, type OperationState, operationStates, type Result } from "../../protocol/commands.ts";
import { BedplateError, reportOf } from "../../protocol/errors.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { retention } from "./retention.ts";

/** What the host said to the controller's cancel; the result says what came of it. */
export interface CancelAnswer {
  readonly answer: "cancelling" | "too-late";
  readonly reason: string;
  readonly at: number;
}

export interface PauseRequest {
  readonly paused: boolean;
  readonly at: number;
}

/** What changes of a command; its document never does. */
export interface CommandState {
  readonly state: OperationState;
  readonly updatedAt: number;
  readonly cancelRequestedAt: number | null;
  /** The last one; it may come after the end. */
  readonly cancelAnswer: CancelAnswer | null;
  /** What an operator said last; null: nothing. It holds until the end. */
  readonly pause: PauseRequest | null;
  /** The highest run that the executor told of. */
  readonly runs: number;
  /** Set in every terminal state and in no other. */
  readonly result: Result | null;
  /** This controller was set back to when it waited: its host may have been sent it since then, and may have ended it. */
  readonly setBack?: boolean;
  readonly history: readonly { readonly state: OperationState; readonly at: number }[];
}

/** What a host says about a command, and what happens to it on this side. */
export type CommandEvent =
  | Exclude<Extract<RecordBody, { command: string }>, { type: "output" }>
  | { readonly type: "offered" }
  | { readonly type: "ask-cancel" }
  | { readonly type: "ask-pause"; readonly paused: boolean }
  /** Its own time to start has passed. `missing`: the signatures that it still waited for. */
  | { readonly type: "expire"; readonly missing: number }
  /** It has waited for longer than any command may, see `retention.waitedMs`. */
  | { readonly type: "waited-out"; readonly missing: number }
  /** The host's key is revoked: nothing more will be heard of it. */
  | { readonly type: "revoke" };

/** Entries kept of one history: the first ones and the newest. */
export const historyMax = 64;

export function newCommandState(at: number): CommandState {
  return {
    state: "waiting",
    updatedAt: at,
    cancelRequestedAt: null,
    cancelAnswer: null,
    pause: null,
    runs: 0,
    result: null,
    history: [{ state: "waiting", at }],
  };
}

/**
 * The state after `event`, told at `at` by the controller's clock; the same object when nothing changes. States only go
 * forward: a record that comes late, twice or out of order does no harm, and a terminal state never changes.
 */
export function reduceCommand(before: CommandState, event: CommandEvent, at: number): CommandState {
  if (event.type === "cancel") return answered(before, event, at);
  if (isTerminal(before.state)) return before;
  switch (event.type) {
    case "offered":
    case "received":
    case "accepted":
      return forward(before, event.type, at);
    case "running": {
      const runs = Math.max(before.runs, event.run);
      if (runs === before.runs && before.state === "running") return before;
      return { ...before, state: "running", runs, updatedAt: at, history: remember(before, "running", at) };
    }
    case "refused":
      return end(
        before,
        "refused",
        { outcome: "failed", startedAt: at, endedAt: at, error: event.error },
        at,
      );
    case "result":
      return end(before, event.result.outcome, event.result, at);
    case "ask-cancel":
      // Never offered: no host can have begun it. Otherwise the host decides, and its result says what came of it.
      if (isUnsent(before))
        return end(
          before,
          "cancelled",
          ended(
            "cancelled",
            "command.cancelled",
            "The command was cancelled before it was sent to its host.",
            at,
          ),
          at,
        );
      return before.cancelRequestedAt === null ? { ...before, cancelRequestedAt: at, updatedAt: at } : before;
    case "ask-pause":
      // Also of what was not paused, as far as is known here, it is said that it goes on: the host may know better.
      if (before.pause?.paused === event.paused) return before;
      return { ...before, pause: { paused: event.paused, at }, updatedAt: at };
    case "revoke":
      if (isUnsent(before)) {
        const message = "The host's key was revoked before the command was sent to it.";
        return end(before, "failed", ended("failed", "enrol.host-revoked", message, at), at);
      }
      // The host may have done it, be doing it, or never do it; it is not heard any more.
      return end(
        before,
        "indeterminate",
        ended(
          "indeterminate",
          "enrol.host-revoked",
          "The host's key was revoked while the command was with it: what came of it is not known.",
          at,
        ),
        at,
      );
    case "expire":
      // Once offered, the host itself keeps the limit and answers; only what never left here ends here.
      if (!isUnsent(before)) return before;
      return end(
        before,
        "failed",
        ended(
          "failed",
          "command.expired",
          event.missing > 0
            ? `The command's time limit to start passed while ${event.missing === 1 ? "a signature was" : `${event.missing} signatures were`} missing.`
            : "The host was not connected before the command's time limit to start.",
          at,
        ),
        at,
      );
    case "waited-out":
      if (before.state !== "waiting") return before;
      if (before.setBack === true) {
        const message = `The controller was set back to when the command waited, and its host has not answered in ${retention.waitedMs / 86_400_000} days: whether it was sent to it before, and what came of it, is not known.`;
        return end(before, "indeterminate", ended("indeterminate", "command.expired", message, at), at);
      }
      return end(
        before,
        "timed-out",
        ended(
          "timed-out",
          "command.expired",
          `The command waited for ${retention.waitedMs / 86_400_000} days ${event.missing > 0 ? "and was not signed" : "and its host did not connect"}: it is not sent any more.`,
          at,
        ),
        at,
      );
  }
}

/** Whether no host can have heard of it. */
function isUnsent({ state, setBack }: CommandState): boolean {
  return state === "waiting" && setBack !== true;
}

/** Whether the step from `before` to `after` is the command's end. */
export function endedBy(before: CommandState, after: CommandState): boolean {
  return !isTerminal(before.state) && isTerminal(after.state);
}

/** The name of the API event for the step from `before` to `after`; undefined when there was none. */
export function eventOf(before: CommandState, after: CommandState): string | undefined {
  if (before.state !== after.state || before.runs !== after.runs) return after.state;
  if (before.cancelAnswer !== after.cancelAnswer) return "cancel-answered";
  if (before.pause !== after.pause) return after.pause?.paused === true ? "pause-asked" : "resume-asked";
  return before.cancelRequestedAt === after.cancelRequestedAt ? undefined : "cancel-asked";
}

// Kept after the end too: "too late" may be said of what has ended meanwhile. It changes no state.
function answered(
  before: CommandState,
  { answer, reason }: Extract<CommandEvent, { type: "cancel" }>,
  at: number,
): CommandState {
  const known = before.cancelAnswer;
  if (known?.answer === answer && known.reason === reason) return before;
  return { ...before, cancelAnswer: { answer, reason, at } };
}

function forward(before: CommandState, state: OperationState, at: number): CommandState {
  if (operationStates.indexOf(state) <= operationStates.indexOf(before.state)) return before;
  return { ...before, state, updatedAt: at, history: remember(before, state, at) };
}

function end(before: CommandState, state: OperationState, result: Result, at: number): CommandState {
  return { ...before, state, result, updatedAt: at, history: remember(before, state, at) };
}

function ended(
  outcome: "cancelled" | "failed" | "timed-out" | "indeterminate",
  code: "command.cancelled" | "command.expired" | "enrol.host-revoked",
  message: string,
  at: number,
): Result {
  return { outcome, startedAt: at, endedAt: at, error: reportOf(new BedplateError(code, message)) };
}

function remember(before: CommandState, state: OperationState, at: number): CommandState["history"] {
  const history = [...before.history, { state, at }];
  return history.length <= historyMax ? history : history.toSpliced(historyMax / 2, 1);
}
