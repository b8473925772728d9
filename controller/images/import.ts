// Imports an image: reads what it is given, unpacks it, and stores its groups and manifest, wholly or not at all.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ImageView } from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { sectorBytesOf } from "../../protocol/image-sectors.ts";
import { limits } from "../../protocol/limits.ts";
import { decodeManifest, frameOffsets } from "../../protocol/manifest.ts";
import { type BlockMap, bmapBytesMax, parseBmap } from "./bmap.ts";
import { type Catalog, loadImage, openCatalog } from "./catalog.ts";
import { convertQcow2, qcow2HeadBytes } from "./convert.ts";
import { boundExpansion, decode } from "./decode.ts";
import { type Format, headBytes, refuseNested, resolveFormat } from "./format.ts";
import { basesOf, createFrameSink } from "./frame-sink.ts";
import type { GoodSignature } from "./gpgv.ts";
import { createGroupPool } from "./group-pool.ts";
import { type Input, openInput, peek } from "./input.ts";
import { type ExpansionBound, expansionDefaults, imageLimits } from "./limits.ts";
import { mappedOf, readMapped } from "./mapped.ts";
import { type PackedImage, type PackOptions, packFile, packStream } from "./pack.ts";
import { readSmall } from "./small-input.ts";
import { createStaging } from "./staging.ts";
import { storeError } from "./store-error.ts";
import { openStored, type StoredPart } from "./stored-part.ts";
import type { ExpectedSum } from "./sums.ts";
import type { Programs } from "./tool.ts";
import { expectedOf, type VendorSums } from "./vendor-sums.ts";

export type { Format } from "./format.ts";
export type { GoodSignature } from "./gpgv.ts";
export type { VendorSums } from "./vendor-sums.ts";

export interface ImportProgress {
  readonly inputBytes: number;
  /** Null where the server did not say. */
  readonly inputBytesTotal: number | null;
  readonly imageBytes: number;
}

export interface ImportOptions {
  /** A path, or an http or https address. */
  readonly input: string;
  /** The store's directory, made if it is not there. */
  readonly store: string;
  /** Default: made from the input's name. */
  readonly name?: string | undefined;
  /** The vendor's SHA-256 of the input as it is published, before any unpacking. */
  readonly sha256?: string | undefined;
  /** The vendor's file of sums, which must name the input, and its signature. */
  readonly sums?: VendorSums | undefined;
  /** Told who signed the sums, before the input is read. */
  readonly onSigned?: ((signedBy: readonly GoodSignature[]) => void) | undefined;
  /** A path or address of a block map: what it does not map is zeroes whatever the input holds there, and not read. */
  readonly bmap?: string | undefined;
  /** Default: recognised by content. "raw" takes the input as it is, whatever it looks like. */
  readonly format?: Format | undefined;
  readonly expansionMax?: Partial<ExpansionBound> | undefined;
  /** Of zstd; default 3. */
  readonly level?: number | undefined;
  /** Default: as many as there are processors, at most 8. */
  readonly threads?: number | undefined;
  /** Where xz and qemu-img are looked for; default: PATH. */
  readonly programs?: Programs | undefined;
  readonly signal: AbortSignal;
  /** Called for each group, and for each piece of a qcow2 that is read before its conversion. */
  readonly onProgress?: ((progress: ImportProgress) => void) | undefined;
}

/**
 * When the store has an image of the same content, that one stays as it is and is returned.
 * @throws `usage`, `image.exists`, `image.bad-sums`, `image.untrusted-sums`, `image.bad-bmap`, `image.digest-mismatch`, `image.truncated`, `image.corrupt`, `image.expansion`,
 * `image.unsupported`, `image.unsafe`, `image.tool-missing`, `image.fetch-failed`, `image.store-failed`, `image.aborted`,
 * `source.refused`, `file.unreadable`, `file.changed`; the store is then as it was
 */
export async function importImage(options: ImportOptions): Promise<ImageView> {
  const { signal } = options;
  try {
    signal.throwIfAborted();
    const name = nameOf(options);
    checkSha256(options.sha256);
    const expected = await expectedSums(options);
    const catalog = await openCatalog(options.store);
    await using input = await openInput({ ...options, expected });
    return await importInto(catalog, { name, input, options });
  } catch (error) {
    throw storeError(error, signal, options.store);
  }
}

