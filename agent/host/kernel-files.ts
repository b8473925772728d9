// Files that the kernel writes afresh at each read (/proc, /sys), kept open: the path walk is two thirds of a read's cost.
import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { BedplateError } from "../../protocol/errors.ts";

export interface KernelFile {
  /** Fills `into` from the file's beginning. Returns how many bytes. @throws `file.unreadable`, also when it does not fit */
  read(into: Uint8Array): number;
  close(): void;
}

export interface KernelFiles {
  /** @throws `file.unreadable` */
  open(path: string): KernelFile;
}

/** The files under `root`, such as /proc, or a captured tree of them. */
export function kernelFilesUnder(root: string): KernelFiles {
  return {
    open(path) {
      const file = join(root, path);
      const fd = attempt(file, () => openSync(file, "r"));
      return {
        read: (into) => readWhole(file, into, (offset, length) => readSync(fd, into, offset, length, offset)),
        close: () => closeSync(fd),
      };
    },
  };
}

/**
 * Reads until a read gives nothing: a seq_file of several records hands out about 4 KiB a read however large the
 * buffer, so that one read would cut it short unnoticed.
 * @throws `file.unreadable`
 */
export function readWhole(
  file: string,
  into: Uint8Array,
  read: (offset: number, length: number) => number,
): number {
  let filled = 0;
  while (filled < into.length) {
    const count = attempt(file, () => read(filled, into.length - filled));
    if (count === 0) return filled;
    filled += count;
  }
  throw new BedplateError(
    "file.unreadable",
    `${file} has ${into.length} bytes or more, which is more than is read.`,
    {
      details: { path: file },
    },
  );
}

function attempt<T>(file: string, action: () => T): T {
  try {
    return action();
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
    throw new BedplateError("file.unreadable", `${file} cannot be read (${reason}).`, {
      details: { path: file, reason },
      cause,
    });
  }
}
