// Why a command is not yet where it will be, pure: what it waits for, what happens by itself, what helps.
import { textOf } from "../../protocol/bytes.ts";
import { type CommandLimits, isTerminal } from "../../protocol/commands.ts";
import { type ExplainedHost, type Explanation, explainHost, nothingToExplain } from "../hosts/explain.ts";
import type { StoredCommand } from "../store/store.ts";

/** How long an agent and its executor may take before somebody should look. */
const usualMs = 10_000;

/** `at`: now, by the controller's clock. */
export function explainCommand(
  command: StoredCommand,
  host: ExplainedHost,
  online: boolean,
  at: number,
): Explanation {
  const { state, cancelRequestedAt, notAfter, id } = command;
  if (isTerminal(state)) return nothingToExplain;
  const away = online ? "" : " The host is not connected now; its answer follows when it is back.";
  const cancel =
    cancelRequestedAt === null ? "" : " Its cancellation was asked for; the host has not answered yet.";
  const slow = at - sinceOf(command) > usualMs;
  const look = online ? (slow ? "bedplate doctor  # on the host" : null) : explainHost(host, false).suggest;
  switch (state) {
    case "waiting": {
      const held = explainHost(host, online);
      return {
        reason: held.reason ?? "It is about to be offered to the host.",
        deadline: notAfter,
        next: `${host.standing === "pending" ? "It is sent when the host is approved" : "It is sent when the host is connected"}${notAfter === null ? "." : ", and ends as expired if that is not before its limit."}`,
        suggest: held.suggest ?? `bedplate command show ${id} --follow`,
      };
    }
    case "offered":
      return {
        reason: `It was sent to the host, whose agent has not confirmed it yet.${away}${cancel}`,
        deadline: notAfter,
        next: "It is sent again at the host's next connection; the host knows it by its id.",
        suggest: look ?? `bedplate command show ${id} --follow`,
      };
    case "received":
      return {
        reason: `The host's agent has it; the executor has not admitted it yet.${away}${cancel}`,
        deadline: notAfter,
        next: "The agent starts an executor for it, which admits or refuses it.",
        suggest: look ?? `bedplate command show ${id} --follow`,
      };
    case "accepted":
      return {
        reason: `The host's executor has admitted it and not begun yet.${away}${cancel}`,
        deadline: notAfter,
        next: "The executor begins, or says why not.",
        suggest: look ?? `bedplate command show ${id} --follow`,
      };
    case "running":
      return {
        reason: `It runs.${away}${cancel}`,
        deadline: runDeadline(command),
        next: "Its result comes when it ends; a run that is cut off is resumed or ended by the host.",
        suggest:
          cancelRequestedAt === null && online
            ? `bedplate command show ${id} --follow`
            : (look ?? `bedplate command show ${id} --follow`),
      };
    case "refused":
    case "succeeded":
    case "failed":
    case "cancelled":
    case "timed-out":
    case "indeterminate":
      return nothingToExplain;
  }
}

/** When the command came into the state that it is in. */
export function sinceOf({ state, history, updatedAt }: StoredCommand): number {
  let since = updatedAt;
  // A resumed run is the same state still.
  for (const entry of history.toReversed()) {
    if (entry.state !== state) break;
    since = entry.at;
  }
  return since;
}

function runDeadline(command: StoredCommand): number | null {
  // Checked when it was taken; a version that does not know its kind reads this much of it all the same.
  const { limits } = JSON.parse(textOf(command.document)) as { limits: CommandLimits };
  const seconds = limits.runForSeconds;
  return seconds === undefined ? null : sinceOf(command) + seconds * 1000;
}
