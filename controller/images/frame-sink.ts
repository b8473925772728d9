// Takes an image's frames in order: what an image of the store has already is shared with it, the rest is written.
//
// A group's digest depends on its place, so groups are shared at the same index only; and only when the very bytes of the
// frame are the same, so that a frame which a failing disk has changed is written anew.
import { randomBytes } from "node:crypto";
import { type FileHandle, link, open, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { decodeManifest, frameOffsets, groupDigest, type Manifest } from "../../protocol/manifest.ts";
import { appendAll } from "./append.ts";
import { type Catalog, createFile } from "./catalog.ts";
import {
  encodeLayout,
  type Layout,
  layoutOf,
  ownPack,
  packsMax,
  type Segment,
  segmentsFile,
  stretchesOf,
} from "./layout.ts";
import { imageLimits } from "./limits.ts";

/** An image whose frames may be shared. */
export interface Base {
  readonly directory: string;
  readonly layout: Layout;
  readonly groups: number;
}

/** What the catalog's images have, the newest first. */
export function basesOf(catalog: Pick<Catalog, "allStored">): Base[] {
  return catalog
    .allStored()
    .map(({ directory, layout, view }) => ({ directory, layout, groups: view.groups }));
}

export interface FrameSink extends AsyncDisposable {
  add(group: number, digest: Uint8Array, frame: Uint8Array): Promise<void>;
  /** Adds the frame that some image has, and puts it into `frame`, whose length it must have: unverified. */
  addKnown(group: number, digest: Uint8Array, frame: Uint8Array): Promise<"added" | "unknown">;
  /** After the last frame: what the directory then holds is an image's frames. */
  finish(): Promise<void>;
}

/** @param bases in the order in which they are asked */
export async function createFrameSink(directory: string, bases: readonly Base[]): Promise<FrameSink> {
  // Nothing fails between here and the return but the first step.
  const resources = new AsyncDisposableStack();
  const own = resources.use(await createFile(join(directory, ownPack)));
  const links = createLinks(directory, resources);
  const known = await openBases(bases, links);
  const segments: Segment[] = [];
  let ownBytes = 0;
  const put = (pack: number, offset: number, length: number) => {
    const last = segments.at(-1);
    if (last !== undefined && last.pack === pack && last.offset + last.length === offset)
      segments[segments.length - 1] = { ...last, length: last.length + length };
    else segments.push({ pack, offset, length });
  };
  return {
    async add(group, digest, frame) {
      const shared = await known.find(group, digest, frame);
      if (shared === undefined) {
        await appendAll(own, frame);
        put(0, ownBytes, frame.length);
        ownBytes += frame.length;
      } else put(shared.pack, shared.offset, frame.length);
    },
    async addKnown(group, digest, frame) {
      const shared = await known.find(group, digest, frame, "into");
      if (shared === undefined) return "unknown";
      put(shared.pack, shared.offset, frame.length);
      return "added";
    },
    async finish() {
      const used = [...new Set(segments.map(({ pack }) => pack))].sort((a, b) => a - b);
      await links.dropUnused(used);
      // Nothing shared: the file alone is all of it, as it always was.
      if (used.every((pack) => pack === 0)) return;
      if (ownBytes === 0) await rm(join(directory, ownPack));
      const layout = layoutOf(
        used.map((pack) => links.nameOf(pack)),
        segments.map((segment) => ({ ...segment, pack: used.indexOf(segment.pack) })),
      );
      await writeFile(join(directory, segmentsFile), encodeLayout(layout), { flag: "wx", mode: 0o600 });
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

interface Link {
  /** Index among the new image's files; 0 is its own. */
  readonly pack: number;
  readonly file: FileHandle;
}

/** The new image's own names for files of others: once it has one, nobody can take the file away. */
function createLinks(directory: string, resources: AsyncDisposableStack) {
  const names = [ownPack];
  const byInode = new Map<string, Link>();
  const byPath = new Map<string, Link | null>();
  const make = async (path: string): Promise<Link | null> => {
    if (names.length >= packsMax) return null;
    const name = `pack-${randomBytes(8).toString("hex")}`;
    const own = join(directory, name);
    try {
      await link(path, own);
    } catch {
      // Gone meanwhile, as many links as can be, or a file system without them: then it is not shared.
      return null;
    }
    const file = await open(own, "r");
    const { dev, ino } = await file.stat();
    const same = byInode.get(`${dev}:${ino}`);
    if (same !== undefined) {
      await file.close();
      await rm(own);
      return same;
    }
    resources.use(file);
    const made = { pack: names.push(name) - 1, file };
    byInode.set(`${dev}:${ino}`, made);
    return made;
  };
  return {
    async to(path: string): Promise<Link | null> {
      const known = byPath.get(path);
      if (known !== undefined) return known;
      const made = await make(path);
      byPath.set(path, made);
      return made;
    },
    nameOf: (pack: number) => names[pack]!,
    async dropUnused(used: readonly number[]) {
      for (const [pack, name] of names.entries())
        if (pack > 0 && !used.includes(pack)) await rm(join(directory, name));
    },
  };
}

/** Whether some image of the bases has the group with a frame of that length: a byte for each group, 1 or 0. */
export async function knownGroups(bases: readonly Base[], manifest: Manifest): Promise<Uint8Array> {
  const theirs = await readBases(bases);
  return Uint8Array.from(manifest.frameBytes, (length, group) =>
    Number(
      length > 0 &&
        theirs.some((their) => hasGroup(their.manifest, group, groupDigest(manifest, group), length)),
    ),
  );
}

function hasGroup(manifest: Manifest, group: number, digest: Uint8Array, length: number): boolean {
  return manifest.frameBytes[group] === length && Buffer.compare(groupDigest(manifest, group), digest) === 0;
}

interface KnownBase {
  readonly base: Base;
  readonly manifest: Manifest;
  readonly offsets: Float64Array;
}

/** Their manifests, within a bound of memory. */
async function readBases(bases: readonly Base[]): Promise<KnownBase[]> {
  const known: KnownBase[] = [];
  let groups = 0;
  for (const base of bases) {
    groups += base.groups;
    if (groups > imageLimits.baseGroupsMax) break;
    try {
      const manifest = decodeManifest(await readFile(join(base.directory, "manifest")));
      known.push({ base, manifest, offsets: frameOffsets(manifest) });
    } catch {
      // One that was removed meanwhile, or is damaged, is no base.
    }
  }
  return known;
}

async function openBases(bases: readonly Base[], links: ReturnType<typeof createLinks>) {
  const known = await readBases(bases);
  const buffer = Buffer.allocUnsafeSlow(imageLimits.frameBytesMax);
  return {
    /** @param as `same`: only where these very bytes lie; `into`: whatever lies there is put into them */
    async find(
      group: number,
      digest: Uint8Array,
      frame: Uint8Array,
      as: "same" | "into" = "same",
    ): Promise<{ readonly pack: number; readonly offset: number } | undefined> {
      for (const [at, { base, manifest, offsets }] of known.entries()) {
        if (!hasGroup(manifest, group, digest, frame.length)) continue;
        const stretches = stretchesOf(base.layout, { start: offsets[group]!, end: offsets[group + 1]! });
        const [{ name, start }] = stretches as [(typeof stretches)[number]];
        const linked = await links.to(join(base.directory, name));
        if (linked === null) continue;
        const target = as === "into" ? frame : buffer;
        const { bytesRead } = await linked.file.read(target, 0, frame.length, start);
        if (bytesRead !== frame.length) continue;
        if (as === "same" && Buffer.compare(buffer.subarray(0, bytesRead), frame) !== 0) continue;
        // The next group is most often of the same image.
        if (at > 0) known.unshift(...known.splice(at, 1));
        return { pack: linked.pack, offset: start };
      }
      return undefined;
    },
  };
}