const programsOf = ({ programs = { path: process.env.PATH ?? "/usr/bin:/bin" } }: ImportOptions) => programs;

async function expectedSums(options: ImportOptions): Promise<ExpectedSum[]> {
  const { input, sha256, sums, signal, onSigned } = options;
  const expected: ExpectedSum[] =
    sha256 === undefined ? [] : [{ algorithm: "sha256", digest: sha256.toLowerCase() }];
  if (sums === undefined) return expected;
  const vendor = await expectedOf(input, sums, { programs: programsOf(options), signal });
  if (vendor.signedBy.length > 0) onSigned?.(vendor.signedBy);
  return [...expected, vendor.expected];
}

export interface ImportedImage {
  readonly manifestBytes: Uint8Array;
  /** Where each group's frame begins, and the end. */
  readonly offsets: Float64Array;
  /** Of the frames. */
  readonly read: StoredPart["read"];
}

/** An image of a store, to be read. @throws `image.bad-manifest`, `image.truncated`, `image.corrupt`, and what reading throws */
export async function openImported(store: string, root: string): Promise<ImportedImage> {
  const image = await loadImage(store, root);
  const manifestBytes = await readFile(join(image.directory, "manifest"));
  const { read } = await openStored(image, "frames");
  return { manifestBytes, offsets: frameOffsets(decodeManifest(manifestBytes)), read };
}

interface Import {
  readonly name: string;
  readonly input: Input;
  readonly options: ImportOptions;
}

async function importInto(catalog: Catalog, { name, input, options }: Import): Promise<ImageView> {
  const { signal, onProgress } = options;
  await using pool = createGroupPool(options.threads);
  await using staging = await createStaging(catalog.directory);
  await using frames = await createFrameSink(staging.path, basesOf(catalog));
  await using peeked = await peek(input.bytes, qcow2HeadBytes);
  const { head, bytes } = peeked;
  if (head.length === 0) throw emptyImage();
  const format = resolveFormat(head, options.format);
  const map = await blockMapOf(options, format, input.vouched);
  const report = (imageBytes: number, inputBytes = input.bytesRead) =>
    onProgress?.({ inputBytes, inputBytesTotal: input.totalBytes, imageBytes });
  const pack: PackOptions = {
    pool,
    frames,
    signal,
    level: options.level ?? 3,
    onPacked: (imageBytes) => report(imageBytes),
  };
  const image = await packInput({
    format,
    map,
    head,
    bytes,
    input,
    options,
    pack,
    report,
    directory: catalog.directory,
  });
  await frames.finish();
  signal.throwIfAborted();
  const { sizeBytes, root, groups, frameBytes } = image;
  const manifest = {
    name,
    sizeBytes,
    root,
    groups,
    frameBytes,
    sectorBytes: sectorBytesOf(image.head),
    importedFrom: format,
  };
  return await catalog.publish(staging, manifest);
}

/**
 * @param vouched the map can then leave nothing of the image out
 * @throws `usage`, `source.refused`, `image.bad-bmap`
 */
async function blockMapOf(
  { bmap, input, signal }: ImportOptions,
  format: Format,
  vouched: boolean,
): Promise<BlockMap | undefined> {
  if (bmap === undefined) return undefined;
  if (/^http:/i.test(bmap) && !/^http:/i.test(input) && !vouched) {
    throw new BedplateError("source.refused", `${bmap} is plain http: anybody in between could change it.`, {
      hint: "Take the block map by https, or give the image's own sum (--sha256 or --sums).",
    });
  }
  if (format === "qcow2") {
    throw new BedplateError("usage", "A block map is of a raw image, packed or not; the input is qcow2.", {
      hint: "Leave --bmap out: qcow2 says itself what it holds.",
    });
  }
  return parseBmap(await readSmall(bmap, { bytesMax: bmapBytesMax, what: "a block map", signal }), bmap);
}

