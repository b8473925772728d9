// The end of a file that others write.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { errnoOf } from "./files.ts";

/** At most so many bytes, and whether there was more; undefined when there is no such file. Throws node's own error. */
export function readTail(
  path: string,
  bytesMax: number,
): { readonly bytes: Uint8Array; readonly truncated: boolean } | undefined {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    const { size } = fstatSync(fd);
    const from = Math.max(0, size - bytesMax);
    const bytes = new Uint8Array(size - from);
    return { bytes: bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, from)), truncated: from > 0 };
  } finally {
    closeSync(fd);
  }
}
