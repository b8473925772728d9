// Why a host is not yet where it will be, pure: what it waits for, what happens by itself, what helps.
import { fingerprintOf } from "../../protocol/identifiers.ts";
import type { StoredHost } from "../store/store.ts";

/** Each null where there is nothing to wait for. */
export interface Explanation {
  readonly reason: string | null;
  readonly deadline: number | null;
  readonly next: string | null;
  readonly suggest: string | null;
}

export const nothingToExplain: Explanation = { reason: null, deadline: null, next: null, suggest: null };

export type ExplainedHost = Pick<StoredHost, "id" | "name" | "standing" | "replacedBy">;

export function explainHost(host: ExplainedHost, online: boolean): Explanation {
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
    case "quarantined":
      return {
        reason:
          "host.quarantined Two machines answer with this host's key; nothing is changed on it until a person has decided.",
        deadline: null,
        next: "It is read from as before; what would change it waits.",
        suggest: `bedplate host release ${host.name} --instance INSTANCE  # the true one, see: bedplate host show ${host.name}`,
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
        ? nothingToExplain
        : {
            reason: "agent.offline The host has no connection to the controller.",
            deadline: null,
            next: "Its agent dials again by itself, at most 90 seconds apart; what waits for it is sent then.",
            suggest: "systemctl status bedplate-agent  # on the host",
          };
  }
}
