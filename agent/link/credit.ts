// How much the agent may have on its way, pure: record and batch frames that the controller has not acknowledged yet.
// A simulator drives this very code.
import { assert } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";

/** Part of the credit that samples leave free: a record never waits for readings to be stored. */
const keptForRecords = 1 / 4;

type Kind = "record" | "sample";

export interface Credit {
  /** Bytes sent and not acknowledged. */
  readonly inFlightBytes: number;
  /** Whether a frame of this length may go now. One is always let through when nothing else is on its way. */
  allows(kind: Kind, bytes: number): boolean;
  sent(kind: Kind, seq: number, bytes: number): void;
  /** Everything of this kind up to `seq` is stored. */
  acknowledged(kind: Kind, seq: number): void;
}

/** @param limitBytes from the welcome; undefined: the controller sets no limit */
export function createCredit(limitBytes: number | undefined): Credit {
  const limit = limitBytes ?? Number.POSITIVE_INFINITY;
  assert(limit >= limits.frameBytesMax, "any frame fits the credit");
  const waiting: Record<Kind, { readonly seq: number; readonly bytes: number }[]> = {
    record: [],
    sample: [],
  };
  let inFlightBytes = 0;
  return {
    get inFlightBytes() {
      return inFlightBytes;
    },
    allows(kind, bytes) {
      if (inFlightBytes === 0) return true;
      return inFlightBytes + bytes <= (kind === "record" ? limit : limit * (1 - keptForRecords));
    },
    sent(kind, seq, bytes) {
      const before = waiting[kind].at(-1)?.seq ?? 0;
      assert(seq > before, "numbers grow within a session");
      waiting[kind].push({ seq, bytes });
      inFlightBytes += bytes;
    },
    acknowledged(kind, seq) {
      const frames = waiting[kind];
      let count = 0;
      while (count < frames.length && frames[count]!.seq <= seq) inFlightBytes -= frames[count++]!.bytes;
      frames.splice(0, count);
      assert(inFlightBytes >= 0, "no more comes back than was given");
    },
  };
}
