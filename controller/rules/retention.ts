// How long commands are kept, pure; and why an id that was forgotten is never taken for a new one.
import { assert } from "../../protocol/errors.ts";

const dayMs = 86_400_000;

export const retention = {
  /** After its end. */
  keptMs: 40 * dayMs,
  /** A command that has waited so long, for signatures or for its host, is not sent any more. */
  waitedMs: 30 * dayMs,
  /** A new command's id was minted at most so long ago. */
  mintedAgoMs: 30 * dayMs,
  /** Callers' clocks may be ahead by so much. */
  mintedAheadMs: 7 * dayMs,
} as const;
assert(
  retention.keptMs - retention.mintedAheadMs > retention.mintedAgoMs,
  "an id is too old to be taken before its command is forgotten",
);

/** Ended before this moment, a command may be forgotten. */
export function forgottenBefore(at: number): number {
  return at - retention.keptMs;
}

/**
 * When a command that waits ends by itself: it may be that nobody ever signs it, or that its host never comes back. By the
 * clock; where that has jumped ahead, its own limit ends it then, ours only when so much was lived through (`patientTime`).
 */
export function waitsUntil(command: {
  readonly createdAt: number;
  readonly notAfter: number | null;
}): number {
  const waited = command.createdAt + retention.waitedMs;
  return command.notAfter === null ? waited : Math.min(waited, command.notAfter);
}

/** What was taken before this moment and still waits has waited too long. `at`: by `patientTime`. */
export function waitedOutBefore(at: number): number {
  return at - retention.waitedMs;
}

/** When a UUIDv7 was minted, by the clock of whoever did: its first 48 bits. */
export function mintedAt(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}

/**
 * Whether an id that is not known here may be that of a new command. `old`: it could be one that ran and was forgotten.
 * `ahead`: it would still be taken for new after that.
 */
export function judgeMinting(id: string, at: number): "new" | "old" | "ahead" {
  const minted = mintedAt(id);
  if (minted < at - retention.mintedAgoMs) return "old";
  return minted > at + retention.mintedAheadMs ? "ahead" : "new";
}
