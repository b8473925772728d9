// Small inputs beside an image, whole: sums, their signature, a block map. From a file, or by http or https.
import { open } from "node:fs/promises";
import { BedplateError } from "../../protocol/errors.ts";
import { openHttp } from "./http-input.ts";

export function isAddress(source: string): boolean {
  return /^https?:\/\//i.test(source);
}

/** The last part of a path or address, as the file is called where it was published. */
export function baseName(source: string): string {
  if (!isAddress(source)) return source.split("/").findLast((part) => part !== "") ?? source;
  const part = new URL(source).pathname.split("/").findLast((piece) => piece !== "") ?? "";
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** @throws `file.unreadable`, `image.unsupported` when it is larger than that; what openHttp throws */
export async function readSmall(
  source: string,
  {
    bytesMax,
    what,
    signal,
  }: { readonly bytesMax: number; readonly what: string; readonly signal: AbortSignal },
): Promise<Buffer> {
  const tooLarge = () =>
    new BedplateError(
      "image.unsupported",
      `${source} has more than ${bytesMax} bytes: too many for ${what}.`,
    );
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  const ended = new AbortController();
  try {
    for await (const piece of await bytesOf(source, AbortSignal.any([signal, ended.signal]))) {
      bytes += piece.length;
      if (bytes > bytesMax) throw tooLarge();
      pieces.push(piece);
    }
  } finally {
    ended.abort();
  }
  return Buffer.concat(pieces);
}

async function bytesOf(source: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
  if (isAddress(source)) return (await openHttp(source, signal)).bytes;
  return readFileBytes(source, signal);
}

async function* readFileBytes(path: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    await using file = await open(path, "r");
    for (;;) {
      signal.throwIfAborted();
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafeSlow(65_536));
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } catch (cause) {
    if (cause instanceof BedplateError || signal.aborted) throw cause;
    throw new BedplateError(
      "file.unreadable",
      `${path} cannot be read (${(cause as NodeJS.ErrnoException).code}).`,
      { cause },
    );
  }
}
