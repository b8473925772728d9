// Fetching an image's manifest, within its bound. What it says is for the caller to prove.
import type { IncomingMessage } from "node:http";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import { decodeManifest, type Manifest } from "../../protocol/manifest.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import { type Connections, fetchFailed, reasonOf, watchForStall } from "./image-source.ts";

/** Fetches the manifest from the first source that gives one. @throws `image.fetch-failed`, `source.refused`, `image.bad-manifest` */
export async function fetchManifest(
  connections: Connections,
  sources: readonly ImageSource[],
  signal: AbortSignal,
): Promise<Manifest> {
  if (sources.length === 0)
    throw new BedplateError("image.fetch-failed", "The offer names no source of the image.");
  let last: unknown;
  for (const source of sources) {
    try {
      const response = await connections.open(source, "manifest", { signal });
      return decodeManifest(await readBody(source, response, limits.manifestBytesMax, signal));
    } catch (error) {
      signal.throwIfAborted();
      last = error;
    }
  }
  throw last;
}

async function readBody(
  source: ImageSource,
  response: IncomingMessage,
  bytesMax: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  watchForStall(response, source, () => true);
  try {
    for await (const piece of response as AsyncIterable<Uint8Array>) {
      length += piece.length;
      if (length > bytesMax)
        throw new BedplateError(
          "image.bad-manifest",
          `The manifest at ${source.url} is larger than ${bytesMax} bytes.`,
        );
      pieces.push(piece);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof BedplateError ? error : fetchFailed(source, reasonOf(error), error);
  }
  return Buffer.concat(pieces);
}
