// What came from each source of an operation, and which were given up: kept in memory that all workers share.
import { BedplateError } from "../../protocol/errors.ts";
import { counters, type SharedImage } from "./image-job.ts";

/** As many as an offer has. */
export const sourcesMax = 8;

/** 0 says that it was not given up; else one more than the place here. */
const reasons = ["image.corrupt", "image.truncated", "image.fetch-failed", "source.refused"] as const;
const otherReason = "image.fetch-failed";

export interface SourceAccount {
  readonly url: string;
  readonly bytes: number;
  readonly gaveUp?: string;
}

type Accounts = Pick<SharedImage, "sourceBytes" | "sourceGaveUp">;

export function noteBytes({ sourceBytes }: Accounts, index: number, bytes: number): void {
  Atomics.add(sourceBytes, index, BigInt(bytes));
}

/** The first reason stays. */
export function noteGivenUp({ sourceGaveUp }: Accounts, index: number, why: unknown): void {
  const code = why instanceof BedplateError ? why.code : otherReason;
  const at = (reasons as readonly string[]).indexOf(code);
  Atomics.compareExchange(sourceGaveUp, index, 0, 1 + (at < 0 ? reasons.indexOf(otherReason) : at));
}

/** What one has fetched, and given up, is the other's from now on. */
export function moveAccounts(from: SharedImage, to: SharedImage): void {
  Atomics.add(to.counts, counters.fetched, Atomics.exchange(from.counts, counters.fetched, 0n));
  for (let index = 0; index < sourcesMax; index++) {
    Atomics.add(to.sourceBytes, index, Atomics.exchange(from.sourceBytes, index, 0n));
    Atomics.compareExchange(to.sourceGaveUp, index, 0, Atomics.exchange(from.sourceGaveUp, index, 0));
  }
}

export function accountsOf(
  { sourceBytes, sourceGaveUp }: Accounts,
  sources: readonly { readonly url: string }[],
): SourceAccount[] {
  return sources.slice(0, sourcesMax).map(({ url }, index) => {
    const gaveUp = reasons[Atomics.load(sourceGaveUp, index) - 1];
    return {
      url,
      bytes: Number(Atomics.load(sourceBytes, index)),
      ...(gaveUp === undefined ? {} : { gaveUp }),
    };
  });
}
