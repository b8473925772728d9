// The controller's image store: finds and serves images, and takes uploads, which are listed only when wholly verified.
import type { ImageView } from "../../protocol/api.ts";
import type {
  CollectionProgress,
  CollectionRequest,
  CollectionView,
  ImageSignature,
} from "../../protocol/api-images.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { decodeManifest, groupCount } from "../../protocol/manifest.ts";
import { type CatalogOptions, checkFrames, checkRoot, openCatalog } from "./catalog.ts";
import { collect } from "./collect.ts";
import { basesOf, knownGroups } from "./frame-sink.ts";
import { createGroupPool } from "./group-pool.ts";
import { imageLimits } from "./limits.ts";
import { receiveInto } from "./receive.ts";
import { addSignature, readSignatures, removeSignature } from "./signatures.ts";
import { storeError } from "./store-error.ts";
import { openStored, type StoredPart } from "./stored-part.ts";

export interface ImageStore extends AsyncDisposable {
  list(): ImageView[];
  /**
   * By root, unique prefix of at least 8 digits, or name.
   * @throws `image.unknown`
   */
  find(reference: string): ImageView;
  /**
   * Announces the frames. An earlier announcement of the same root that has no frames yet is replaced.
   * @throws `image.bad-manifest`, `image.exists` when another image has the name
   */
  beginUpload(root: string, manifest: Uint8Array): Promise<void>;
  /**
   * Decodes and verifies every group, then lists the image. After a failure the upload starts again with its manifest.
   * @throws `image.truncated`, `image.corrupt` naming group and offset; `image.incomplete` without a manifest;
   * `image.in-use` while the same image is being received; `image.store-failed`, `image.aborted`
   */
  receiveFrames(
    root: string,
    frames: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    only?: "wanted",
  ): Promise<ImageView>;
  /**
   * The groups whose frames other images have not, as `[first, last]`, of an upload whose manifest is here. With "wanted",
   * `receiveFrames` then takes the frames of these alone.
   * @throws `image.incomplete` without a manifest
   */
  wantedGroups(root: string): Promise<[number, number][]>;
  /** @throws `image.unknown` */
  open(root: string, part: "manifest" | "frames"): Promise<StoredPart>;
  /**
   * What is being read of it can be read to its end.
   * @returns bytes that were freed: those that no other image has
   * @throws `image.unknown`, `image.store-failed`
   */
  remove(root: string): Promise<number>;
  /** Frees what no image has. One at a time. @throws `image.store-failed`, `image.aborted` */
  collect(request: CollectionRequest, signal: AbortSignal): Promise<CollectionView>;
  /** How far the collection is that runs now. */
  collection(): CollectionProgress | null;
  /** @throws `image.unknown`, `image.corrupt` */
  signatures(root: string): Promise<readonly ImageSignature[]>;
  /**
   * Adds an armored signature over the manifest's bytes; the same again is no change.
   * @throws `image.unknown`, `image.too-many`, `image.corrupt`, `image.store-failed`, `signature.*`, `key.*`
   */
  sign(
    root: string,
    signature: string,
    at: number,
  ): Promise<{ readonly signatures: readonly ImageSignature[]; readonly fingerprint: string }>;
  /**
   * Takes away the signature of one key.
   * @throws `image.unknown`, `api.not-found`, `image.corrupt`, `image.store-failed`
   */
  unsign(root: string, fingerprint: string): Promise<readonly ImageSignature[]>;
  /** Finds images that another process added or removed. */
  rescan(): Promise<void>;
}

export interface ImageStoreOptions extends CatalogOptions {
  /** Worker threads that verify uploads; default: as many as there are processors, at most 8. */
  readonly threads?: number | undefined;
}

interface Upload {
  /** Kept encoded: large, and in use for a moment only. */
  readonly manifest: Uint8Array;
  /** By `knownGroups`, once the sender has asked. */
  known?: Uint8Array;
  receiving: boolean;
}