interface PackInput {
  readonly format: Format;
  readonly map: BlockMap | undefined;
  readonly head: Uint8Array;
  readonly bytes: AsyncIterable<Uint8Array>;
  readonly input: Input;
  readonly options: ImportOptions;
  readonly pack: PackOptions;
  readonly report: (imageBytes: number, inputBytes?: number) => void;
  readonly directory: string;
}

async function packInput({
  format,
  map,
  head,
  bytes,
  input,
  options,
  pack,
  report,
  directory,
}: PackInput): Promise<PackedImage> {
  const { signal } = options;
  const programs = programsOf(options);
  const bound = { ...expansionDefaults, ...options.expansionMax };
  if (format === "qcow2") {
    await using scratch = await createStaging(directory);
    const spooled = tap(bytes, () => report(0));
    const { file, sizeBytes } = await convertQcow2({
      directory: scratch.path,
      head,
      bytes: spooled,
      bound,
      programs,
      signal,
    });
    await using raw = file;
    return await packFile(raw, sizeBytes, pack);
  }
  if (format !== "raw") {
    const unpacked = boundExpansion(decode(bytes, { format, programs, signal }), {
      bound,
      inputBytes: () => input.bytesRead,
    });
    await using content = await peek(unpacked, headBytes);
    if (content.head.length === 0) throw emptyImage();
    refuseNested(content.head, format);
    return await packStream(
      map === undefined ? content.bytes : mappedOf(content.bytes, map, input.vouched),
      pack,
    );
  }
  if ((input.totalBytes ?? 0) > imageLimits.imageBytesMax) throw tooLarge();
  if (input.file === null)
    return await packStream(
      map === undefined ? boundRaw(bytes) : mappedOf(boundRaw(bytes), map, input.vouched),
      pack,
    );
  const total = map?.imageBytes ?? input.totalBytes!;
  // Workers read the file themselves, so nothing of it passes through the input's bytes.
  const onPacked = (imageBytes: number) => report(Math.min(imageBytes, total), Math.min(imageBytes, total));
  const image =
    map === undefined
      ? await packFile(input.file, total, { ...pack, onPacked })
      : await packStream(readMapped(input.file, map, signal), { ...pack, onPacked });
  await input.checkUnchanged();
  return image;
}

async function* tap(bytes: AsyncIterable<Uint8Array>, seen: () => void): AsyncGenerator<Uint8Array> {
  for await (const chunk of bytes) {
    seen();
    yield chunk;
  }
}

async function* boundRaw(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let total = 0;
  for await (const chunk of bytes) {
    total += chunk.length;
    if (total > imageLimits.imageBytesMax) throw tooLarge();
    yield chunk;
  }
}

function tooLarge(): BedplateError {
  return new BedplateError(
    "image.unsupported",
    `The image is larger than ${imageLimits.imageBytesMax} bytes.`,
  );
}

function emptyImage(): BedplateError {
  return new BedplateError("image.unsupported", "The image is empty.", {
    hint: "Check the file or the download.",
  });
}

const namePattern = /^[A-Za-z0-9][A-Za-z0-9._:-]*$/;

function nameOf({ name, input }: ImportOptions): string {
  if (name === undefined) return nameFrom(input);
  if (name.length <= limits.nameLengthMax && namePattern.test(name)) return name;
  throw new BedplateError("usage", `"${name.slice(0, 200)}" cannot be an image's name.`, {
    hint: `At most ${limits.nameLengthMax} of letters, digits and . _ : -, the first a letter or digit.`,
  });
}

/** "https://example.org/debian-12.raw.xz?x=1" gives "debian-12". */
export function nameFrom(input: string): string {
  const path = URL.parse(input)?.pathname ?? input;
  const base = path.split("/").findLast((part) => part !== "") ?? "";
  const stem = base.replace(/(\.(gz|zst|zstd|xz|qcow2|raw|img|bin))+$/i, "");
  const name = stem.replaceAll(/[^A-Za-z0-9._:-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "");
  return name.slice(0, limits.nameLengthMax) || "image";
}

function checkSha256(sha256: string | undefined): void {
  if (sha256 === undefined || /^[0-9a-f]{64}$/i.test(sha256)) return;
  throw new BedplateError("usage", "A SHA-256 digest is 64 hexadecimal digits.");
}
