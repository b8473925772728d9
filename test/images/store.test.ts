// The image store: what is uploaded is listed only when every group is proven, and a crash leaves no trace.
import { execFileSync } from "node:child_process";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { importImage } from "../../controller/images/import.ts";
import { createStaging } from "../../controller/images/staging.ts";
import { type ImageStore, openImageStore } from "../../controller/images/store.ts";
import { bytesOfHex } from "../../protocol/bytes.ts";
import {
  decodeManifest,
  encodeManifest,
  frameOffsets,
  groupDigest,
  type Manifest,
} from "../../protocol/manifest.ts";
import {
  codeOf,
  content,
  contentWithHoles,
  errorOf,
  mib,
  namesIn,
  pieces,
  readPart,
  readStored,
  rootOf,
  temporaryDirectory,
} from "./support.ts";

const never = new AbortController().signal;
const raw = contentWithHoles(5 * mib + 777);
let source: Awaited<ReturnType<typeof temporaryDirectory>>;
let upload: { root: string; manifest: Manifest; bytes: Uint8Array; frames: Uint8Array };

beforeAll(async () => {
  source = await temporaryDirectory();
  const input = join(source.path, "disk.raw");
  await writeFile(input, raw);
  const { root } = await importImage({ input, store: join(source.path, "store"), threads: 1, signal: never });
  const bytes = await readFile(join(source.path, "store", root, "manifest"));
  upload = {
    root,
    manifest: decodeManifest(bytes),
    bytes,
    frames: await readFile(join(source.path, "store", root, "frames")),
  };
});
afterAll(() => source[Symbol.asyncDispose]());

async function withStore<T>(use: (store: ImageStore, directory: string) => Promise<T>): Promise<T> {
  await using directory = await temporaryDirectory();
  await using store = await openImageStore(directory.path, { threads: 1 });
  return await use(store, directory.path);
}

/** Puts the source's image under another name, or changed otherwise. */
const manifestWith = (changes: Partial<Manifest>) => encodeManifest({ ...upload.manifest, ...changes });

describe("an upload", () => {
  test.each([1009, 65_536, 64 * mib])(
    "in pieces of %i bytes is verified, stored and served",
    async (pieceBytes) => {
      await withStore(async (store, directory) => {
        const before = Date.now();
        await store.beginUpload(upload.root, upload.bytes);
        expect(store.list()).toEqual([]);
        const view = await store.receiveFrames(upload.root, pieces(upload.frames, pieceBytes), never);
        expect(view).toMatchObject({
          root: await rootOf(raw),
          name: "disk",
          sizeBytes: raw.length,
          groups: 6,
          zeroGroups: 2,
          storedBytes: upload.frames.length,
        });
        expect(view.addedAt).toBeGreaterThanOrEqual(before - 1000);
        expect(store.list()).toEqual([view]);
        expect(Buffer.compare(await readStored(directory, view.root), raw)).toBe(0);
        expect(await namesIn(directory)).toEqual([view.root]);
        const frames = await store.open(view.root, "frames");
        expect(frames.sizeBytes).toBe(upload.frames.length);
        expect(Buffer.compare(await readPart(frames), upload.frames)).toBe(0);
        expect((await store.open(view.root, "manifest")).sizeBytes).toBe(upload.bytes.length);
        // A controller that starts again finds the same.
        await using again = await openImageStore(directory);
        expect(again.list()).toEqual([view]);
      });
    },
  );

  test("again, by any name, is the image that is there", async () => {
    await withStore(async (store) => {
      await store.beginUpload(upload.root, upload.bytes);
      const view = await store.receiveFrames(upload.root, pieces(upload.frames, mib), never);
      await store.beginUpload(upload.root, manifestWith({ name: "other" }));
      expect(await store.receiveFrames(upload.root, pieces(upload.frames, mib), never)).toEqual(view);
      expect(store.list()).toEqual([view]);
    });
  });

  test("an image of one group, and one of zeroes only", async () => {
    await withStore(async (store) => {
      for (const bytes of [content(1000), new Uint8Array(1000)]) {
        const root = await rootOf(bytes);
        const frame = bytes[0] === 0 ? new Uint8Array() : zstdCompressSync(bytes);
        const digest = bytesOfHex(root);
        const manifest = encodeManifest({
          sizeBytes: 1000,
          sectorBytes: null,
          root: digest,
          groups: digest,
          frameBytes: Uint32Array.of(frame.length),
          name: `i${root.slice(0, 4)}`,
          importedFrom: "raw",
        });
        await store.beginUpload(root, manifest);
        expect((await store.receiveFrames(root, pieces(frame, 100), never)).root).toBe(root);
      }
      expect(store.list()).toHaveLength(2);
    });
  });
});

