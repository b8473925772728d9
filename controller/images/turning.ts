// Turning images from one file of frames to another that holds the same bytes, all of them or none, also across a crash.
//
// First each image gets a name for the new file and a list of segments to come, both durable; then a marker beside the
// images says that all of them have; then each list takes the place of the old one. Cut off before the marker, what was
// prepared is taken away; after it, the rest is done by whoever comes next. In between every image is whole.
import { link, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { BedplateError } from "../../protocol/errors.ts";
import { decodeLayout, encodeLayout, type Layout, packsIn, segmentsFile } from "./layout.ts";
import { syncPath } from "./staging.ts";

const markerPattern = /^ready-([0-9a-f]{16})$/;
const markerOf = (id: string) => `ready-${id}`;
const listOf = (id: string) => `.${segmentsFile}-${id}`;

export const packOf = (id: string): string => `pack-${id}`;
/** Whether a file of an image's directory is a list to come, and no marker told to take it. */
export const isUnready = (name: string): boolean => /^\.segments-[0-9a-f]{16}$/.test(name);

/** Prepares an image: its directory then has `packOf(id)`, which the layout to come mentions. */
export async function prepare(directory: string, id: string, file: string, next: Layout): Promise<void> {
  await link(file, join(directory, packOf(id)));
  {
    await using list = await open(join(directory, listOf(id)), "wx", 0o600);
    await list.writeFile(encodeLayout(next));
    await list.sync();
  }
  await syncPath(directory);
}

/** Takes back what was prepared, unless a marker tells everybody to turn it: one that could not be made durable counts too. */
export async function unprepare(store: string, id: string, directories: readonly string[]): Promise<void> {
  if ((await readdir(store)).includes(markerOf(id))) return;
  for (const directory of directories) {
    await rm(join(directory, listOf(id)), { force: true });
    await rm(join(directory, packOf(id)), { force: true });
  }
}

/** All images are prepared. */
export async function markReady(store: string, id: string, file: string): Promise<void> {
  await link(file, join(store, markerOf(id)));
  await syncPath(store);
}

/**
 * Turns the images that were marked ready, now or before a crash.
 * @param turned told of each and its new layout, before the files that it had go
 */
export async function turnReady(
  store: string,
  turned: (directory: string, layout: Layout) => void = () => {},
): Promise<void> {
  const names = await readdir(store);
  const ids = names.flatMap((name) => markerPattern.exec(name)?.[1] ?? []);
  if (ids.length === 0) return;
  const directories = names.filter((name) => /^[0-9a-f]{64}$/.test(name)).map((root) => join(store, root));
  for (const id of ids) {
    for (const directory of directories) {
      const turn = await turnOne(directory, id);
      if (turn === undefined) continue;
      turned(directory, turn.layout);
      for (const name of turn.unused) await rm(join(directory, name), { force: true });
    }
    await rm(join(store, markerOf(id)), { force: true });
  }
}

/**
 * Undefined when it was turned already, before or by another process, or is none that was prepared; or when a failing disk
 * has damaged its list to come: it then keeps what it has.
 * @returns also the files that it had and needs no longer: no others, another process may be preparing some
 */
async function turnOne(
  directory: string,
  id: string,
): Promise<{ readonly layout: Layout; readonly unused: readonly string[] } | undefined> {
  try {
    const layout = decodeLayout(await readFile(join(directory, listOf(id))));
    const before = await packsIn(directory);
    await rename(join(directory, listOf(id)), join(directory, segmentsFile));
    await syncPath(directory);
    return { layout, unused: before.filter((name) => !layout.packs.includes(name)) };
  } catch (error) {
    if (error instanceof BedplateError || (error as NodeJS.ErrnoException).code === "ENOENT")
      return undefined;
    throw error;
  }
}
