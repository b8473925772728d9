// Writing bytes whole at the end of a file.
import type { FileHandle } from "node:fs/promises";

/** A write may take only part of the bytes, as at a full disk. */
export async function appendAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, bytes.length - at, null);
    at += bytesWritten;
  }
}
