// What came of a deploy onto several disks: of each, and of them all. Pure.
import type { DeployOutput, DeploysOutput, DiskOutcome } from "../../protocol/commands.ts";
import { assert, BedplateError, type ErrorReport, reportOf } from "../../protocol/errors.ts";

export interface DiskEnd {
  readonly disk: DeployOutput["disk"];
  readonly outcome: DiskOutcome;
  readonly error?: Error;
  readonly output?: DeployOutput;
}

/** Failures that another try may mend: of a source or the way to it, of the disk's own input and output, of a worker. */
const passing: readonly string[] = [
  "disk.io",
  "disk.readback-mismatch",
  "image.corrupt",
  "image.fetch-failed",
  "image.truncated",
  "worker.died",
];

export function mayMend(error: unknown): boolean {
  if (!(error instanceof BedplateError) || !passing.includes(error.code)) return false;
  // What was not synced may be lost, though it reads right and the next sync says nothing.
  return error.details?.doing !== "synced";
}

/** What an error means for its disk: the end that was asked for, or a failure of its own. */
export function outcomeOf(error: unknown, signal: AbortSignal): DiskOutcome {
  const reason: unknown = signal.aborted ? signal.reason : undefined;
  if (!(error instanceof BedplateError) || !(reason instanceof BedplateError) || error.code !== reason.code)
    return "failed";
  return reason.code === "command.cancelled" || reason.code === "command.link-lost"
    ? "cancelled"
    : "timed-out";
}

/** @param stopped why the operation ended before its last disk was tried */
export function endOfAll(
  ends: readonly DiskEnd[],
  stopped: BedplateError | undefined,
): { readonly output: DeploysOutput; readonly error?: Error } {
  const [first, ...others] = ends;
  assert(first !== undefined, "a deploy has a disk");
  const output: DeploysOutput = {
    ...first.output,
    ...toldOf(first),
    also: others.map((end) => ({
      ...toldOf(end),
      ...(end.output === undefined ? {} : { output: end.output }),
    })),
  };
  const error = errorOfAll(ends, stopped);
  return error === undefined ? { output } : { output, error };
}

function toldOf({ disk, outcome, error }: DiskEnd) {
  return { disk, outcome, ...(error === undefined ? {} : { error: briefly(error) }) };
}

function errorOfAll(ends: readonly DiskEnd[], stopped: BedplateError | undefined): Error | undefined {
  const right = ends.filter(({ outcome }) => outcome === "succeeded").length;
  const [bad] = ends.filter(({ error }) => error !== undefined);
  const disks = ends.map(({ disk, outcome, error }) => ({
    ...disk,
    outcome,
    ...(error === undefined ? {} : { code: reportOf(error).code }),
  }));
  const hold = `${right} of ${ends.length} disks hold${right === 1 ? "s" : ""} the image`;
  if (stopped !== undefined) {
    return new BedplateError(stopped.code, `${stopped.message} ${hold}.`, {
      details: { ...stopped.details, disks },
      cause: stopped,
    });
  }
  if (bad?.error === undefined) return undefined;
  if (right === 0) return bad.error;
  const others = ends.filter(({ error }) => error !== undefined);
  return new BedplateError(
    "deploy.partly",
    `${hold}. ${others.map(({ disk, error }) => `${disk.path}: ${reportOf(error).message}`).join(" ")}`,
    {
      hint: "The disks that hold it are finished and can be used. Deploy anew to the others alone.",
      details: { disks },
    },
  );
}

const detailsBytesMax = 8 << 10;
const textMax = 4096;

/** Within what sixteen of them may take of a result. */
function briefly(error: Error): ErrorReport {
  const { code, message, hint, details } = reportOf(error);
  return {
    code,
    message: message.slice(0, textMax),
    ...(hint === undefined ? {} : { hint: hint.slice(0, textMax) }),
    ...(details === undefined || JSON.stringify(details).length > detailsBytesMax ? {} : { details }),
  };
}
