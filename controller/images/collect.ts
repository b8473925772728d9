// Frees what no image has: files of frames that are mostly dead are written anew without their dead parts, and the images
// that share one are turned to the new file.
import { randomBytes } from "node:crypto";
import { type FileHandle, open, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { CollectionProgress, CollectionRequest, CollectionView } from "../../protocol/api-images.ts";
import { appendAll } from "./append.ts";
import { type Catalog, createFile, type StoredImage } from "./catalog.ts";
import { bytesOf, movedBy, type Stretch, unionOf } from "./dead.ts";
import { isPackName, type Layout, layoutOf, ownPack, readLayout } from "./layout.ts";
import { imageLimits } from "./limits.ts";
import { createStaging, removeLeftovers } from "./staging.ts";
import { isUnready, markReady, packOf, prepare, turnReady, unprepare } from "./turning.ts";

/** One file of frames, under all the names that images have for it. */
interface Pack {
  readonly sizeBytes: number;
  readonly users: { readonly image: StoredImage; readonly name: string }[];
  readonly live: readonly Stretch[];
}

export interface CollectOptions {
  /** Stops it between two writes: what was freed stays freed, and no image has lost anything. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: CollectionProgress) => void;
}

export async function collect(
  catalog: Catalog,
  { dryRun = false, all = false }: CollectionRequest,
  { signal, onProgress }: CollectOptions,
): Promise<CollectionView> {
  signal.throwIfAborted();
  await catalog.rescan();
  // While no image comes or goes: what is listed is then what lies there.
  const { images, packs, strayBytes } = await catalog.alone(async () => {
    await turnMarked(catalog);
    const stored = await presentImages(catalog);
    const { strays, ...surveyed } = await survey(stored);
    if (!dryRun) for (const path of strays) await rm(path, { force: true });
    // Of imports that were killed since the store was opened.
    const strayBytes = surveyed.strayBytes + (await removeLeftovers(catalog.directory, { dryRun }));
    return { images: stored.length, ...surveyed, strayBytes };
  });
  const dead = ({ sizeBytes, live }: Pack) => sizeBytes - bytesOf(live);
  const worthwhile = (pack: Pack) => all || dead(pack) >= pack.sizeBytes * imageLimits.deadShareMin;
  const [chosen, left] = [true, false].map((taken) =>
    packs.filter((pack) => dead(pack) > 0 && worthwhile(pack) === taken),
  ) as [Pack[], Pack[]];
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const copyBytesOf = (some: readonly Pack[]) => sum(some.map(({ live }) => bytesOf(live)));
  const found = {
    images,
    storedBytes: sum(packs.map(({ sizeBytes }) => sizeBytes)) + strayBytes,
    deadBytes: sum(packs.map(dead)) + strayBytes,
    left: { files: left.length, bytes: sum(left.map(dead)), copyBytes: copyBytesOf(left) },
  };
  const copyBytes = copyBytesOf(chosen);
  if (dryRun) return { ...found, freedBytes: sum(chosen.map(dead)) + strayBytes, copiedBytes: copyBytes };
  let [filesDone, freedBytes, copiedBytes] = [0, strayBytes, 0];
  const tell = () => onProgress({ files: chosen.length, filesDone, copyBytes, copiedBytes, freedBytes });
  tell();
  for (const pack of chosen) {
    signal.throwIfAborted();
    await compact(catalog, pack, signal, (bytes) => {
      copiedBytes += bytes;
      tell();
    });
    filesDone += 1;
    freedBytes += dead(pack);
    tell();
  }
  return { ...found, freedBytes, copiedBytes };
}

/**
 * The images with their layouts as they are now: another process that opens the store turns what it finds marked. One whose
 * layout cannot be read is left alone.
 */
async function presentImages(catalog: Catalog): Promise<StoredImage[]> {
  const present: StoredImage[] = [];
  for (const image of catalog.allStored()) if (await refresh(image)) present.push(image);
  return present;
}

async function refresh(image: StoredImage): Promise<boolean> {
  try {
    image.layout = await readLayout(image.directory, image.view.storedBytes);
    return true;
  } catch {
    return false;
  }
}

/** All files of frames, each once; and names that no image's segments mention, left by something that was cut off. */
async function survey(images: readonly StoredImage[]) {
  const byInode = new Map<
    string,
    { sizeBytes: number; users: Pack["users"]; segments: Layout["segments"][] }
  >();
  const strayInodes = new Map<string, number>();
  const strays: string[] = [];
  for (const image of images) {
    const { directory, layout } = image;
    for (const name of await readdir(directory).catch(() => [])) {
      const path = join(directory, name);
      if (isUnready(name)) strays.push(path);
      if (!isPackName(name)) continue;
      const { dev, ino, size } = await stat(path);
      const inode = `${dev}:${ino}`;
      const pack = layout.packs.indexOf(name);
      if (pack < 0) {
        strays.push(path);
        strayInodes.set(inode, size);
        continue;
      }
      const entry = byInode.get(inode) ?? { sizeBytes: size, users: [], segments: [] };
      byInode.set(inode, entry);
      entry.users.push({ image, name });
      entry.segments.push(layout.segments.filter((segment) => segment.pack === pack));
    }
  }
  const packs = [...byInode.values()].map(
    ({ sizeBytes, users, segments }): Pack => ({ sizeBytes, users, live: unionOf(segments.flat()) }),
  );
  const strayBytes = [...strayInodes].reduce(
    (sum, [inode, size]) => sum + (byInode.has(inode) ? 0 : size),
    0,
  );
  return { packs, strays, strayBytes };
}

async function compact(
  catalog: Catalog,
  { users, live }: Pack,
  signal: AbortSignal,
  onCopied: (bytes: number) => void,
): Promise<void> {
  await using staging = await createStaging(catalog.directory);
  const fresh = join(staging.path, ownPack);
  {
    await using source = await openAny(users.map(({ image, name }) => join(image.directory, name)));
    // All its images were removed meanwhile, and it with them.
    if (source === undefined) return;
    await using target = await createFile(fresh);
    for await (const bytes of copyStretches(source, target, live, signal)) onCopied(bytes);
    await target.sync();
  }
  const id = randomBytes(8).toString("hex");
  const moved = movedBy(live);
  await catalog.alone(async () => {
    const begun: string[] = [];
    try {
      for (const { image, name } of users) {
        // One that was removed, and perhaps added again: its files are others now.
        if (catalog.stored(image.view.root) !== image || !(await refresh(image))) continue;
        if (!image.layout.packs.includes(name)) continue;
        begun.push(image.directory);
        await prepare(image.directory, id, fresh, layoutAfter(image.layout, name, id, moved));
      }
      await markReady(catalog.directory, id, fresh);
    } catch (error) {
      // The disk is full, most likely: what was prepared would keep the copy there.
      await unprepare(catalog.directory, id, begun).catch(() => {});
      throw error;
    }
    await turnMarked(catalog);
  });
}

function layoutAfter(
  { packs, segments }: Layout,
  old: string,
  id: string,
  moved: (offset: number) => number,
): Layout {
  const index = packs.indexOf(old);
  return layoutOf(
    packs.with(index, packOf(id)),
    segments.map((segment) =>
      segment.pack === index ? { ...segment, offset: moved(segment.offset) } : segment,
    ),
  );
}

/** Also what was left of one that was cut off. */
async function turnMarked(catalog: Catalog): Promise<void> {
  await turnReady(catalog.directory, (directory, layout) => {
    const image = catalog.allStored().find((stored) => stored.directory === directory);
    if (image !== undefined) image.layout = layout;
  });
}

async function openAny(paths: readonly string[]): Promise<FileHandle | undefined> {
  for (const path of paths) {
    const file = await open(path, "r").catch(() => undefined);
    if (file !== undefined) return file;
  }
  return undefined;
}

/** Gives the length of each piece once it is written. */
async function* copyStretches(
  source: FileHandle,
  target: FileHandle,
  stretches: readonly Stretch[],
  signal: AbortSignal,
): AsyncGenerator<number> {
  const buffer = Buffer.allocUnsafeSlow(1 << 20);
  for (const { start, end } of stretches) {
    for (let position = start; position < end; ) {
      signal.throwIfAborted();
      const { bytesRead } = await source.read(buffer, 0, Math.min(buffer.length, end - position), position);
      if (bytesRead === 0) throw new Error("a file of frames became shorter");
      await appendAll(target, buffer.subarray(0, bytesRead));
      position += bytesRead;
      yield bytesRead;
    }
  }
}
