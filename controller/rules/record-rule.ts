// What becomes of a record that came in, pure: stored once and in order, and whom a host may speak for.
import type { Standing } from "../../protocol/schema.ts";

/** What was found of a record that keys vouch for; without it the record has no effect. */
export type Vouched =
  | {
      readonly type: "identity";
      readonly fingerprint: string;
      readonly digest: string;
      /** What the host said of it the last time. */
      readonly keyBefore: "none" | "same" | "another";
    }
  /** `attestation`: the key's line without comment. `countersignature`: by the controller's audit key. */
  | { readonly type: "audit-head"; readonly attestation: string; readonly countersignature: string }
  | { readonly type: "refused"; readonly reason: string };

/** What is stored of one instance's outbox. */
export interface OutboxMark {
  /** The highest record stored; 0 before the first. */
  readonly records: number;
  /** This store came out of a backup, and the instance has said nothing since. */
  readonly restored: boolean;
}

export type RecordVerdict =
  /** `known`: stored before; `hole`: records before it are missing. Nothing is done, and the mark stays. */
  | { readonly status: "known" | "hole"; readonly mark: number }
  /** Its effect and the new mark are stored together. `lost`: records before it that nobody has any more. */
  | { readonly status: "next"; readonly mark: number; readonly lost: number };

/**
 * No host loses so many records: one that prints without end makes some hundred thousand a day, and a backup is seldom years
 * old. One that says so would leave few numbers for those that follow.
 */
export const lostMax = 1_000_000_000;

/**
 * @param outbox undefined when nothing of the instance is stored
 * @param place `first`: of its session. The agent was just told the mark: what it leaves out then, it has no more
 */
export function judgeRecord(
  outbox: OutboxMark | undefined,
  seq: number,
  place: "first" | "later" = "later",
): RecordVerdict {
  const mark = outbox?.records ?? 0;
  if (seq <= mark) return { status: "known", mark };
  const lost = seq - mark - 1;
  // What was acknowledged after a backup was made, or by a database that is gone, is gone on both sides: the host goes on
  // from there. Refused, it would come again with the same hole for ever.
  if (lost > 0 && place === "later" && outbox?.restored !== true) return { status: "hole", mark };
  if (lost > lostMax) return { status: "hole", mark };
  return { status: "next", mark: seq, lost };
}

/**
 * Why a record about a command has no effect; undefined when it has one. It is stored all the same, else the host would
 * send it for ever.
 */
export function ignoredBecause(
  record: { readonly command: string; readonly host: string },
  facts: {
    /** The host that the command is for; undefined when there is no such command. */
    readonly commandHost: string | undefined;
    readonly standing: Standing;
  },
): string | undefined {
  if (facts.commandHost === undefined) return `the command ${record.command} is not known`;
  if (facts.commandHost !== record.host) return `the command ${record.command} is another host's`;
  // One in quarantine is heard: what became of its commands would be lost for good.
  if (facts.standing === "pending" || facts.standing === "revoked")
    return "the host is not approved, so it was sent no command";
  return undefined;
}