describe("what is not the image is not listed", () => {
  const offsetOf = (group: number) => frameOffsets(upload.manifest)[group]!;
  /** Uploads these frames; asserts that nothing is left, and that a right upload then succeeds. */
  async function failure(frames: () => AsyncIterable<Uint8Array>, manifest = upload.bytes, signal = never) {
    return await withStore(async (store, directory) => {
      await store.beginUpload(upload.root, manifest);
      const error = await errorOf(store.receiveFrames(upload.root, frames(), signal));
      expect(store.list()).toEqual([]);
      expect(await namesIn(directory)).toEqual([]);
      expect(await codeOf(store.receiveFrames(upload.root, pieces(upload.frames, mib), never))).toBe(
        "image.incomplete",
      );
      await store.beginUpload(upload.root, upload.bytes);
      expect((await store.receiveFrames(upload.root, pieces(upload.frames, mib), never)).root).toBe(
        upload.root,
      );
      return error;
    });
  }
  /** The frames with group `group` replaced, and the manifest that goes with them. */
  const replaced = (group: number, frame: Uint8Array) => {
    const frames = Buffer.concat([
      upload.frames.subarray(0, offsetOf(group)),
      frame,
      upload.frames.subarray(offsetOf(group + 1)),
    ]);
    const frameBytes = upload.manifest.frameBytes.with(group, frame.length);
    return { frames: () => pieces(frames, 100_000), manifest: manifestWith({ frameBytes }) };
  };
  const groupOf = (group: number) => raw.subarray(group * mib, (group + 1) * mib);

  test("cut short: the group that is missing is named", async () => {
    const received = 1000;
    const end = offsetOf(3) + received;
    expect(await failure(() => pieces(upload.frames.subarray(0, end), 65_536))).toMatchObject({
      code: "image.truncated",
      message: expect.stringContaining("group 3 (offset 3145728)"),
      details: { group: 3, offset: 3 * mib, received, expected: upload.manifest.frameBytes[3] },
    });
    expect(await failure(() => pieces(new Uint8Array(), 1))).toMatchObject({
      code: "image.truncated",
      details: { group: 0, offset: 0 },
    });
  });
  test("too long", async () => {
    const longer = Buffer.concat([upload.frames, Uint8Array.of(0)]);
    expect(await failure(() => pieces(longer, 65_536))).toMatchObject({
      code: "image.corrupt",
      details: { group: 5 },
    });
  });
  test("one bit flipped anywhere: the group is named", async () => {
    for (const group of [0, 2, 5]) {
      const frames = Uint8Array.from(upload.frames);
      frames[Math.floor((offsetOf(group) + offsetOf(group + 1)) / 2)]! ^= 4;
      expect(await failure(() => pieces(frames, 65_536))).toMatchObject({
        code: "image.corrupt",
        details: { group, offset: group * mib },
      });
    }
  });
  test("sound frames of other content", async () => {
    const other = groupOf(2).slice();
    other[5]! ^= 1;
    const { frames, manifest } = replaced(2, zstdCompressSync(other));
    expect(await failure(frames, manifest)).toMatchObject({
      code: "image.corrupt",
      message: expect.stringContaining("does not match its digest"),
      details: { group: 2 },
    });
  });
  test("a frame that holds more or less than its group", async () => {
    const cases: [Uint8Array, string][] = [
      [Buffer.concat([groupOf(2), Uint8Array.of(0)]), "cannot be decoded"],
      [groupOf(2).subarray(1), `holds ${mib - 1} bytes instead of ${mib}`],
      [new Uint8Array(64 * mib), "cannot be decoded"],
    ];
    for (const [bytes, message] of cases) await refuses(zstdCompressSync(bytes), message);
  });
  test("two frames for one group, a frame with bytes behind it, a skippable frame, an enormous window", async () => {
    const whole = zstdCompressSync(groupOf(2));
    const halves = [groupOf(2).subarray(0, 1000), groupOf(2).subarray(1000)].map((half) =>
      zstdCompressSync(half),
    );
    const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]);
    const wide = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1, 0, 0]);
    const behind = Buffer.concat([whole, Uint8Array.of(1)]);
    for (const frame of [Buffer.concat(halves), behind, skippable, Buffer.concat([skippable, whole])]) {
      await refuses(frame, "is not exactly one zstd frame");
    }
    await refuses(wide, "asks for too large a window");
  });
  async function refuses(frame: Uint8Array, why: string) {
    const { frames, manifest } = replaced(2, frame);
    expect(await failure(frames, manifest)).toMatchObject({
      code: "image.corrupt",
      message: `Group 2 (offset ${2 * mib}) ${why}.`,
      details: { group: 2 },
    });
  }
  test("a group that is said to be zeroes and is not", async () => {
    const { frames, manifest } = replaced(2, new Uint8Array());
    expect(await failure(frames, manifest)).toMatchObject({
      code: "image.corrupt",
      details: { group: 2, offset: 2 * mib },
    });
  });
  test("an upload that is aborted, and one whose sender goes away", async () => {
    const abort = new AbortController();
    async function* slow() {
      yield upload.frames.subarray(0, 1_500_000);
      abort.abort();
      yield upload.frames.subarray(1_500_000);
    }
    expect((await failure(slow, upload.bytes, abort.signal)).code).toBe("image.aborted");
    await withStore(async (store, directory) => {
      async function* lost() {
        yield upload.frames.subarray(0, 1_500_000);
        throw new Error("socket closed");
      }
      await store.beginUpload(upload.root, upload.bytes);
      await expect(store.receiveFrames(upload.root, lost(), never)).rejects.toThrow("socket closed");
      expect(await namesIn(directory)).toEqual([]);
    });
  });
});

