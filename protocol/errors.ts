// The one error type for what is expected to go wrong, and the check for what must never.
import type { Code } from "./codes.ts";

export interface BedplateErrorOptions {
  /** What to do about it, one sentence. */
  readonly hint?: string;
  /** Facts for machines: paths, serials, expected and found. JSON values only. */
  readonly details?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

/** Something expected went wrong (disk busy, bad frame): a stable code and a sentence for an operator. */
export class BedplateError extends Error {
  override readonly name = "BedplateError";
  readonly code: Code;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, unknown>> | undefined;

  constructor(code: Code, message: string, options: BedplateErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.details = options.details;
  }
}

/** An error as it travels: in results, refusals and API problems. */
export interface ErrorReport {
  readonly code: Code;
  readonly message: string;
  readonly hint?: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** Any thrown value as a report; what is no BedplateError becomes `internal`. */
export function reportOf(error: unknown): ErrorReport {
  if (error instanceof BedplateError) {
    return {
      code: error.code,
      message: error.message,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...(error.details === undefined ? {} : { details: error.details }),
    };
  }
  return { code: "internal", message: error instanceof Error ? error.message : String(error) };
}

/** A report as an error again, on the side that received it. */
export function errorOf(report: ErrorReport): BedplateError {
  return new BedplateError(report.code, report.message, {
    ...(report.hint === undefined ? {} : { hint: report.hint }),
    ...(report.details === undefined ? {} : { details: report.details }),
  });
}

/** What must hold whatever the input: stays on in production, ends the process when it does not. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
