// Groups that images share: stored once, served whole, freed when nobody has them any more.
import { createHash } from "node:crypto";
import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openCatalog } from "../../controller/images/catalog.ts";
import { collect } from "../../controller/images/collect.ts";
import { bytesOf, movedBy, type Stretch, unionOf } from "../../controller/images/dead.ts";
import { createFrameSink } from "../../controller/images/frame-sink.ts";
import { importImage } from "../../controller/images/import.ts";
import { decodeLayout, encodeLayout, layoutOf, stretchesOf } from "../../controller/images/layout.ts";
import { type ImageStore, openImageStore } from "../../controller/images/store.ts";
import { verifyFrames } from "../../controller/images/verify.ts";
import type { ImageView } from "../../protocol/api.ts";
import type { CollectionProgress } from "../../protocol/api-images.ts";
import { decodeManifest, frameOffsets, groupDigest } from "../../protocol/manifest.ts";
import { codeOf, content, mib, namesIn, readPart, readStored, temporaryDirectory } from "./support.ts";

const never = new AbortController().signal;
const groups = 24;
const made = new Map<number, Uint8Array>();
function groupContent(seed: number): Uint8Array {
  const bytes = made.get(seed) ?? content(mib, seed);
  made.set(seed, bytes);
  return bytes;
}

/** Each group its own content; `changed` groups have another. */
function imageOf(changed: readonly number[] = [], version = 1, count = groups): Uint8Array {
  const bytes = new Uint8Array(count * mib);
  for (let group = 0; group < count; group++) {
    if (group === 5) continue;
    bytes.set(groupContent(1000 * (changed.includes(group) ? version : 0) + group + 1), group * mib);
  }
  return bytes;
}

interface Place extends AsyncDisposable {
  readonly directory: string;
  readonly store: ImageStore;
  add(name: string, bytes: Uint8Array): Promise<ImageView>;
  upload(name: string, bytes: Uint8Array): Promise<ImageView>;
  reopen(): Promise<void>;
}

