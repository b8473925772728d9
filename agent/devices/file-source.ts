// Reading a raw image that is a file of this host, through the page cache and straight into a worker's window.
import { read } from "node:fs";
import { promisify } from "node:util";
import { BedplateError } from "../../protocol/errors.ts";
import { errnoOf } from "../host/files.ts";

const readFile = promisify(read);

/** Fills `target`. @throws `image.truncated`, `image.fetch-failed` */
export async function readSource(
  source: { readonly url: string },
  fd: number,
  target: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < target.length; ) {
    let count: number;
    try {
      ({ bytesRead: count } = await readFile(fd, target, done, target.length - done, position + done));
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
