// Whether a host may work, pure: (standing, event) → standing. A simulator drives this very function.
import type { Effect } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import type { Standing } from "../../protocol/schema.ts";

export type StandingEvent =
  /** By a person, who may say which fingerprint the host itself shows. */
  | { readonly type: "approve"; readonly fingerprint?: string | undefined }
  | { readonly type: "reject" }
  | { readonly type: "revoke" }
  /** Two machines answered with its key. */
  | { readonly type: "quarantine" }
  /** By a person, who has said which of them is the true one. */
  | { readonly type: "release" };

export interface HostStanding {
  readonly id: string;
  readonly name: string;
  readonly standing: Standing;
  /** The host that got this one's name and history. */
  readonly replacedBy: string | null;
}

/** How the host begins that joined with a token of this kind. */
export function standingAtJoin(approve: "auto" | "manual"): Standing {
  return approve === "auto" ? "approved" : "pending";
}

/**
 * The standing after `event`; the same when it was so already. Revoked is for good: a key that was out of the owner's
 * hands never gets them back, and the host joins again with a new one.
 * @throws `enrol.fingerprint-mismatch`, `host.not-pending`, `enrol.host-revoked`, `host.quarantined`, `host.not-quarantined`
 */
export function reduceStanding(host: HostStanding, event: StandingEvent): Standing {
  switch (event.type) {
    case "approve":
      if (event.fingerprint !== undefined && plain(event.fingerprint) !== plain(fingerprintOf(host.id))) {
        throw new BedplateError(
          "enrol.fingerprint-mismatch",
          `The key of ${host.name} has the fingerprint ${fingerprintOf(host.id)}, not ${event.fingerprint}.`,
          {
            hint: "Look at the host's own console. If it shows the one you gave, something else joined in its place: reject it.",
            details: { expected: event.fingerprint, found: fingerprintOf(host.id) },
          },
        );
      }
      if (host.standing === "revoked") throw revoked(host);
      if (host.standing === "quarantined") {
        throw new BedplateError("host.quarantined", `Two machines answer with the key of ${host.name}.`, {
          hint: `Say first which is the true one: bedplate host release ${host.name} --instance INSTANCE`,
        });
      }
      return "approved";
    case "reject":
      if (host.standing === "approved" || host.standing === "quarantined") {
        throw new BedplateError("host.not-pending", `${host.name} was approved already.`, {
          hint: `To shut it out: bedplate host revoke ${host.name}`,
        });
      }
      return "revoked";
    case "revoke":
      return "revoked";
    case "quarantine":
      // One that waits for approval goes on waiting: that is less than quarantine allows.
      return host.standing === "approved" ? "quarantined" : host.standing;
    case "release":
      if (host.standing !== "quarantined")
        throw new BedplateError("host.not-quarantined", `${host.name} is not in quarantine.`);
      return "approved";
  }
}

/** Whether a command of this effect may be sent to a host that stands so. Whether it is heard, see `mayAnswer`. */
export function mayBeOffered(standing: Standing, effect: Effect): boolean {
  return standing === "approved" || (standing === "quarantined" && effect === "read");
}

/** Whether what the host says of its commands counts: one in quarantine is heard, else their ends would be lost. */
export function mayAnswer(standing: Standing): boolean {
  return standing === "approved" || standing === "quarantined";
}

/** @returns the error for whoever wants something of a host whose key is revoked */
export function revoked(host: Pick<HostStanding, "name" | "replacedBy">): BedplateError {
  return new BedplateError("enrol.host-revoked", `The key of ${host.name} is revoked.`, {
    hint:
      host.replacedBy === null
        ? `To let the machine join again with a new key: bedplate join-token create --for ${host.name}`
        : `Another key took its place: bedplate host show ${host.replacedBy.slice(0, 12)}`,
  });
}

function plain(fingerprint: string): string {
  return fingerprint.replace(/[-:\s]/g, "").toUpperCase();
}
