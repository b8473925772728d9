// Gives what fails while an image is written a stable code.
import { BedplateError } from "../../protocol/errors.ts";

/**
 * An abort and a failed system call as errors for an operator; all else unchanged.
 * @param directory the store's: several machines have some
 */
export function storeError(error: unknown, signal: AbortSignal, directory?: string): unknown {
  if (signal.aborted)
    return new BedplateError(
      "image.aborted",
      "It was stopped before its end; nothing of the image is kept.",
      { cause: error },
    );
  if (error instanceof BedplateError) return error;
  const { code, path, syscall } = error as NodeJS.ErrnoException;
  if (syscall === undefined) return error;
  return new BedplateError(
    "image.store-failed",
    `The image store${directory === undefined ? "" : ` ${directory}`} cannot be written: ${syscall}${path === undefined ? "" : ` ${path}`} failed with ${code}.`,
    {
      hint:
        code === "ENOSPC" || code === "EDQUOT"
          ? "Free some space on the store's disk."
          : "Check the store's directory and its disk.",
      cause: error,
    },
  );
}
