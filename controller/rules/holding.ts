// How much commands that have ended may hold, pure: whoever may submit and cancel must not be able to fill the disk.
import type { Result } from "../../protocol/commands.ts";
import { assert } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import { outputKept } from "./output-rule.ts";

export interface HoldingBounds {
  /** Documents, signatures, results and output of one host's commands that have ended. */
  readonly hostBytesMax: number;
  /** Of all hosts'. */
  readonly bytesMax: number;
  /** One host's commands that have ended and are remembered: no more are taken, so that none is forgotten too early. */
  readonly hostCommandsMax: number;
}

export const holding: HoldingBounds = {
  hostBytesMax: 64 << 20,
  bytesMax: 1 << 30,
  hostCommandsMax: 250_000,
};
assert(
  holding.hostBytesMax >= 16 * (limits.commandBytesMax + limits.resultBytesMax + outputKept.bytesMax),
  "the newest commands of a host are kept whole",
);

/** A result up to this is kept as it is. */
const resultKeptBytesMax = 4096;

/** Whose oldest is let go of now: one host's, anybody's, or nobody's. */
export function letGoOf(
  held: { readonly hostBytes: number; readonly bytes: number },
  { hostBytesMax, bytesMax }: HoldingBounds,
): "host" | "any" | "none" {
  if (held.hostBytes > hostBytesMax) return "host";
  return held.bytes > bytesMax ? "any" : "none";
}

/** What stays of a result: how it ended and why. */
export function trimmedResult(result: Result | null): Result | null {
  if (result === null || JSON.stringify(result).length <= resultKeptBytesMax) return result;
  const { outcome, startedAt, endedAt, error } = result;
  if (error === undefined) return { outcome, startedAt, endedAt };
  const { code, message } = error;
  return { outcome, startedAt, endedAt, error: { code, message: message.slice(0, 1024) } };
}
