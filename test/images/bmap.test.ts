// Block maps: those of the real bmaptool where it is installed, made by hand for the rest; and imports by them.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { open, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { parseBmap } from "../../controller/images/bmap.ts";
import { type ImportOptions, importImage } from "../../controller/images/import.ts";
import { codeOf, content, errorOf, mib, namesIn, readStored, rootOf, temporaryDirectory } from "./support.ts";

const hex = (algorithm: string, bytes: Uint8Array | string) =>
  createHash(algorithm).update(bytes).digest("hex");

interface Made {
  readonly version?: string;
  readonly algorithm?: "sha1" | "sha256" | "sha512";
  readonly blockBytes?: number;
  /** First and last block, both included. */
  readonly ranges: readonly (readonly [number, number])[];
  /** After the own sum was made. */
  readonly edit?: (text: string) => string;
  /** Before it. */
  readonly shape?: (text: string) => string;
}

/** As bmaptool writes it, of an image's bytes. */
function makeBmap(image: Uint8Array, made: Made): string {
  const { version = "2.0", algorithm = "sha256", blockBytes = 4096, ranges } = made;
  const old = version === "1.3";
  const own = old ? "BmapFileSHA1" : "BmapFileChecksum";
  const zeroes = "0".repeat(hex(algorithm, "").length);
  const range = ([first, last]: readonly [number, number]) => {
    const digest = hex(algorithm, image.subarray(first * blockBytes, (last + 1) * blockBytes));
    const blocks = first === last ? `${first}` : `${first}-${last}`;
    return `        <Range ${old ? "sha1" : "chksum"}="${digest}"> ${blocks} </Range>`;
  };
  const blank = `<?xml version="1.0" ?>
<!-- This file contains the block map for an image file. -->
<bmap version="${version}">
    <ImageSize> ${image.length} </ImageSize>
    <BlockSize> ${blockBytes} </BlockSize>
    <BlocksCount> ${Math.ceil(image.length / blockBytes)} </BlocksCount>
    <MappedBlocksCount> ${ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0)} </MappedBlocksCount>
${old ? "" : `    <ChecksumType> ${algorithm} </ChecksumType>\n`}    <${own}> ${zeroes} </${own}>
    <BlockMap>
${ranges.map(range).join("\n")}
    </BlockMap>
</bmap>
`;
  const text = (made.shape ?? ((same) => same))(blank);
  return (made.edit ?? ((same) => same))(text.replace(zeroes, hex(algorithm, text)));
}

const small = content(5 * 4096 + 100, 3);