describe("a manifest is refused", () => {
  test("when it does not add up to its root", async () => {
    await withStore(async (store, directory) => {
      const groups = upload.manifest.groups.slice();
      groups[40]! ^= 1;
      const begin = (root: string, bytes: Uint8Array) => codeOf(store.beginUpload(root, bytes));
      expect(await begin(upload.root, manifestWith({ groups }))).toBe("image.bad-manifest");
      expect(await begin("0".repeat(64), upload.bytes)).toBe("image.bad-manifest");
      expect(await begin(upload.root, manifestWith({ root: groupDigest(upload.manifest, 0) }))).toBe(
        "image.bad-manifest",
      );
      expect(
        await begin(upload.root, manifestWith({ frameBytes: upload.manifest.frameBytes.with(0, 2 * mib) })),
      ).toBe("image.bad-manifest");
      expect(await begin(upload.root, upload.bytes.subarray(0, 100))).toBe("image.bad-manifest");
      expect(await begin(upload.root, new Uint8Array(5))).toBe("image.bad-manifest");
      expect(await codeOf(store.receiveFrames(upload.root, pieces(upload.frames, mib), never))).toBe(
        "image.incomplete",
      );
      expect(await namesIn(directory)).toEqual([]);
    });
  });
  test("when another image has its name", async () => {
    await withStore(async (store, directory) => {
      const input = join(source.path, "small");
      await writeFile(input, content(100));
      await importImage({ input, store: directory, name: "disk", threads: 1, signal: never });
      await store.rescan();
      expect(await codeOf(store.beginUpload(upload.root, upload.bytes))).toBe("image.exists");
      expect(store.list()).toHaveLength(1);
    });
  });
  test("when the other image comes while its frames are on their way", async () => {
    await withStore(async (store, directory) => {
      await store.beginUpload(upload.root, upload.bytes);
      const input = join(source.path, "small");
      await writeFile(input, content(100));
      const small = await importImage({ input, store: directory, name: "disk", threads: 1, signal: never });
      expect(await codeOf(store.receiveFrames(upload.root, pieces(upload.frames, mib), never))).toBe(
        "image.exists",
      );
      expect(await namesIn(directory)).toEqual([small.root]);
    });
  });
});

test("one upload of an image at a time, and closing the store ends it", async () => {
  await using directory = await temporaryDirectory();
  const store = await openImageStore(directory.path, { threads: 1 });
  const gate = Promise.withResolvers<void>();
  async function* gated() {
    yield upload.frames.subarray(0, 10);
    await gate.promise;
    yield upload.frames.subarray(10);
  }
  await store.beginUpload(upload.root, upload.bytes);
  const first = codeOf(store.receiveFrames(upload.root, gated(), never));
  expect(await codeOf(store.receiveFrames(upload.root, pieces(upload.frames, mib), never))).toBe(
    "image.in-use",
  );
  expect(await codeOf(store.beginUpload(upload.root, upload.bytes))).toBe("image.in-use");
  const closed = store[Symbol.asyncDispose]();
  gate.resolve();
  expect(await first).toBe("image.aborted");
  await closed;
  expect(await namesIn(directory.path)).toEqual([]);
});

