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
