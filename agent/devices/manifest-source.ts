// Fetching an image's manifest, and its signatures, within their bounds. What they say is for the caller to prove.
import type { IncomingMessage } from "node:http";
import { ImageSignatures, imageSignaturesMax } from "../../protocol/api-images.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import { decodeManifest, type Manifest } from "../../protocol/manifest.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import { checker } from "../../protocol/schema.ts";
import { signatureBytesMax } from "../../protocol/sshsig-format.ts";
import type { Clock } from "../host/clock.ts";
import type { Random } from "../host/random.ts";
import { type Connections, fetchFailed, isTransient, reasonOf, watchForStall } from "./connections.ts";
import type { UsableSource } from "./open-sources.ts";

/** Tries at each source; in between a controller may start again. */
const triesMax = 6;
const backoffMs = { first: 200, most: 5000 } as const;
const signaturesBytesMax = 2 * imageSignaturesMax * signatureBytesMax;

export interface ManifestOptions {
  readonly sources: readonly UsableSource[];
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** Throws at a manifest that is not to be used, and why: the next source may have a better one. */
  readonly prove: (manifest: Manifest, bytes: Uint8Array, source: UsableSource) => void | Promise<void>;
}

/**
 * The manifest of the first source that gives one which proves good. Mirrors are asked last: they have the image's bytes,
 * and how those are cut into frames is for the controller to say.
 * @throws `image.fetch-failed`, `source.refused`, `image.bad-manifest`, and what `prove` throws
 */
export async function fetchManifest(
  connections: Connections,
  { sources, clock, random, signal, prove }: ManifestOptions,
): Promise<Manifest> {
  const described = sources.filter(({ layout }) => layout !== "raw");
  // Those that may still give one: all are asked before any is asked again.
  let left = [
    ...described.filter(({ mirror }) => mirror !== true),
    ...described.filter(({ mirror }) => mirror === true),
  ];
  let why: unknown = new BedplateError(
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
        const bytes = await readBody(source, response, limits.manifestBytesMax, signal);
        const manifest = decodeManifest(bytes);
        await prove(manifest, bytes, source);
        return manifest;
      } catch (error) {
        signal.throwIfAborted();
        if (isTransient(error)) again.push(source);
        // That one was no good says more than that another was not there.
        if (!isAbsence(error) || isAbsence(why)) why = error;
      }
    }
    if (again.length === 0 || tries >= triesMax) throw why;
    left = again;
    const wait = Math.min(backoffMs.most, backoffMs.first * 2 ** (tries - 1));
    await clock.sleep(wait * (0.5 + random.fraction() / 2), signal);
  }
}

function isAbsence(error: unknown): boolean {
  return error instanceof BedplateError && error.code === "image.fetch-failed";
}

const checkSignatures = checker(ImageSignatures, "image.bad-manifest", "list of the image's signatures");

/** Armored, of which nothing is proved yet; none where the source has no such list. @throws `image.fetch-failed`, `image.bad-manifest` */
export async function fetchSignatures(
  connections: Connections,
  source: UsableSource,
  signal: AbortSignal,
): Promise<readonly string[]> {
  let response: IncomingMessage;
  try {
    response = await connections.open(source, "signatures", { signal });
  } catch (error) {
    if (error instanceof BedplateError && error.details?.status === 404) return [];
    throw error;
  }
  const bytes = await readBody(source, response, signaturesBytesMax, signal);
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    throw new BedplateError(
      "image.bad-manifest",
      `${source.url} has a list of signatures that is not JSON.`,
      { cause },
    );
  }
  return checkSignatures(value).signatures.map(({ signature }) => signature);
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
          `What ${source.url} has of the image's manifest or signatures is larger than ${bytesMax} bytes.`,
        );
      pieces.push(piece);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof BedplateError ? error : fetchFailed(source, reasonOf(error), error);
  }
  return Buffer.concat(pieces);
}
