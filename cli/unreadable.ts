// What is said of a file that the operator named and that cannot be read.
import { BedplateError } from "../protocol/errors.ts";

/** @param cause what reading it threw */
export function unreadable(path: string, cause: unknown, hint?: string): BedplateError {
  const why = (cause as NodeJS.ErrnoException).code ?? String(cause);
  return new BedplateError("file.unreadable", `${path} cannot be read: ${why}.`, {
    ...(hint === undefined ? {} : { hint }),
    cause,
  });
}
