// Fetching an image's manifest, within its bound. What it says is for the caller to prove.
import type { IncomingMessage } from "node:http";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import { decodeManifest, type Manifest } from "../../protocol/manifest.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import { type Connections, fetchFailed, reasonOf, watchForStall } from "./image-source.ts";
import type { UsableSource } from "./open-sources.ts";

/** Fetches the manifest from the first source that gives one. @throws `image.fetch-failed`, `source.refused`, `image.bad-manifest` */
export async function fetchManifest(
  connections: Connections,
  sources: readonly UsableSource[],
  signal: AbortSignal,
): Promise<Manifest> {
  let last: unknown = new BedplateError(
    "image.fetch-failed",
    sources.length === 0
      ? "The offer names no source of the image."
      : "The offer names no source of the image's manifest: raw images have none.",
  );
  for (const source of sources.filter(({ layout }) => layout !== "raw")) {
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