test("uploads that never come are forgotten, the oldest first", async () => {
  await withStore(async (store) => {
    const roots: string[] = [];
    for (let i = 0; i < 18; i++) {
      const bytes = content(100, i + 1);
      const root = await rootOf(bytes);
      const digest = bytesOfHex(root);
      await store.beginUpload(
        root,
        encodeManifest({
          sizeBytes: 100,
          sectorBytes: null,
          root: digest,
          groups: digest,
          frameBytes: Uint32Array.of(50),
          name: `i${i}`,
          importedFrom: "raw",
        }),
      );
      roots.push(root);
    }
    const codes = await Promise.all(
      roots.map((root) => codeOf(store.receiveFrames(root, pieces(new Uint8Array(), 1), never))),
    );
    expect(codes).toEqual([
      ...new Array(2).fill("image.incomplete"),
      ...new Array(16).fill("image.truncated"),
    ]);
  });
});

describe("finding", () => {
  test("by root, name and unique prefix; otherwise it says what there is", async () => {
    await withStore(async (store, directory) => {
      expect(await errorOf(() => store.find("debian"))).toMatchObject({
        code: "image.unknown",
        hint: expect.stringContaining("no images yet"),
      });
      for (const [name, seed] of [
        ["debian", 1],
        ["alpine", 2],
      ] as const) {
        const input = join(source.path, name);
        await writeFile(input, content(100, seed));
        await importImage({ input, store: directory, threads: 1, signal: never });
      }
      expect(store.list()).toEqual([]);
      await store.rescan();
      const [alpine, debian] = store.list();
      expect([alpine!.name, debian!.name]).toEqual(["alpine", "debian"]);
      for (const reference of ["debian", debian!.root, debian!.root.slice(0, 8)])
        expect(store.find(reference)).toEqual(debian);
      for (const reference of [debian!.root.slice(0, 7), "Debian", "", "../debian", "0".repeat(64)]) {
        expect(await errorOf(() => store.find(reference))).toMatchObject({
          code: "image.unknown",
          hint: "There are: alpine, debian.",
        });
      }
      for (const root of ["..", "0".repeat(64), "debian"])
        expect(await codeOf(store.open(root, "frames"))).toBe("image.unknown");
      await rm(join(directory, debian!.root), { recursive: true });
      expect(await codeOf(store.open(debian!.root, "frames"))).toBe("image.unknown");
      await store.rescan();
      expect(store.list()).toEqual([alpine]);
    });
  });
});

describe("after a crash", () => {
  test("what a dead process left is removed; what a living one writes stays", async () => {
    await using directory = await temporaryDirectory();
    const dead = execFileSync("sh", ["-c", "echo $$"]).toString().trim();
    const reused = `.tmp-${process.pid}-1-0`;
    for (const name of [`.tmp-${dead}-4711-0`, reused, ".tmp-nonsense"]) {
      await mkdir(join(directory.path, name));
      await writeFile(join(directory.path, name, "frames"), "half");
    }
    {
      await using living = await createStaging(directory.path);
      await using store = await openImageStore(directory.path);
      expect(store.list()).toEqual([]);
      expect((await namesIn(directory.path)).map((name) => join(directory.path, name))).toEqual([
        living.path,
      ]);
    }
    expect(await namesIn(directory.path)).toEqual([]);
  });
  test("an image whose files are damaged is not listed, and is replaced by the next upload", async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, upload.root);
    await mkdir(path);
    await writeFile(join(path, "manifest"), upload.bytes);
    await writeFile(join(path, "frames"), upload.frames.subarray(1));
    // A manifest under another image's root.
    await mkdir(join(directory.path, "0".repeat(64)));
    await writeFile(join(directory.path, "0".repeat(64), "manifest"), upload.bytes);
    await writeFile(join(directory.path, "0".repeat(64), "frames"), upload.frames);
    const unreadable: string[] = [];
    await using store = await openImageStore(directory.path, {
      threads: 1,
      onUnreadable: (root) => unreadable.push(root),
    });
    expect(store.list()).toEqual([]);
    expect(unreadable.sort()).toEqual(["0".repeat(64), upload.root].sort());
    await store.beginUpload(upload.root, upload.bytes);
    await store.receiveFrames(upload.root, pieces(upload.frames, mib), never);
    expect(Buffer.compare(await readStored(directory.path, upload.root), raw)).toBe(0);
    await rename(path, `${path}.gone`);
    await store.rescan();
    expect(store.list()).toEqual([]);
  });
});
