// Why a host is not yet where it will be, pure: what it waits for, what happens by itself, what helps.
import { fingerprintOf } from "../../protocol/identifiers.ts";
import type { StoredHost } from "../store/host-store.ts";

/** Each null where there is nothing to wait for. */
export interface Explanation {
  readonly reason: string | null;
  readonly deadline: number | null;
  readonly next: string | null;
  readonly suggest: string | null;
}

export const nothingToExplain: Explanation = { reason: null, deadline: null, next: null, suggest: null };

export type ExplainedHost = Pick<StoredHost, "id" | "name" | "standing" | "replacedBy"> &
  Partial<Pick<StoredHost, "instances" | "auditFault">>;

export function explainHost(host: ExplainedHost, online: boolean): Explanation {
  const { instances = [], auditFault = null } = host;
  switch (host.standing) {
    case "pending":
      if (instances.length > 1) {
        return {
          reason: `host.pending The host waits for a person's approval, and several machines have its key: ${instances.map(nameOfInstance).join("; ")}.`,
          deadline: null,
          next: "The one that was there first stays connected, the others are sent away.",
          suggest: `bedplate host reject ${host.name}`,
        };
      }
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
    case "quarantined":
      return {
        reason: `host.quarantined Two machines answer with this host's key: ${instances.map(nameOfInstance).join("; ")}.`,
        deadline: null,
        next: "Until a person has said which one is the true one, only commands that read are sent.",
        suggest: `bedplate host release ${host.name} --instance ${releaseNameOf(instances)}  # if that is the true one`,
      };
    case "approved":
      if (!online) {
        return {
          reason: "agent.offline The host has no connection to the controller.",
          deadline: null,
          next: "Its agent dials again by itself, at most 90 seconds apart; what waits for it is sent then.",
          suggest: "systemctl status bedplate-agent  # on the host",
        };
      }
      return auditFault === null
        ? nothingToExplain
        : {
            reason: `audit.broken The host's audit does not hold: ${auditFault}.`,
            deadline: null,
            next: "Nothing: what its audit says from then on is not taken as proof.",
            suggest: "bedplate audit verify  # on the host",
          };
  }
}

type Instance = StoredHost["instances"][number];

function nameOfInstance({ instance, bootId, address }: Instance): string {
  return `instance ${instance}, boot ${bootId.slice(0, 8)}, at ${address}`;
}

// The one that was there first. Where both have one instance, the boot id tells them apart.
function releaseNameOf(instances: readonly Instance[]): string {
  const [first, ...others] = instances;
  if (first === undefined) return "INSTANCE";
  return others.some(({ instance }) => instance === first.instance) ? first.bootId : first.instance;
}
