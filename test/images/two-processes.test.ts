// Several processes at one image store: what one of them moved, published or removed, the others neither lose nor invent.
import { mkdir, readFile, truncate, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { expect, test } from "vitest";
import { openCatalog } from "../../controller/images/catalog.ts";
import { importImage } from "../../controller/images/import.ts";
import { layoutOf } from "../../controller/images/layout.ts";
import { createStaging } from "../../controller/images/staging.ts";
import { openImageStore } from "../../controller/images/store.ts";
import { markReady, packOf, prepare, turnReady, unprepare } from "../../controller/images/turning.ts";
import { decodeManifest } from "../../protocol/manifest.ts";
import { content, mib, namesIn, readStored, temporaryDirectory } from "./support.ts";

const never = new AbortController().signal;

/** Six groups; those named differ by version. */
function imageOf(changed: readonly number[] = [], version = 1): Uint8Array {
  const bytes = new Uint8Array(6 * mib);
  for (let group = 0; group < 6; group++)
    bytes.set(content(mib, group + 1 + (changed.includes(group) ? 100 * version : 0)), group * mib);
  return bytes;
}

async function importInto(store: string, name: string, bytes: Uint8Array): Promise<string> {
  const input = `${store}-${name}.raw`;
  await writeFile(input, bytes);
  return (await importImage({ input, store, name, threads: 1, signal: never })).root;
}

test("frames that another process moved are found, not taken for what no image has", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "store");
  const first = await importInto(path, "first", imageOf());
  const images = new Map<string, Uint8Array>();
  for (const [version, changed] of [
    [2, 3],
    [3, 4],
  ] as const) {
    const bytes = imageOf([changed, 5], version);
    images.set(await importInto(path, `v${version}`, bytes), bytes);
  }
  await using store = await openImageStore(path, { threads: 1 });
  await store.remove(first);
  {
    await using other = await openImageStore(path, { threads: 1 });
    expect((await other.collect({ all: true }, never)).freedBytes).toBeGreaterThan(0);
  }
  expect((await store.collect({ all: true }, never)).freedBytes).toBe(0);
  for (const [root, bytes] of images)
    expect(Buffer.compare(await readStored(path, root), bytes), "the image is whole").toBe(0);
  // And what it moves itself begins at what lies there now.
  await store.remove([...images.keys()][0]!);
  await store.collect({ all: true }, never);
  const [root, bytes] = [...images][1]!;
  expect(Buffer.compare(await readStored(path, root), bytes)).toBe(0);
});

test("an image that another process published meanwhile stays, with its signatures", async () => {
  await using directory = await temporaryDirectory();
  const [path, elsewhere] = [join(directory.path, "store"), join(directory.path, "elsewhere")];
  const bytes = imageOf();
  const root = await importInto(elsewhere, "one", bytes);
  const manifest = decodeManifest(await readFile(join(elsewhere, root, "manifest")));
  const catalog = await openCatalog(path);
  await using staging = await createStaging(path);
  await writeFile(join(staging.path, "frames"), await readFile(join(elsewhere, root, "frames")));
  const late = {
    ...staging,
    async publish(target: string) {
      if ((await namesIn(target)).length === 0) {
        await importInto(path, "one", bytes);
        await writeFile(join(target, "signatures"), "theirs");
      }
      await staging.publish(target);
    },
  };
  expect((await catalog.publish(late, manifest)).root).toBe(root);
  expect(await namesIn(join(path, root))).toContain("signatures");
  expect(Buffer.compare(await readStored(path, root), bytes)).toBe(0);
});

test("an image that is looked for while it is removed is not there afterwards", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "store");
  await using store = await openImageStore(path, { threads: 1 });
  const found: string[] = [];
  for (let time = 0; time < 10; time++) {
    const root = await importInto(path, "one", content(mib, time + 1));
    const removed = store.remove(root);
    const looked = Array.from({ length: 50 }, () => store.rescan());
    await Promise.all([removed, ...looked]);
    found.push(...store.list().map((image) => image.root));
  }
  expect(found).toEqual([]);
});

test("what was prepared and not marked is taken back; what is marked is turned", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "store");
  const bytes = content(2 * mib);
  const root = await importInto(path, "one", bytes);
  const image = join(path, root);
  const before = await namesIn(image);
  const frames = await readFile(join(image, "frames"));
  const fresh = join(path, "fresh");
  await writeFile(fresh, frames);
  const id = "0123456789abcdef";
  const next = layoutOf([packOf(id)], [{ pack: 0, offset: 0, length: frames.length }]);
  await prepare(image, id, fresh, next);
  expect(await namesIn(image)).not.toEqual(before);
  await unprepare(path, id, [image]);
  expect(await namesIn(image)).toEqual(before);
  await prepare(image, id, fresh, next);
  await markReady(path, id, fresh);
  await unprepare(path, id, [image]);
  await turnReady(path);
  expect(await namesIn(image)).toEqual(["manifest", packOf(id), "segments"].sort());
  expect(Buffer.compare(await readStored(path, root), bytes)).toBe(0);
});

test("a list to come that a failing disk has damaged: the image keeps what it has, and the store opens", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "store");
  const root = await importInto(path, "one", content(mib));
  const [id, image] = ["0123456789abcdef", join(path, root)];
  const next = layoutOf([packOf(id)], [{ pack: 0, offset: 0, length: 1 }]);
  await prepare(image, id, join(image, "frames"), next);
  await truncate(join(image, `.segments-${id}`), 10);
  await markReady(path, id, join(image, "frames"));
  await using store = await openImageStore(path, { threads: 1 });
  expect(store.list().map((one) => one.root)).toEqual([root]);
  await store.collect({}, never);
  expect(await namesIn(image)).toEqual(["frames", "manifest"]);
  expect(Buffer.compare(await readStored(path, root), content(mib))).toBe(0);
});

test("what a killed import left is freed by the next collect, not only when the store is opened", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "store");
  await using store = await openImageStore(path, { threads: 1 });
  await using living = await createStaging(path);
  const left = join(path, ".tmp-0-0-killed");
  await mkdir(left);
  await writeFile(join(left, "frames"), new Uint8Array(5000));
  expect(await store.collect({ dryRun: true }, never)).toMatchObject({ deadBytes: 5000, freedBytes: 5000 });
  expect(await namesIn(left)).toEqual(["frames"]);
  expect(await store.collect({}, never)).toMatchObject({ storedBytes: 5000, freedBytes: 5000 });
  expect(await namesIn(path)).toEqual([basename(living.path)]);
});

test("what cannot be removed or read is told once, and keeps the store from nothing", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "store");
  const whole = await importInto(path, "whole", content(mib));
  const damaged = await importInto(path, "damaged", content(mib, 2));
  await truncate(join(path, damaged, "frames"), 10);
  // A file where a directory is expected cannot be listed, also not by root.
  await writeFile(join(path, ".tmp-0-0-odd"), "");
  const told: string[] = [];
  await using store = await openImageStore(path, {
    threads: 1,
    onUnreadable: (name) => void told.push(name),
  });
  await store.rescan();
  await store.rescan();
  expect(told.sort()).toEqual([".tmp-0-0-odd", damaged].sort());
  expect(store.list().map(({ root }) => root)).toEqual([whole]);
});
