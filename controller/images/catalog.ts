// The complete images of a directory: finding them, and adding one that is wholly written and verified.
import { type FileHandle, mkdir, open, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { mergeGroups } from "../../assembly/index.ts";
import type { ImageView } from "../../protocol/api.ts";
import { equalBytes, hex } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import {
  decodeManifest,
  encodeManifest,
  frameOffsets,
  groupCount,
  type Manifest,
} from "../../protocol/manifest.ts";
import { type Layout, readLayout } from "./layout.ts";
import { imageLimits } from "./limits.ts";
import { discard, removeLeftovers, type Staging } from "./staging.ts";
import { turnReady } from "./turning.ts";

export interface Catalog {
  readonly directory: string;
  list(): ImageView[];
  get(root: string): ImageView | undefined;
  /** @throws `image.unknown` */
  find(reference: string): ImageView;
  /** @throws `image.exists` when another root has the name */
  checkName(name: string, root?: string): void;
  /**
   * Makes the frames in `staging` and the manifest an image of the catalog. When the root is there already, that one
   * stays and is returned. The name is checked against what this process knows: two processes that add the same name
   * at the same moment both succeed, and `find` then refuses the name.
   */
  publish(staging: Staging, manifest: Manifest): Promise<ImageView>;
  /** @returns bytes that were freed. @throws `image.unknown` */
  remove(root: string): Promise<number>;
  rescan(): Promise<void>;
  /** Undefined when there is none. */
  stored(root: string): StoredImage | undefined;
  /** All of them, the newest first. */
  allStored(): readonly StoredImage[];
  /** Does something while no image comes or goes. */
  alone<T>(action: () => Promise<T>): Promise<T>;
}

/** An image and where its frames are. The layout is replaced when they move; another object is another image. */
export interface StoredImage {
  readonly view: ImageView;
  readonly directory: string;
  layout: Layout;
}

export interface CatalogOptions {
  /** Told once of a directory that looks like an image, or like what is left of one, and is none; it is left alone. */
  readonly onUnreadable?: ((name: string, error: unknown) => void) | undefined;
}

export async function openCatalog(
  directory: string,
  { onUnreadable }: CatalogOptions = {},
): Promise<Catalog> {
  const images = new Map<string, StoredImage>();
  const views = () => [...images.values()].map(({ view }) => view);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await removeLeftovers(directory, { onStuck: onUnreadable });
  await turnReady(directory);

  /** Counts beginnings and ends of removals: what was read meanwhile may be gone by now. */
  let removals = 0;
  const unreadable = new Set<string>();
  const rescan = async () => {
    const roots = (await readdir(directory)).filter((name) => /^[0-9a-f]{64}$/.test(name));
    for (const root of roots) {
      if (images.has(root)) continue;
      try {
        const before = removals;
        const image = await loadImage(directory, root);
        if (before === removals && !images.has(root)) images.set(root, image);
        unreadable.delete(root);
      } catch (error) {
        if (!unreadable.has(root) && (await exists(join(directory, root)))) {
          unreadable.add(root);
          onUnreadable?.(root, error);
        }
      }
    }
    for (const root of images.keys()) {
      if (!roots.includes(root) && !(await exists(join(directory, root)))) images.delete(root);
    }
  };
  const checkName = (name: string, root?: string) => {
    const other = views().find((image) => image.name === name && image.root !== root);
    if (other === undefined) return;
    throw new BedplateError(
      "image.exists",
      `There is an image named ${name} already, with root ${other.root}.`,
      {
        hint: "Choose another name.",
        details: { name, root: other.root },
      },
    );
  };
  const publish = async (staging: Staging, manifest: Manifest) => {
    const root = hex(manifest.root);
    await rescan();
    const known = images.get(root);
    if (known !== undefined) return known.view;
    checkName(manifest.name, root);
    await writeNew(join(staging.path, "manifest"), encodeManifest(manifest));
    if ((await publishInto(staging, join(directory, root))) === "taken") {
      // Another process may have been first.
      await rescan();
      const other = images.get(root);
      if (other !== undefined) return other.view;
      // Not listed, so not an image: what a failing disk left of one.
      await discard(directory, root);
      await staging.publish(join(directory, root));
    }
    const image = await loadImage(directory, root);
    images.set(root, image);
    return image.view;
  };
  const remove = async (root: string) => {
    await rescan();
    if (!images.delete(root))
      throw new BedplateError("image.unknown", `There is no image with root ${root}.`);
    removals++;
    try {
      return await discard(directory, root);
    } finally {
      removals++;
    }
  };
  // One at a time: two images of one name must not both pass the check.
  let changing: Promise<unknown> = Promise.resolve();
  const alone = <T>(action: () => Promise<T>): Promise<T> => {
    const changed = changing.then(action);
    changing = changed.catch(() => {});
    return changed;
  };
  await rescan();
  return {
    directory,
    list: () => views().sort((a, b) => (a.name < b.name ? -1 : 1)),
    get: (root) => images.get(root)?.view,
    find: (reference) => findImage(views(), reference),
    checkName,
    rescan,
    stored: (root) => images.get(root),
    allStored: () => [...images.values()].sort((a, b) => b.view.addedAt - a.view.addedAt),
    alone,
    publish: (staging, manifest) => alone(() => publish(staging, manifest)),
    remove: (root) => alone(() => remove(root)),
  };
}

function findImage(images: readonly ImageView[], reference: string): ImageView {
  const exact = images.filter((image) => image.root === reference);
  const named = exact.length > 0 ? exact : images.filter((image) => image.name === reference);
  const isPrefix = /^[0-9a-f]{8,64}$/.test(reference);
  const matches =
    named.length > 0 || !isPrefix ? named : images.filter((image) => image.root.startsWith(reference));
  const [only] = matches;
  if (only !== undefined && matches.length === 1) return only;
  if (matches.length > 1) {
    throw new BedplateError("image.unknown", `"${reference}" stands for ${matches.length} images.`, {
      hint: `Use the whole root: ${matches.map((image) => image.root).join(", ")}.`,
    });
  }
  const names = images.map((image) => image.name).sort();
  const shown = names.slice(0, 20).join(", ") + (names.length > 20 ? " …" : "");
  throw new BedplateError("image.unknown", `There is no image "${reference.slice(0, 200)}".`, {
    hint: names.length === 0 ? "There are no images yet: add one first." : `There are: ${shown}.`,
  });
}

/** @throws `image.bad-manifest`, `image.truncated`, `image.corrupt`, and what reading throws */
export async function loadImage(store: string, root: string): Promise<StoredImage> {
  const directory = join(store, root);
  const path = join(directory, "manifest");
  const manifest = decodeManifest(await readFile(path));
  checkRoot(root, mergeGroups(manifest.groups, groupCount(manifest.sizeBytes)), manifest);
  const layout = await readLayout(directory, frameOffsets(manifest).at(-1)!);
  const { mtimeMs } = await stat(path);
  return { view: viewOf(manifest, Math.floor(mtimeMs)), directory, layout };
}

/** @throws `image.bad-manifest` unless name, declared root and the groups' root are one */
export function checkRoot(root: string, merged: Uint8Array, manifest: Manifest): void {
  if (hex(manifest.root) === root && equalBytes(merged, manifest.root)) return;
  throw new BedplateError("image.bad-manifest", `The manifest's groups do not add up to ${root}.`, {
    details: { root, declared: hex(manifest.root), found: hex(merged) },
  });
}

/** @throws `image.bad-manifest` for a frame longer than any group needs */
export function checkFrames({ frameBytes }: Manifest): void {
  const group = frameBytes.findIndex((length) => length > imageLimits.frameBytesMax);
  if (group < 0) return;
  throw new BedplateError(
    "image.bad-manifest",
    `The frame of group ${group} has ${frameBytes[group]} bytes; at most ${imageLimits.frameBytesMax} are taken.`,
  );
}

function viewOf(manifest: Manifest, addedAt: number): ImageView {
  const { name, sizeBytes, sectorBytes, importedFrom, frameBytes } = manifest;
  return {
    root: hex(manifest.root),
    name,
    sizeBytes,
    sectorBytes,
    groups: frameBytes.length,
    zeroGroups: frameBytes.reduce((count, length) => count + Number(length === 0), 0),
    storedBytes: frameOffsets(manifest).at(-1)!,
    importedFrom,
    addedAt,
  };
}

async function publishInto(staging: Staging, target: string): Promise<"published" | "taken"> {
  try {
    await staging.publish(target);
    return "published";
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOTEMPTY" || code === "EEXIST") return "taken";
    throw error;
  }
}

/** Creates a file that must not exist yet. */
export function createFile(path: string): Promise<FileHandle> {
  return open(path, "wx", 0o600);
}

async function writeNew(path: string, bytes: Uint8Array): Promise<void> {
  await using handle = await createFile(path);
  await handle.writeFile(bytes);
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
