// Why a host or a command is not yet where it will be, pure: what it waits for, what happens by itself, what helps.
import { textOf } from "../../protocol/bytes.ts";
import { type CommandLimits, isTerminal } from "../../protocol/commands.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import type { StoredCommand, StoredHost } from "../store/store.ts";

/** Each null where there is nothing to wait for. */
export interface Explanation {
  readonly reason: string | null;
  readonly deadline: number | null;
  readonly next: string | null;
  readonly suggest: string | null;
}

const nothing: Explanation = { reason: null, deadline: null, next: null, suggest: null };

type HostFacts = Pick<StoredHost, "id" | "name" | "standing" | "replacedBy">;

export function explainHost(host: HostFacts, online: boolean): Explanation {
  switch (host.standing) {
    case "pending":
      return {
        reason: "host.pending The host waits for a person's approval; it gets no command before that.",
        deadline: null,
        next: online
          ? "Its telemetry is taken already; what was asked of it is sent at its approval."
          : "It connects again by itself, and waits.",
        suggest: `bedplate host approve ${host.name} --fingerprint ${fingerprintOf(host.id)}`,
      };
    case "revoked":
      return host.replacedBy === null
        ? {
            reason: "enrol.host-revoked The host's key is revoked: it may not connect.",
            deadline: null,
            next: "Nothing: its connections are refused.",
            suggest: `bedplate join-token create --for ${host.name}`,
          }
        : {
            reason: "enrol.host-revoked Another key has taken over this host's name and history.",
            deadline: null,
            next: "Nothing: its connections are refused.",
            suggest: `bedplate host show ${host.replacedBy.slice(0, 12)}`,
          };
    case "approved":
      return online
        ? nothing
        : {
            reason: "agent.offline The host has no connection to the controller.",
            deadline: null,
            next: "Its agent dials again by itself, at most 90 seconds apart; what waits for it is sent then.",
            suggest: "systemctl status bedplate-agent  # on the host",
          };
  }
}

/** How long an agent and its executor may take before somebody should look. */
const usualMs = 10_000;

/** `at`: now, by the controller's clock. */
export function explainCommand(
  command: StoredCommand,
  host: HostFacts,
  online: boolean,
  at: number,
): Explanation {
  const { state, cancelRequestedAt, notAfter, id } = command;
  if (isTerminal(state)) return nothing;
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
      return nothing;
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
