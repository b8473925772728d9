// Fetching an image's manifest, within its bound. What it says is for the caller to prove.
import type { IncomingMessage } from "node:http";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import { decodeManifest, type Manifest } from "../../protocol/manifest.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import type { Clock } from "../host/clock.ts";
import type { Random } from "../host/random.ts";
import { type Connections, fetchFailed, isTransient, reasonOf, watchForStall } from "./image-source.ts";
import type { UsableSource } from "./open-sources.ts";

/** Tries at each source; in between a controller may start again. */
const triesMax = 6;
const backoffMs = { first: 200, most: 5000 } as const;

export interface ManifestOptions {
  readonly sources: readonly UsableSource[];
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}

/** Fetches the manifest from the first source that gives one. @throws `image.fetch-failed`, `source.refused`, `image.bad-manifest` */
export async function fetchManifest(
  connections: Connections,
  { sources, clock, random, signal }: ManifestOptions,
): Promise<Manifest> {
  // Those that may still give one: all are asked before any is asked again.
  let left = sources.filter(({ layout }) => layout !== "raw");
  let last: unknown = new BedplateError(
    "image.fetch-failed",
    sources.length === 0
      ? "The offer names no source of the image."
      : "The offer names no source of the image's manifest: raw images have none.",
  );
  for (let tries = 1; ; tries++) {
    const again: UsableSource[] = [];
    for (const source of left) {
      try {
        const response = await connections.open(source, "manifest", { signal });
        return decodeManifest(await readBody(source, response, limits.manifestBytesMax, signal));
      } catch (error) {
        signal.throwIfAborted();
        if (isTransient(error)) again.push(source);
        last = error;
      }
    }
    if (again.length === 0 || tries >= triesMax) throw last;
    left = again;
    const wait = Math.min(backoffMs.most, backoffMs.first * 2 ** (tries - 1));
    await clock.sleep(wait * (0.5 + random.fraction() / 2), signal);
  }
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
