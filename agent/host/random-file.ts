// A file that is read and written at any place: small, synchronous, through the page cache.
import { closeSync, constants, openSync, readSync, writeSync } from "node:fs";
import { errnoOf } from "./files.ts";

export interface RandomFile extends Disposable {
  /** Fills `into` from `position`; returns how many bytes there were. */
  read(into: Uint8Array, position: number): number;
  /** Writes all of `from`. */
  write(from: Uint8Array, position: number): void;
}

/** Undefined when it is to exist and does not. No link is followed. Throws node's own error. */
export function openRandomFile(path: string, mode: "create" | "existing"): RandomFile | undefined {
  const flags = constants.O_RDWR | constants.O_NOFOLLOW | (mode === "create" ? constants.O_CREAT : 0);
  let fd: number;
  try {
    fd = openSync(path, flags, 0o600);
  } catch (error) {
    if (mode === "existing" && errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  return {
    read(into, position) {
      let filled = 0;
      while (filled < into.length) {
        const count = readSync(fd, into, filled, into.length - filled, position + filled);
        if (count === 0) break;
        filled += count;
      }
      return filled;
    },
    write(from, position) {
      for (let done = 0; done < from.length; )
        done += writeSync(fd, from, done, from.length - done, position + done);
    },
    [Symbol.dispose]: () => closeSync(fd),
  };
}
