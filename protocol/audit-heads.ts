// What a new head of a host's audit says beside those that are known: host and controller both judge by this, pure.
import type { AuditHead } from "./audit.ts";

type Head = Pick<AuditHead, "seq" | "hash">;

/**
 * `next`: further on than all known. `known`: the very same. `forked`: the same number with another hash, so there are two
 * chains. `went-back`: a number that was passed long ago and was never a head: the chain was cut off and grew anew.
 */
export type HeadVerdict = "next" | "known" | "forked" | "went-back";

/**
 * @param known.newest the furthest head known; undefined before the first
 * @param known.same the hash of the known head of this number, where there is one
 */
export function judgeHead(
  known: { readonly newest: number | undefined; readonly same: string | undefined },
  head: Head,
): HeadVerdict {
  if (known.same !== undefined) return known.same === head.hash ? "known" : "forked";
  return known.newest === undefined || head.seq > known.newest ? "next" : "went-back";
}

/** What an operator reads of a head that should not be; undefined where nothing is wrong. */
export function headFinding(
  verdict: HeadVerdict,
  head: Head,
  newest: number | undefined,
): string | undefined {
  switch (verdict) {
    case "next":
    case "known":
      return undefined;
    case "forked":
      return `entry ${head.seq} now has the hash ${head.hash.slice(0, 16)}…, and was signed with another one before: there are two chains`;
    case "went-back":
      return `it is at entry ${head.seq} after it was at ${newest}: it was cut off and grew anew`;
  }
}

/**
 * What the agent does with a head that an executor has signed. Heads of operations that ran beside each other, or were
 * replayed, come in any order, and a later one says all that an earlier one does: only those that go further are `sent`,
 * the others are `covered`. But nothing that began after a head was known can have a head before it: then the chain was
 * cut off, and the controller must know (`broken`).
 * @param floor the newest head that was known when the operation was handed to an executor; 0 where that is not known
 */
export function relayHead(
  newest: Head | undefined,
  floor: number,
  head: Head,
): "sent" | "covered" | "broken" {
  switch (
    judgeHead({ newest: newest?.seq, same: newest?.seq === head.seq ? newest.hash : undefined }, head)
  ) {
    case "next":
      return "sent";
    case "known":
      return "covered";
    case "forked":
      return "broken";
    case "went-back":
      return head.seq > floor ? "covered" : "broken";
  }
}
