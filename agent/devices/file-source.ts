// Reading a raw image that is a file of this host, through the page cache and straight into a worker's window.
import { readSync } from "node:fs";
import { BedplateError } from "../../protocol/errors.ts";
import { errnoOf } from "../host/files.ts";

/** Fills `target`, the thread waiting: copying it takes less than handing it over. @throws `image.truncated`, `image.fetch-failed` */
export function readSource(
  source: { readonly url: string },
  fd: number,
  target: Uint8Array,
  position: number,
): void {
  for (let done = 0; done < target.length; ) {
    let count: number;
    try {
      count = readSync(fd, target, done, target.length - done, position + done);
    } catch (cause) {
      throw new BedplateError(
        "image.fetch-failed",
        `${source.url} cannot be read at byte ${position + done}: ${errnoOf(cause)}.`,
        { details: { source: source.url }, cause },
      );
    }
    if (count === 0)
      throw new BedplateError("image.truncated", `${source.url} ends at byte ${position + done}.`, {
        hint: "The file is not the whole raw image.",
        details: { source: source.url },
      });
    done += count;
  }
}