async function openPlace(): Promise<Place> {
  const directory = await temporaryDirectory();
  const path = join(directory.path, "store");
  let store = await openImageStore(path, { threads: 2 });
  let made = 0;
  const importInto = async (target: string, name: string, bytes: Uint8Array) => {
    const input = join(directory.path, `input-${made++}`);
    await writeFile(input, bytes);
    const image = await importImage({ input, store: target, name, threads: 2, signal: never });
    await rm(input);
    return image;
  };
  return {
    directory: path,
    get store() {
      return store;
    },
    async add(name, bytes) {
      const image = await importInto(path, name, bytes);
      await store.rescan();
      return image;
    },
    async upload(name, bytes) {
      const other = join(directory.path, `store-${made++}`);
      const { root } = await importInto(other, name, bytes);
      await store.beginUpload(root, await readFile(join(other, root, "manifest")));
      const frames = await readFile(join(other, root, "frames"));
      await rm(other, { recursive: true });
      return await store.receiveFrames(
        root,
        (async function* () {
          yield frames;
        })(),
        never,
      );
    },
    async reopen() {
      await store[Symbol.asyncDispose]();
      store = await openImageStore(path, { threads: 2 });
    },
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

/** Bytes of all files of the store, each counted once however many names it has. */
async function usedBytes(directory: string): Promise<number> {
  const inodes = new Map<number, number>();
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const { ino, size } = await stat(join(entry.parentPath, entry.name));
    inodes.set(ino, size);
  }
  return [...inodes.values()].reduce((sum, size) => sum + size, 0);
}

async function verifyAll({ store, directory }: Pick<Place, "store" | "directory">): Promise<void> {
  for (const { root } of store.list()) {
    const manifest = decodeManifest(await readFile(join(directory, root, "manifest")));
    const part = await store.open(root, "frames");
    await verifyFrames({
      manifest,
      frames: await part.read({ start: 0, end: part.sizeBytes }),
      threads: 2,
      signal: never,
    });
  }
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

describe.each(["add", "upload"] as const)("by %s", (way) => {
  test("an image of which one group in 24 changed adds about that much", async () => {
    await using place = await openPlace();
    const first = await place[way]("first", imageOf());
    const before = await usedBytes(place.directory);
    const second = await place[way]("second", imageOf([7], 2));
    const added = (await usedBytes(place.directory)) - before;
    expect(added / before).toBeLessThan(1.1 / 23);
    expect(added).toBeGreaterThan(before / 30);
    for (const [{ root }, bytes] of [
      [first, imageOf()],
      [second, imageOf([7], 2)],
    ] as const)
      expect(sha256(await readStored(place.directory, root))).toBe(sha256(bytes));
    await place.reopen();
    expect(place.store.list().map(({ name }) => name)).toEqual(["first", "second"]);
    await verifyAll(place);
  });

  test("every range of shared frames is served as if they lay in one file", async () => {
    await using place = await openPlace();
    await place[way]("first", imageOf([], 1, 8));
    const { root } = await place[way]("second", imageOf([2, 4], 2, 10));
    const part = await place.store.open(root, "frames");
    const whole = await readPart(part);
    expect(whole).toHaveLength(part.sizeBytes);
    const layout = decodeLayout(await readFile(join(place.directory, root, "segments")));
    for (const edge of layout.starts) {
      for (const [start, end] of [
        [edge - 1, edge],
        [edge, edge + 1],
        [edge - 1, edge + 1],
        [0, edge],
        [edge, part.sizeBytes],
        [edge - 100_000, edge + 900_000],
      ] as const) {
        if (start < 0 || end > part.sizeBytes || start >= end) continue;
        const range = await readPart(part, { start, end });
        expect(Buffer.compare(range, whole.subarray(start, end))).toBe(0);
      }
    }
  });
});

describe("an upload of what the store has not", () => {
  const setUp = async () => {
    const place = await openPlace();
    const first = await place.add("first", imageOf([], 1, 8));
    const other = await openPlace();
    const next = imageOf([2, 3, 6], 2, 9);
    const { root } = await other.add("next", next);
    const files = join(other.directory, root);
    const manifestBytes = await readFile(join(files, "manifest"));
    await place.store.beginUpload(root, manifestBytes);
    const offsets = frameOffsets(decodeManifest(manifestBytes));
    const frames = await readFile(join(files, "frames"));
    await other[Symbol.asyncDispose]();
    async function* sent(ranges: readonly (readonly [number, number])[]) {
      for (const [from, to] of ranges) yield frames.subarray(offsets[from], offsets[to + 1]);
    }
    return { place, first, next, root, manifestBytes, sent };
  };

  test("takes the frames of wanted groups alone, and verifies the others where they lie", async () => {
    const { place, next, root, sent } = await setUp();
    await using _place = place;
    const wanted = await place.store.wantedGroups(root);
    expect(wanted).toEqual([
      [2, 3],
      [6, 6],
      [8, 8],
    ]);
    await place.store.receiveFrames(root, sent(wanted), never, "wanted");
    expect(sha256(await readStored(place.directory, root))).toBe(sha256(next));
    await verifyAll(place);
  });

  test("of frames that are not those of the wanted groups nothing is kept", async () => {
    const { place, root, manifestBytes, sent } = await setUp();
    await using _place = place;
    for (const ranges of [
      [[2, 3]],
      [
        [2, 3],
        [6, 6],
        [8, 8],
        [0, 0],
      ],
      [
        [2, 3],
        [7, 7],
        [8, 8],
      ],
      [],
    ] as [number, number][][]) {
      await place.store.beginUpload(root, manifestBytes);
      await place.store.wantedGroups(root);
      expect(await codeOf(place.store.receiveFrames(root, sent(ranges), never, "wanted"))).toMatch(
        /^image\.(truncated|corrupt)$/,
      );
    }
    expect(await namesIn(place.directory)).toHaveLength(1);
  });

  test("what it had is gone or damaged: image.incomplete, and all of them are taken", async () => {
    for (const spoil of ["remove", "damage"]) {
      const { place, first, next, root, manifestBytes, sent } = await setUp();
      await using _place = place;
      const wanted = await place.store.wantedGroups(root);
      if (spoil === "remove") await place.store.remove(first.root);
      else {
        const path = join(place.directory, first.root, "frames");
        const bytes = await readFile(path);
        bytes[2000]! ^= 1;
        await writeFile(path, bytes);
      }
      expect(await codeOf(place.store.receiveFrames(root, sent(wanted), never, "wanted"))).toBe(
        "image.incomplete",
      );
      await place.store.beginUpload(root, manifestBytes);
      await place.store.receiveFrames(root, sent([[0, 8]]), never);
      expect(sha256(await readStored(place.directory, root))).toBe(sha256(next));
    }
  });

  test("the manifest sent again by somebody else: what the first leaves out is not guessed", async () => {
    const { place, root, manifestBytes, sent } = await setUp();
    await using _place = place;
    const wanted = await place.store.wantedGroups(root);
    await place.store.beginUpload(root, manifestBytes);
    expect(await codeOf(place.store.receiveFrames(root, sent(wanted), never, "wanted"))).toBe(
      "image.incomplete",
    );
    expect(await place.store.wantedGroups(root)).toEqual(wanted);
    await place.store.receiveFrames(root, sent(wanted), never, "wanted");
  });

  test("before its manifest: image.incomplete", async () => {
    const { place } = await setUp();
    await using _place = place;
    expect(await codeOf(place.store.wantedGroups("0".repeat(64)))).toBe("image.incomplete");
  });
});

describe("what is not shared", () => {
  test("the same content at another place, and a frame that the disk has changed", async () => {
    await using place = await openPlace();
    const { root } = await place.add("first", imageOf([], 1, 8));
    const moved = new Uint8Array(9 * mib);
    moved.set(imageOf([], 1, 8), mib);
    const before = await usedBytes(place.directory);
    await place.add("moved", moved);
    expect((await usedBytes(place.directory)) - before).toBeGreaterThan(6.5 * 0.6 * mib);

    const frames = join(place.directory, root, "frames");
    const damaged = await readFile(frames);
    damaged[1000]! ^= 1;
    await writeFile(frames, damaged);
    const second = await place.add("second", imageOf([6], 2, 8));
    expect(sha256(await readStored(place.directory, second.root))).toBe(sha256(imageOf([6], 2, 8)));
  });

  test("a file that cannot be linked: its groups are written anew, and nothing else changes", async () => {
    await using place = await openPlace();
    const { root } = await place.add("first", imageOf([], 1, 4));
    const directory = join(place.directory, root);
    const manifest = decodeManifest(await readFile(join(directory, "manifest")));
    const frames = await readFile(join(directory, "frames"));
    const base = {
      directory,
      groups: 4,
      layout: layoutOf(["frames"], [{ pack: 0, offset: 0, length: frames.length }]),
    };
    await rm(join(directory, "frames"));
    await using target = await temporaryDirectory();
    {
      await using sink = await createFrameSink(target.path, [base]);
      for (let group = 0, at = 0; group < 4; at += manifest.frameBytes[group++]!)
        await sink.add(
          group,
          groupDigest(manifest, group),
          frames.subarray(at, at + manifest.frameBytes[group]!),
        );
      await sink.finish();
    }
    expect(await namesIn(target.path)).toEqual(["frames"]);
    expect(Buffer.compare(await readFile(join(target.path, "frames")), frames)).toBe(0);
  });
});

describe("remove and collect", () => {
  test("what an image had alone is free at once; what others share stays, in any order", async () => {
    await using place = await openPlace();
    const names = ["a", "b", "c"];
    const bytes = [imageOf(), imageOf([1, 2, 3], 2), imageOf([2, 3, 4], 3)];
    const images: ImageView[] = [];
    for (const [i, name] of names.entries()) images.push(await place.add(name, bytes[i]!));
    const before = await usedBytes(place.directory);
    expect(await place.store.collect({}, never)).toMatchObject({ images: 3, deadBytes: 0, freedBytes: 0 });
    const freed = await place.store.remove(images[1]!.root);
    expect((await usedBytes(place.directory)) + freed).toBe(before);
    expect(freed).toBeGreaterThan(0);
    await place.store.remove(images[0]!.root);
    await verifyAll(place);
    expect(sha256(await readStored(place.directory, images[2]!.root))).toBe(sha256(bytes[2]!));
    await place.store.remove(images[2]!.root);
    expect(await namesIn(place.directory)).toEqual([]);
    expect(await codeOf(place.store.remove(images[2]!.root))).toBe("image.unknown");
  });

  test("collect frees exactly what is dead, and what it left verifies", async () => {
    await using place = await openPlace();
    const changed = Array.from({ length: 14 }, (_, i) => 8 + i);
    const first = await place.add("first", imageOf());
    const second = await place.add("second", imageOf(changed, 2));
    const third = await place.add("third", imageOf([...changed, 3], 3));
    await place.store.remove(first.root);
    const before = await usedBytes(place.directory);
    const planned = await place.store.collect({ dryRun: true }, never);
    expect(await usedBytes(place.directory)).toBe(before);
    expect(planned.freedBytes).toBe(planned.deadBytes);
    expect(planned.deadBytes / planned.storedBytes).toBeGreaterThan(0.2);

    const reading = await place.store.open(second.root, "frames");
    const stream = await reading.read({ start: 0, end: reading.sizeBytes });
    const lists = async () => {
      const sizes = [second, third].map(({ root }) => stat(join(place.directory, root, "segments")));
      return (await Promise.all(sizes)).reduce((sum, { size }) => sum + size, 0);
    };
    const listsBefore = await lists();
    expect(await place.store.collect({}, never)).toEqual(planned);
    const listsAdded = (await lists()) - listsBefore;
    expect(before - (await usedBytes(place.directory)) + listsAdded).toBe(planned.freedBytes);
    expect(await place.store.collect({ all: true }, never)).toMatchObject({ deadBytes: 0, freedBytes: 0 });
    // A download that began before goes on, and one by a part that was opened before finds what moved.
    let bytes = 0;
    for await (const piece of stream) bytes += (piece as Uint8Array).length;
    expect(bytes).toBe(reading.sizeBytes);
    expect(await readPart(reading)).toHaveLength(reading.sizeBytes);
    await verifyAll(place);
    await place.reopen();
    await verifyAll(place);
    expect(place.store.list()).toHaveLength(2);
    expect(sha256(await readStored(place.directory, third.root))).toBe(sha256(imageOf([...changed, 3], 3)));
  });

  test("a little that is dead among much is left, unless all is asked for", async () => {
    await using place = await openPlace();
    const first = await place.add("first", imageOf());
    await place.add("second", imageOf([3], 2));
    await place.store.remove(first.root);
    const left = await place.store.collect({}, never);
    expect([left.freedBytes, left.copiedBytes]).toEqual([0, 0]);
    expect(left.deadBytes).toBeGreaterThan(0);
    expect(left.left).toMatchObject({ files: 1, bytes: left.deadBytes });
    const all = await place.store.collect({ all: true }, never);
    expect([all.freedBytes, all.copiedBytes]).toEqual([left.deadBytes, left.left.copyBytes]);
    expect(all.left).toEqual({ files: 0, bytes: 0, copyBytes: 0 });
    await verifyAll(place);
  });

  test("it tells how far it is; stopped at any of its steps, nothing is lost and the rest is for the next time", async () => {
    for (const stopAt of [0, 4]) {
      await using place = await openPlace();
      const first = await place.add("first", imageOf());
      const changed = Array.from({ length: 14 }, (_, i) => 8 + i);
      await place.add("second", imageOf(changed, 2));
      await place.store.remove(first.root);
      const planned = await place.store.collect({ dryRun: true }, never);
      const catalog = await openCatalog(place.directory);
      const told: CollectionProgress[] = [];
      const stop = new AbortController();
      const collecting = collect(
        catalog,
        {},
        {
          signal: stop.signal,
          onProgress: (progress) => {
            told.push(progress);
            if (told.length > stopAt) stop.abort(new Error("stopped"));
          },
        },
      );
      await expect(collecting).rejects.toThrow("stopped");
      expect(told[0]).toEqual({
        ...{ files: 1, filesDone: 0, copyBytes: planned.copiedBytes, copiedBytes: 0, freedBytes: 0 },
      });
      await place.reopen();
      await verifyAll(place);
      expect(place.store.collection()).toBeNull();
      const again = await place.store.collect({}, never);
      expect(again.deadBytes).toBeGreaterThanOrEqual(planned.deadBytes);
      expect(again.freedBytes).toBe(again.deadBytes);
      expect(await place.store.collect({ all: true }, never)).toMatchObject({ deadBytes: 0 });
      await verifyAll(place);
    }
  });

  test("who asks with a signal that has ended gets image.aborted, and nothing happens", async () => {
    await using place = await openPlace();
    expect(await codeOf(place.store.collect({ all: true }, AbortSignal.abort()))).toBe("image.aborted");
  });

  test("an image that is removed while it is read, is read to its end", async () => {
    await using place = await openPlace();
    await place.add("first", imageOf());
    const { root } = await place.add("second", imageOf([1, 9], 2));
    const part = await place.store.open(root, "frames");
    const expected = await readPart(part);
    const stream = await part.read({ start: 0, end: part.sizeBytes });
    await place.store.remove(root);
    const pieces: Uint8Array[] = [];
    for await (const piece of stream) pieces.push(piece as Uint8Array);
    expect(Buffer.compare(Buffer.concat(pieces), expected)).toBe(0);
    expect(await codeOf(part.read({ start: 0, end: 1 }))).toBe("image.unknown");
  });

  test("images that come and go while it collects", async () => {
    await using place = await openPlace();
    const changed = Array.from({ length: 14 }, (_, i) => 8 + i);
    const first = await place.add("first", imageOf());
    const second = await place.add("second", imageOf(changed, 2));
    await place.store.remove(first.root);
    const collecting = place.store.collect({ all: true }, never);
    const adding = place.upload("third", imageOf([20], 3));
    const removing = place.store.remove(second.root);
    await Promise.all([collecting, adding, removing]);
    await verifyAll(place);
    expect(place.store.list().map(({ name }) => name)).toEqual(["third"]);
    await place.store.collect({ all: true }, never);
    await verifyAll(place);
  });
});

describe("layouts", () => {
  test("a list of segments that does not add up is no layout", async () => {
    const good = layoutOf(
      ["frames", "pack-0123456789abcdef"],
      [
        { pack: 0, offset: 0, length: 10 },
        { pack: 1, offset: 5, length: 7 },
      ],
    );
    expect(decodeLayout(encodeLayout(good))).toEqual(good);
    for (const segment of [
      { pack: 2, offset: 0, length: 1 },
      { pack: 0, offset: -1, length: 1 },
      { pack: 0, offset: 0.5, length: 1 },
      { pack: 0, offset: 0, length: 0 },
      { pack: 0, offset: Number.NaN, length: 1 },
      { pack: 0, offset: Number.MAX_SAFE_INTEGER, length: 1 },
    ])
      expect(await codeOf(() => decodeLayout(encodeLayout(layoutOf(good.packs, [segment]))))).toBe(
        "image.corrupt",
      );
    for (const name of ["../frames", "manifest", "pack-x"])
      expect(await codeOf(() => decodeLayout(encodeLayout(layoutOf([name], []))))).toBe("image.corrupt");
  });

  test("stretches of any range are those of the segments, byte for byte", () => {
    let state = 7;
    const random = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state % below;
    };
    for (let round = 0; round < 200; round++) {
      const segments = Array.from({ length: 1 + random(6) }, () => ({
        pack: random(3),
        offset: random(20),
        length: 1 + random(5),
      }));
      const layout = layoutOf(["frames", `pack-${"0".repeat(16)}`, `pack-${"1".repeat(16)}`], segments);
      const bytes = segments.flatMap(({ pack, offset, length }) =>
        Array.from({ length }, (_, i) => `${layout.packs[pack]}:${offset + i}`),
      );
      const start = random(bytes.length);
      const end = start + 1 + random(bytes.length - start);
      const found = stretchesOf(layout, { start, end }).flatMap(({ name, start: from, end: to }) =>
        Array.from({ length: to - from }, (_, i) => `${name}:${from + i}`),
      );
      expect(found).toEqual(bytes.slice(start, end));
    }
  });

  test("live bytes stay in order when they close up", () => {
    const live = unionOf([
      { offset: 10, length: 5 },
      { offset: 0, length: 3 },
      { offset: 12, length: 8 },
      { offset: 3, length: 1 },
      { offset: 30, length: 2 },
    ]);
    expect(live).toEqual<Stretch[]>([
      { start: 0, end: 4 },
      { start: 10, end: 20 },
      { start: 30, end: 32 },
    ]);
    expect(bytesOf(live)).toBe(16);
    const moved = movedBy(live);
    expect([0, 3, 10, 19, 30, 31].map(moved)).toEqual([0, 3, 4, 13, 14, 15]);
    expect(() => moved(5)).toThrow();
  });
});
