// The last words about an operation that the agent says itself, because no executor has any.
import type { OperationState } from "../../protocol/commands.ts";
import type { ErrorReport } from "../../protocol/errors.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { type OpenOperation, operationLimits, wireReport } from "./state.ts";

type Ending = Extract<RecordBody, { type: "result" | "refused" }>;
type Outcome = Extract<Ending, { type: "result" }>["result"]["outcome"];

/** Cancelled before any executor could know of it. */
export function withdrawn(command: string, unixMs: number): Ending {
  return result(command, "cancelled", unixMs, {
    code: "command.cancelled",
    message: "The command was cancelled before it began on its host.",
  });
}

/** Its executors died one after the other. */
export function givenUp(
  operation: Pick<OpenOperation, "id" | "handedOver" | "changesState">,
  trouble: string,
  unixMs: number,
): Ending {
  const report: ErrorReport = {
    code: "executor.failed",
    message: `The executor died ${operationLimits.deathsMax} times in a row: ${trouble}`.slice(0, 4000),
    hint: "Run `bedplate doctor` on the host; the executor's log is in the agent's state directory.",
  };
  // What never reached an executor, or only reads, did nothing; of anything else nobody knows.
  if (!operation.handedOver || !operation.changesState)
    return { type: "refused", command: operation.id, error: wireReport(report) };
  return result(operation.id, "indeterminate", unixMs, report);
}

/** It ended, that is known; the journal has not more to say. */
export function endedAs(command: string, state: OperationState, unixMs: number): Ending {
  const report: ErrorReport = {
    code: "executor.failed",
    message: `The operation ended before as ${state}; this host's journal has no more about it.`,
  };
  switch (state) {
    case "succeeded":
      return { type: "result", command, result: { outcome: state, startedAt: unixMs, endedAt: unixMs } };
    case "failed":
    case "cancelled":
    case "timed-out":
    case "indeterminate":
      return result(command, state, unixMs, report);
    case "refused":
      return { type: "refused", command, error: wireReport(report) };
    case "waiting":
    case "offered":
    case "received":
    case "accepted":
    case "running":
      throw new Error("assertion failed: only what has ended is told of again");
  }
}

export function refusedForRoom(command: string): Ending {
  return {
    type: "refused",
    command,
    error: {
      code: "agent.outbox-full",
      message:
        "This host has no room for more commands: what it has to tell the controller is not acknowledged.",
      hint: "Send it again, under a new id, when others have ended.",
    },
  };
}

export function tooLate(command: string, reason: string): RecordBody {
  return { type: "cancel", command, answer: "too-late", reason };
}

function result(command: string, outcome: Outcome, unixMs: number, error: ErrorReport): Ending {
  return {
    type: "result",
    command,
    result: { outcome, startedAt: unixMs, endedAt: unixMs, error: wireReport(error) },
  };
}