export async function openImageStore(
  directory: string,
  options: ImageStoreOptions = {},
): Promise<ImageStore> {
  const catalog = await openCatalog(directory, options);
  const pool = createGroupPool(options.threads);
  const uploads = new Map<string, Upload>();
  const closing = new AbortController();
  const receiving = new Set<Promise<unknown>>();
  const storedImage = (root: string) => {
    const image = catalog.stored(root);
    if (image === undefined) throw new BedplateError("image.unknown", `There is no image with root ${root}.`);
    return image;
  };
  const directoryOf = (root: string) => storedImage(root).directory;
  let collecting: Promise<unknown> = Promise.resolve();
  let collection: CollectionProgress | null = null;
  // One at a time: of two signatures that come at once, both must stay.
  let signing: Promise<unknown> = Promise.resolve();
  const changeSignatures = <T>(change: () => Promise<T>): Promise<T> => {
    const changed = signing.then(async () => {
      try {
        return await change();
      } catch (error) {
        throw storeError(error, closing.signal, directory);
      }
    });
    signing = changed.catch(() => {});
    return changed;
  };

  const uploadOf = (root: string) => {
    const upload = uploads.get(root);
    if (upload !== undefined) return upload;
    throw new BedplateError("image.incomplete", `The manifest of ${root} must be sent before its frames.`);
  };
  const receive = async (
    root: string,
    frames: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    only?: "wanted",
  ) => {
    const known = catalog.get(root);
    if (known !== undefined) {
      await discard(frames, { bytesMax: known.groups * imageLimits.frameBytesMax, signal });
      return known;
    }
    const upload = uploadOf(root);
    if (upload.receiving) throw inUse(root);
    // Another sender's manifest came between: which frames this one leaves out is not known any more.
    if (only === "wanted" && upload.known === undefined)
      throw new BedplateError("image.incomplete", `Which groups of ${root} are wanted must be asked first.`, {
        hint: "Send the manifest again, and then ask, or send all frames.",
      });
    upload.receiving = true;
    try {
      const known = only === "wanted" ? upload.known : undefined;
      const manifest = decodeManifest(upload.manifest);
      return await receiveInto(catalog, { manifest, frames, known, pool, signal });
    } catch (error) {
      throw storeError(error, signal, directory);
    } finally {
      uploads.delete(root);
    }
  };
  return {
    list: catalog.list,
    find: catalog.find,
    rescan: catalog.rescan,
    async beginUpload(root, bytes) {
      const manifest = decodeManifest(bytes);
      checkFrames(manifest);
      // A large image's digests take a while to add up: not on this thread.
      const count = groupCount(manifest.sizeBytes);
      checkRoot(root, await pool.run("merge", { digests: manifest.groups, count }), manifest);
      if (catalog.get(root) !== undefined) return;
      catalog.checkName(manifest.name, root);
      if (uploads.get(root)?.receiving === true) throw inUse(root);
      uploads.delete(root);
      uploads.set(root, { manifest: Uint8Array.from(bytes), receiving: false });
      dropOldest(uploads);
    },
    async wantedGroups(root) {
      if (catalog.get(root) !== undefined) return [];
      const upload = uploadOf(root);
      const manifest = decodeManifest(upload.manifest);
      upload.known = await knownGroups(basesOf(catalog), manifest);
      return rangesOf(manifest.frameBytes, upload.known);
    },
    async receiveFrames(root, frames, signal, only) {
      const done = receive(root, frames, AbortSignal.any([signal, closing.signal]), only);
      receiving.add(done);
      try {
        return await done;
      } finally {
        receiving.delete(done);
      }
    },
    signatures: async (root) => await readSignatures(directoryOf(root)),
    sign: (root, signature, at) => changeSignatures(() => addSignature(directoryOf(root), signature, at)),
    unsign: (root, fingerprint) => changeSignatures(() => removeSignature(directoryOf(root), fingerprint)),
    async open(root, part) {
      return await openStored(storedImage(root), part);
    },
    async remove(root) {
      try {
        return await catalog.remove(root);
      } catch (error) {
        throw storeError(error, closing.signal, directory);
      }
    },
    collect(request, signal) {
      const until = AbortSignal.any([signal, closing.signal]);
      const collected = collecting.then(async () => {
        try {
          const onProgress = (progress: CollectionProgress) => {
            collection = progress;
          };
          return await collect(catalog, request, { signal: until, onProgress });
        } catch (error) {
          throw until.aborted ? stopped(error) : storeError(error, until, directory);
        } finally {
          collection = null;
        }
      });
      collecting = collected.catch(() => {});
      return collected;
    },
    collection: () => collection,
    async [Symbol.asyncDispose]() {
      closing.abort();
      await Promise.allSettled([...receiving, signing, collecting]);
      await pool[Symbol.asyncDispose]();
    },
  };
}

/** Groups that have a frame and are not known, first and last of each stretch; groups of zeroes are in none. */
function rangesOf(frameBytes: Uint32Array, known: Uint8Array): [number, number][] {
  const ranges: [number, number][] = [];
  for (const [group, length] of frameBytes.entries()) {
    if (length === 0 || known[group] === 1) continue;
    const last = ranges.at(-1);
    if (last !== undefined && last[1] === group - 1) last[1] = group;
    else ranges.push([group, group]);
  }
  return ranges;
}

function dropOldest(uploads: Map<string, Upload>): void {
  const waiting = [...uploads].filter(([, upload]) => !upload.receiving);
  let bytes = waiting.reduce((sum, [, { manifest }]) => sum + manifest.length, 0);
  let count = waiting.length;
  for (const [root, { manifest }] of waiting) {
    if (count <= imageLimits.uploadsWaitingMax && bytes <= imageLimits.uploadsWaitingBytesMax) return;
    uploads.delete(root);
    bytes -= manifest.length;
    count--;
  }
}

/** Reads to the end what is here already, so that its sender gets an answer and no broken pipe. */
async function discard(
  frames: AsyncIterable<Uint8Array>,
  { bytesMax, signal }: { bytesMax: number; signal: AbortSignal },
): Promise<void> {
  let bytes = 0;
  for await (const chunk of frames) {
    bytes += chunk.length;
    if (bytes > bytesMax || signal.aborted) return;
  }
}

function stopped(cause: unknown): BedplateError {
  return new BedplateError("image.aborted", "The collection was stopped before its end.", {
    hint: "What was freed stays freed, and no image has lost anything: ask again for the rest.",
    cause,
  });
}

function inUse(root: string): BedplateError {
  return new BedplateError("image.in-use", `Another upload of ${root} is under way.`);
}