describe("a block map", () => {
  test.each<[string, Partial<Made>]>([
    ["2.0", {}],
    ["2.0 with SHA-512", { algorithm: "sha512" }],
    ["1.4", { version: "1.4" }],
    ["1.3", { version: "1.3", algorithm: "sha1" }],
  ])("%s", (_, made) => {
    const map = parseBmap(
      Buffer.from(
        makeBmap(small, {
          ranges: [
            [0, 1],
            [3, 3],
            [5, 5],
          ],
          ...made,
        }),
      ),
      "m",
    );
    expect(map).toMatchObject({ imageBytes: small.length, mappedBytes: 3 * 4096 + 100 });
    expect(map.ranges.map(({ start, end }) => [start, end])).toEqual([
      [0, 8192],
      [12_288, 16_384],
      [20_480, small.length],
    ]);
  });

  test.each<[string, Omit<Made, "ranges"> & { ranges?: Made["ranges"] }]>([
    ["its own sum does not hold", { edit: (text) => text.replace("20580", "20579") }],
    ["a comment was changed after", { edit: (text) => text.replace("This file", "That file") }],
    ["an unknown version", { version: "3.0" }],
    ["no version", { shape: (text) => text.replace(' version="2.0"', "") }],
    ["no own sum", { shape: (text) => text.replace(/.*BmapFileChecksum.*\n/, "") }],
    ["a range without its sum", { shape: (text) => text.replace(/ chksum="[0-9a-f]*"/, "") }],
    ["a sum that is cut off", { shape: (text) => text.replace(/chksum="./, 'chksum="') }],
    ["MD5", { shape: (text) => text.replace("> sha256 <", "> md5 <") }],
    [
      "ranges out of order",
      {
        ranges: [
          [3, 3],
          [0, 1],
        ],
      },
    ],
    [
      "ranges that overlap",
      {
        ranges: [
          [0, 2],
          [2, 3],
        ],
      },
    ],
    ["a range backwards", { shape: (text) => text.replace("> 0-1 <", "> 1-0 <") }],
    ["a range past the end", { ranges: [[0, 6]] }],
    ["a range that is no number", { shape: (text) => text.replace("> 0-1 <", "> 0-1-2 <") }],
    ["another number of mapped blocks", { shape: (text) => text.replace("> 2 <", "> 3 <") }],
    ["another number of blocks", { shape: (text) => text.replace("> 6 <", "> 7 <") }],
    ["an empty image", { shape: (text) => text.replace("> 20580 <", "> 0 <") }],
    ["a size beyond all numbers", { shape: (text) => text.replace("> 20580 <", "> 99999999999999999999 <") }],
    ["an entity", { shape: (text) => text.replace("> 0-1 <", "> &#48;-1 <") }],
    ["a document type", { shape: (text) => text.replace("?>\n", '?>\n<!DOCTYPE bmap [<!ENTITY a "b">]>\n') }],
    ["a CDATA section", { shape: (text) => text.replace("> 0-1 <", "><![CDATA[0-1]]><") }],
    [
      "an element twice",
      { shape: (text) => text.replace("<BlockSize>", "<BlockSize> 512 </BlockSize><BlockSize>") },
    ],
    ["text beside the ranges", { shape: (text) => text.replace("<BlockMap>", "<BlockMap> 7") }],
    [
      "a range out of the map",
      { shape: (text) => text.replace("<BlockMap>", '<Range chksum="">0</Range><BlockMap>') },
    ],
    ["what is not closed", { shape: (text) => text.replace("</bmap>", "") }],
    ["closed by another", { shape: (text) => text.replace("</BlockMap>", "</BlocksMap>") }],
    ["two documents", { shape: (text) => `${text}<bmap version="2.0"></bmap>` }],
  ])("%s: refused", async (_, made) => {
    const text = makeBmap(small, { ranges: [[0, 1]], ...made });
    expect(await codeOf(() => parseBmap(Buffer.from(text), "m"))).toBe("image.bad-bmap");
  });

  test.each<[string, string]>([
    ["a comment", `<bmap version="2.0"><!-- ${"x".repeat(8 << 20)} --></bmap>`],
    ["a comment that does not end", `<bmap version="2.0"><!-- ${"x".repeat(8 << 20)}`],
    ["a comment with dashes in it", `<bmap version="2.0"><!-- -- --></bmap>`],
    ["attributes", `<bmap version="2.0"><Range ${'a="b" '.repeat(1 << 20)}></Range></bmap>`],
    ["an attribute", `<bmap version="2.0"><ImageSize a="${"b".repeat(8 << 20)}"></ImageSize></bmap>`],
    ["text", `<bmap version="2.0"><ImageSize>${"7".repeat(8 << 20)}</ImageSize></bmap>`],
    ["spaces", `<bmap version="2.0"><Range${" ".repeat(8 << 20)}`],
    ["depth", "<bmap>".repeat(1 << 20)],
  ])("%s of megabytes: refused", async (_, text) => {
    expect(await codeOf(() => parseBmap(Buffer.from(text), "m"))).toBe("image.bad-bmap");
  });

  test("more elements than any map has are refused before they fill the memory", async () => {
    const text = `<bmap version="2.0">${"<a></a>".repeat(1_100_000)}`;
    expect((await errorOf(() => parseBmap(Buffer.from(text), "m"))).message).toMatch(/more than 1048576/);
  });

  test("garbage ends in no other way", async () => {
    const good = makeBmap(small, {
      ranges: [
        [0, 1],
        [3, 3],
      ],
    });
    let state = 1;
    const random = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state % below;
    };
    for (let i = 0; i < 2000; i++) {
      const bytes = Buffer.from(good);
      for (let k = 0; k <= random(3); k++) bytes[random(bytes.length)] = random(256);
      const cut = random(4) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes;
      if (cut.equals(Buffer.from(good))) continue;
      expect(await codeOf(() => parseBmap(cut, "m"))).toBe("image.bad-bmap");
    }
    const deep = Buffer.from(`<bmap version="2.0">${"<BlockMap>".repeat(100_000)}`);
    expect(await codeOf(() => parseBmap(deep, "m"))).toBe("image.bad-bmap");
  });
});

describe("an import by a block map", () => {
  const blocks = (from: number, to: number) => [from / 4096, to / 4096 - 1] as const;
  const ranges = [blocks(0, mib + 8192), blocks(3 * mib, 4 * mib), blocks(7 * mib, 7 * mib + 4096)];
  const imageBytes = 9 * mib + 512;
  /** Garbage everywhere; what the image is, and what of it is mapped. */
  const dirty = content(imageBytes, 4);
  const clean = new Uint8Array(imageBytes);
  for (const [first, last] of ranges)
    clean.set(dirty.subarray(first * 4096, (last + 1) * 4096), first * 4096);

  const setUp = async (made: Partial<Made> = {}, input: Uint8Array = dirty) => {
    const directory = await temporaryDirectory();
    const path = (name: string) => join(directory.path, name);
    await writeFile(path("disk.raw"), input);
    await writeFile(path("disk.raw.gz"), gzipSync(input, { level: 1 }));
    await writeFile(path("disk.bmap"), makeBmap(clean, { ranges, ...made }));
    const run = (name: string, more: Partial<ImportOptions> = {}) =>
      importImage({
        input: path(name),
        store: path("store"),
        bmap: path("disk.bmap"),
        signal: new AbortController().signal,
        ...more,
      });
    return { path, run, [Symbol.asyncDispose]: directory[Symbol.asyncDispose] };
  };

  test("what is mapped is the image, the rest is zeroes, whatever the input holds there", async () => {
    for (const name of ["disk.raw", "disk.raw.gz"]) {
      await using place = await setUp();
      const seen: number[] = [];
      const image = await place.run(name, { onProgress: ({ imageBytes: done }) => seen.push(done) });
      expect(image.root).toBe(await rootOf(clean));
      expect(image).toMatchObject({ sizeBytes: imageBytes, zeroGroups: 6 });
      expect(Buffer.compare(await readStored(place.path("store"), image.root), clean)).toBe(0);
      expect(seen.at(-1)).toBeGreaterThanOrEqual(imageBytes);
      expect(seen.length).toBeGreaterThan(5);
    }
  });

  test("what is not mapped is not read: the file may end before", async () => {
    await using place = await setUp({}, dirty.subarray(0, 7 * mib + 4096));
    for (const name of ["disk.raw", "disk.raw.gz"])
      expect((await place.run(name)).root).toBe(await rootOf(clean));
  });

  test("a byte of a range that is another: refused with the range, and nothing is kept", async () => {
    const wrong = dirty.with(3 * mib + 77, dirty[3 * mib + 77]! ^ 1);
    await using place = await setUp({}, wrong);
    for (const name of ["disk.raw", "disk.raw.gz"]) {
      expect(await errorOf(place.run(name))).toMatchObject({
        code: "image.digest-mismatch",
        details: { start: 3 * mib, end: 4 * mib },
      });
      expect(await namesIn(place.path("store"))).toEqual([]);
    }
  });

  test("an input that ends within a range, or goes on after the image", async () => {
    await using short = await setUp({}, dirty.subarray(0, 7 * mib + 100));
    for (const name of ["disk.raw", "disk.raw.gz"])
      expect(await codeOf(short.run(name))).toBe("image.truncated");
    await using long = await setUp({}, Buffer.concat([dirty, Buffer.alloc(512)]));
    expect(await codeOf(long.run("disk.raw.gz"))).toBe("image.bad-bmap");
  });

  test("with a sum of the whole input, the map may neither take anything away nor add", async () => {
    await using place = await setUp();
    const sha256 = hex("sha256", dirty);
    expect(await codeOf(place.run("disk.raw", { sha256 }))).toBe("image.bad-bmap");
    await using good = await setUp({}, clean);
    const { root } = await good.run("disk.raw", { sha256: hex("sha256", clean) });
    expect(root).toBe(await rootOf(clean));
    const shorter = clean.subarray(0, 8 * mib);
    await using cut = await setUp({}, shorter);
    expect(await codeOf(cut.run("disk.raw", { sha256: hex("sha256", shorter) }))).toBe("image.bad-bmap");
  });

  test("by plain http it could leave out anything: refused unless a sum of the whole input vouches for it", async () => {
    await using place = await setUp({}, clean);
    const map = await readFile(place.path("disk.bmap"));
    const server = createServer((_, response) => void response.end(map));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const bmap = `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk.bmap`;
      expect(await codeOf(place.run("disk.raw", { bmap }))).toBe("source.refused");
      expect(await namesIn(place.path("store"))).toEqual([]);
      const { root } = await place.run("disk.raw", { bmap, sha256: hex("sha256", clean) });
      expect(root).toBe(await rootOf(clean));
    } finally {
      server.close();
    }
  });

  test("of a qcow2 image there is none; a map that is none stops the import", async () => {
    await using place = await setUp({ edit: (text) => text.slice(0, -20) });
    expect(await codeOf(place.run("disk.raw"))).toBe("image.bad-bmap");
    expect(await codeOf(place.run("disk.raw", { bmap: place.path("none") }))).toBe("file.unreadable");
  });
});

const bmaptool = spawnSync("bmaptool", ["--version"]).error === undefined;
if (!bmaptool) console.log("bmaptool is not installed: its own files are NOT tested here");

test.skipIf(!bmaptool)("what `bmaptool create` writes of a sparse file, is read", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "sparse.raw");
  {
    await using file = await open(path, "wx");
    await file.truncate(6 * mib + 100);
    await file.write(content(100_000, 5), 0, 100_000, 4096);
    await file.write(content(5000, 6), 0, 5000, 4 * mib);
  }
  const image = await readFile(path);
  for (const options of [[], ["--no-checksum"]]) {
    const text = execFileSync("bmaptool", ["create", ...options, path], { encoding: "utf8" });
    await writeFile(join(directory.path, "sparse.bmap"), text);
    const importing = importImage({
      input: path,
      store: join(directory.path, "store"),
      bmap: join(directory.path, "sparse.bmap"),
      signal: new AbortController().signal,
    });
    if (options.length > 0) expect(await codeOf(importing)).toBe("image.bad-bmap");
    else expect((await importing).root).toBe(await rootOf(image));
  }
});
