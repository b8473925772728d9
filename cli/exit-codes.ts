// How the command line ends: one exit code for each way that something can end.
import type { CommandView } from "../protocol/api.ts";
import type { Code } from "../protocol/codes.ts";
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
  waiting: 9,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export const exitCodeHelp = `
Exit codes:
  0  it was done
  1  it failed, and the message says why
  2  the command line or a configuration file cannot be used
  3  refused: a guard, the host's policy or a key that is not the known one does not allow it; nothing was changed
  4  timed out
  5  partly done: some of several targets failed
  6  indeterminate: it was cut off, and what happened is not known
  7  cancelled
  8  the controller cannot be reached, or is not the one that is trusted
  9  sent, and waiting for operators' signatures: bedplate command sign ID`;

// What an error says about who must act: the caller (usage), the host's owner (refused), nobody but time.
const byCode: Readonly<Record<string, ExitCode>> = {
  usage: exitCodes.usage,
  "api.bad-request": exitCodes.usage,
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
  "command.link-lost": exitCodes.cancelled,
  "command.already-offered": exitCodes.refused,
  "command.not-cancellable": exitCodes.refused,
  "command.not-pausable": exitCodes.refused,
  "command.wrong-host": exitCodes.refused,
  "api.forbidden": exitCodes.refused,
  "api.unauthorized": exitCodes.refused,
  "deploy.partly": exitCodes.partly,
  "disk.protected": exitCodes.refused,
  "enrol.fingerprint-mismatch": exitCodes.refused,
  "enrol.host-revoked": exitCodes.refused,
  "host.key-changed": exitCodes.refused,
  "image.aborted": exitCodes.cancelled,
  "image.unsigned": exitCodes.refused,
  "image.untrusted-sums": exitCodes.refused,
  "host.not-known": exitCodes.refused,
  "host.pending": exitCodes.refused,
  "host.quarantined": exitCodes.refused,
  "identity.invalid": exitCodes.refused,
  "state.not-empty": exitCodes.refused,
  "state.unsafe": exitCodes.refused,
  "plan.changed": exitCodes.refused,
  "plan.expired": exitCodes.refused,
  "plan.invalid": exitCodes.refused,
  "plan.required": exitCodes.refused,
  "plan.unknown": exitCodes.refused,
  "plan.used": exitCodes.refused,
  "policy.denied": exitCodes.refused,
  "policy.exec-not-allowed": exitCodes.refused,
  "policy.missing": exitCodes.refused,
  "policy.outside-window": exitCodes.refused,
  "policy.signature-required": exitCodes.refused,
  "policy.too-many": exitCodes.refused,
  "policy.unsafe": exitCodes.refused,
  "signature.invalid": exitCodes.refused,
  "signature.malformed": exitCodes.refused,
  "signature.no-user-verification": exitCodes.refused,
  "signature.not-touched": exitCodes.refused,
  "signature.unknown-key": exitCodes.refused,
  "signature.wrong-namespace": exitCodes.refused,
};

export function exitCodeOfError(code: string): ExitCode {
  return byCode[code] ?? exitCodes.failed;
}

/** What a host finds before it begins to change anything, also after the plan was agreed to. */
const beforeAnyChange: ReadonlySet<string> = new Set<Code>([
  "deploy.same-disk",
  "disk.ambiguous",
  "disk.held",
  "disk.member",
  "disk.mounted",
  "disk.not-allowed",
  "disk.not-found",
  "disk.own-root",
  "disk.protected",
  "disk.read-only",
  "disk.remote",
  "disk.sector-size",
  "disk.shared-storage",
  "disk.swap",
  "disk.table-damaged",
  "disk.too-small",
  "disk.unreadable",
  "image.unsigned",
  "plan.changed",
  "policy.missing",
  "policy.override-denied",
]);

/** The exit code of a command that has reached its last state: what a guard has stopped was refused, whenever that was. */
export function exitCodeOfEnd({ state, result }: Pick<CommandView, "state" | "result">): ExitCode {
  const error = result?.error;
  if (error?.code === "deploy.partly") return exitCodes.partly;
  const refused = state === "failed" && error !== undefined && beforeAnyChange.has(error.code);
  // An earlier run of the same operation may have begun to write.
  return refused && error.details?.left === undefined ? exitCodes.refused : exitCodeOfState(state);
}

/** The same by its state alone. */
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
