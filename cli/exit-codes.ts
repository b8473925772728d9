// How the command line ends: one exit code for each way that something can end.
import type { OperationState } from "../protocol/commands.ts";
import { isTerminal } from "../protocol/commands.ts";
import { assert } from "../protocol/errors.ts";

export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  refused: 3,
  timedOut: 4,
  partly: 5,
  indeterminate: 6,
  cancelled: 7,
  unreachable: 8,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export const exitCodeHelp = `
Exit codes:
  0  it was done
  1  it failed, and the message says why
  2  the command line or a configuration file cannot be used
  3  refused: a guard or the host's policy does not allow it; nothing was changed
  4  timed out
  5  partly done: some of several targets failed
  6  indeterminate: it was cut off, and what happened is not known
  7  cancelled
  8  the controller cannot be reached, or is not the one that is trusted`;

// What an error says about who must act: the caller (usage), the host's owner (refused), nobody but time.
const byCode: Readonly<Record<string, ExitCode>> = {
  usage: exitCodes.usage,
  "command.bad-arguments": exitCodes.usage,
  "config.invalid": exitCodes.usage,
  "config.unreadable": exitCodes.usage,
  "controller.unreachable": exitCodes.unreachable,
  "controller.untrusted": exitCodes.unreachable,
  "command.cancelled": exitCodes.cancelled,
  "command.expired": exitCodes.timedOut,
  "command.stalled": exitCodes.timedOut,
  "command.timed-out": exitCodes.timedOut,
  "command.indeterminate": exitCodes.indeterminate,
  "command.not-cancellable": exitCodes.refused,
  "api.forbidden": exitCodes.refused,
  "enrol.fingerprint-mismatch": exitCodes.refused,
  "enrol.host-revoked": exitCodes.refused,
  "host.pending": exitCodes.refused,
  "state.not-empty": exitCodes.refused,
  "plan.changed": exitCodes.refused,
  "plan.required": exitCodes.refused,
  "policy.denied": exitCodes.refused,
  "policy.missing": exitCodes.refused,
  "policy.unsafe": exitCodes.refused,
};

export function exitCodeOfError(code: string): ExitCode {
  return byCode[code] ?? exitCodes.failed;
}

/** The exit code of a command that has reached its last state. */
export function exitCodeOfState(state: OperationState): ExitCode {
  assert(isTerminal(state), `${state} is a last state`);
  switch (state) {
    case "succeeded":
      return exitCodes.ok;
    case "refused":
      return exitCodes.refused;
    case "cancelled":
      return exitCodes.cancelled;
    case "timed-out":
      return exitCodes.timedOut;
    case "indeterminate":
      return exitCodes.indeterminate;
    default:
      return exitCodes.failed;
  }
}
