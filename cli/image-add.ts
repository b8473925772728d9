// Bringing an image in: import into a store, and the upload of what was imported to the controller.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import type { ImportedImage } from "../controller/images/import.ts";
import type { ImageView } from "../protocol/api.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { ApiClient } from "./api-client.ts";
import { monotonic } from "./clock.ts";
import { formatBytes, progressLine } from "./output.ts";
import type { Terminal } from "./terminal.ts";

const formats = ["raw", "gzip", "zstd", "xz", "qcow2"] as const;

export interface ImportRequest {
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  /** A path, or an http or https address. */
  readonly input: string;
  readonly name?: string;
  readonly sha256?: string;
  readonly format?: string;
  /** The vendor's file of sums, its signature, and the keys that are trusted for it. */
  readonly sums?: string;
  readonly sumsSignature?: string;
  readonly keyring?: string;
  readonly bmap?: string;
}

/** Imports into the directory `store`. @throws what the importer refuses, `usage` for an unknown format */
export async function importIntoStore(
  request: ImportRequest & { readonly store: string },
): Promise<ImageView> {
  const { terminal, signal, input, store, name, sha256, bmap } = request;
  const sums = vendorSums(request);
  const format = checkFormat(request.format);
  const { importImage } = await import("../controller/images/import.ts");
  const meter = createMeter(terminal, "import");
  try {
    return await importImage({
      input,
      store,
      signal,
      name,
      sha256,
      sums,
      bmap,
      format,
      onSigned: (signedBy) => {
        for (const { owner, fingerprint } of signedBy)
          terminal.note(`The sums are signed by ${owner} (${fingerprint}).`);
      },
      onProgress: ({ inputBytes, inputBytesTotal, imageBytes }) =>
        inputBytesTotal === null
          ? terminal.status(`import   ${formatBytes(inputBytes)} read, ${formatBytes(imageBytes)} of image`)
          : meter(inputBytes, inputBytesTotal),
    });
  } finally {
    terminal.status("");
  }
}

/** Imports into a temporary store and uploads from there; what the controller has already is not sent again. */
export async function addImage(request: ImportRequest & { readonly client: ApiClient }): Promise<ImageView> {
  await requireUploader(request.client);
  const store = await mkdtemp(join(tmpdir(), "bedplate-import-")).catch((cause) => {
    const { code, path } = cause as NodeJS.ErrnoException;
    throw noRoom(`The directory ${path ?? tmpdir()} cannot be made: ${code}.`, cause);
  });
  try {
    const image = await importIntoStore({ ...request, store }).catch((error: unknown) => {
      const isStore = error instanceof BedplateError && error.code === "image.store-failed";
      throw isStore ? noRoom(error.message, error) : error;
    });
    return await uploadImage({ ...request, store, root: image.root });
  } finally {
    await rm(store, { recursive: true, force: true });
  }
}

/** Before minutes of importing: that the controller is there and lets us. @throws `api.forbidden`, `controller.unreachable` */
async function requireUploader(client: ApiClient): Promise<void> {
  const { scope } = await client.status();
  if (scope !== "read") return;
  throw new BedplateError("api.forbidden", `The token's scope is "read"; this needs "operate".`, {
    hint: "An admin makes one with `bedplate token create --scope operate`.",
    details: { scope, needed: "operate" },
  });
}

/** Of this machine, not the controller. */
function noRoom(message: string, cause: unknown): BedplateError {
  return new BedplateError("image.store-failed", message, {
    hint: "An image is imported on this machine before it is sent: name a directory with room for it by TMPDIR.",
    cause,
  });
}

export interface Upload {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly store: string;
  readonly root: string;
}

/** What the controller has already, of this image or in others, is not sent again. */
export async function uploadImage({ client, terminal, signal, store, root }: Upload): Promise<ImageView> {
  const known = await client.image(root).catch((error: unknown) => {
    if (error instanceof BedplateError && error.code === "image.unknown") return undefined;
    throw error;
  });
  if (known !== undefined) {
    terminal.note(`The controller has this image already, as ${known.name} (${known.root}).`);
    return known;
  }
  const { openImported } = await import("../controller/images/import.ts");
  const imported = await openImported(store, root);
  await client.putManifest(root, imported.manifestBytes);
  const wanted = await client.wantedGroups(root);
  try {
    return await sendFrames({ client, terminal, signal, root }, imported, wanted);
  } catch (error) {
    if (!(error instanceof BedplateError) || error.code !== "image.incomplete") throw error;
    // What the controller had of it is gone or damaged.
    await client.putManifest(root, imported.manifestBytes);
    return await sendFrames({ client, terminal, signal, root }, imported, undefined);
  }
}

/** @param wanted undefined: all of them */
async function sendFrames(
  { client, terminal, signal, root }: Omit<Upload, "store">,
  { offsets, read }: ImportedImage,
  wanted: readonly (readonly [number, number])[] | undefined,
): Promise<ImageView> {
  const ranges = (wanted ?? [[0, offsets.length - 2] as const]).map(([first, last]) => ({
    start: offsets[first]!,
    end: offsets[last + 1]!,
  }));
  const size = ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  const meter = createMeter(terminal, "upload");
  let sent = 0;
  async function* counted(): AsyncGenerator<Uint8Array> {
    for (const range of ranges) {
      if (range.start === range.end) continue;
      for await (const chunk of (await read(range)) as AsyncIterable<Uint8Array>) {
        signal.throwIfAborted();
        sent += chunk.length;
        meter(sent, size);
        yield chunk;
      }
    }
  }
  try {
    const body = Readable.from(counted(), { objectMode: false });
    return await client.putFrames(root, body, size, wanted === undefined ? undefined : "wanted");
  } finally {
    terminal.status("");
  }
}

/** A progress line that is drawn at most five times a second. */
export function createMeter(terminal: Terminal, phase: string): (done: number, total: number) => void {
  const started = monotonic();
  let drawn = Number.NEGATIVE_INFINITY;
  return (done, total) => {
    const at = monotonic();
    if (at - drawn < 200 && done < total) return;
    drawn = at;
    const rate = at > started ? (done * 1000) / (at - started) : 0;
    const secondsLeft = rate > 0 ? (total - done) / rate : null;
    terminal.status(progressLine({ phase, done, total, unit: "bytes", rate, secondsLeft }, terminal.columns));
  };
}

/** @throws `usage` */
function vendorSums({
  sums,
  sumsSignature: signature,
  keyring,
}: ImportRequest): { sums: string; signature?: string; keyring?: string } | undefined {
  if (sums !== undefined)
    return {
      sums,
      ...(signature === undefined ? {} : { signature }),
      ...(keyring === undefined ? {} : { keyring }),
    };
  if (signature === undefined && keyring === undefined) return undefined;
  throw new BedplateError("usage", "--sums-signature and --keyring are for the file that --sums names.");
}

function checkFormat(format: string | undefined): (typeof formats)[number] | undefined {
  const known = formats.find((name) => name === format);
  if (format === undefined || known !== undefined) return known;
  throw new BedplateError("usage", `"${format}" is no image format.`, {
    hint: `Formats are ${formats.join(", ")}.`,
  });
}
