// Importing: every format and edge gives b3sum's root, and whatever goes wrong leaves the store as it was.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmod, mkdir, open, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { constants, gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { type ImportOptions, type ImportProgress, importImage } from "../../controller/images/import.ts";
import {
  codeOf,
  content,
  contentWithHoles,
  errorOf,
  hasProgram,
  makeQcow2,
  mib,
  namesIn,
  pieces,
  qcow2ClusterBytes,
  readStored,
  rootOf,
  systemPrograms,
  temporaryDirectory,
} from "./support.ts";

const hasXz = await hasProgram("xz");
const hasQemu = await hasProgram("qemu-img");
const isRoot = process.getuid?.() === 0;

/** Imports `bytes` as a file into a store of its own; the store's directory is `<path>/store`. */
async function withInput<T>(
  bytes: Uint8Array,
  use: (place: { options: ImportOptions; store: string; path: string }) => Promise<T>,
): Promise<T> {
  await using directory = await temporaryDirectory();
  const [input, store] = [join(directory.path, "disk.img"), join(directory.path, "store")];
  await writeFile(input, bytes);
  const options: ImportOptions = {
    input,
    store,
    threads: 1,
    programs: systemPrograms,
    signal: new AbortController().signal,
  };
  return await use({ options, store, path: directory.path });
}

/** What importing `bytes` fails with, and that nothing is left. */
async function failure(bytes: Uint8Array, changes: Partial<ImportOptions> = {}) {
  return await withInput(bytes, async ({ options, store }) => {
    const error = await errorOf(importImage({ ...options, ...changes }));
    expect(await namesIn(store)).toEqual([]);
    return error;
  });
}

const gpt = (() => {
  const bytes = contentWithHoles(5 * mib + 12_345);
  bytes.set(Buffer.from("EFI PART"), 512);
  return bytes;
})();
const gptRoot = await rootOf(gpt);
const manyFrames = Buffer.concat(
  await Array.fromAsync(pieces(gpt, 300_001), (piece) => zstdCompressSync(piece)),
);
const gptView = {
  root: gptRoot,
  name: "disk",
  sizeBytes: gpt.length,
  sectorBytes: 512,
  groups: 6,
  zeroGroups: 2,
};

describe("the root is that of the raw bytes, and the frames hold them", () => {
  test.each([1, 512, mib - 1, mib, mib + 1, 2 * mib, 3 * mib + 512])("%i bytes", async (length) => {
    const bytes = content(length, length);
    await withInput(bytes, async ({ options, store }) => {
      const view = await importImage(options);
      expect(view).toMatchObject({
        root: await rootOf(bytes),
        sizeBytes: length,
        zeroGroups: 0,
        sectorBytes: null,
        importedFrom: "raw",
      });
      expect(Buffer.compare(await readStored(store, view.root), bytes)).toBe(0);
      expect(await namesIn(store)).toEqual([view.root]);
    });
  });

  test("groups of zeroes have no frame", async () => {
    await withInput(gpt, async ({ options, store }) => {
      const progress: ImportProgress[] = [];
      const onProgress = (one: ImportProgress) => progress.push(one);
      const view = await importImage({ ...options, threads: 2, onProgress });
      expect(view).toMatchObject(gptView);
      expect(view.storedBytes).toBe((await readFile(join(store, view.root, "frames"))).length);
      expect(Buffer.compare(await readStored(store, view.root), gpt)).toBe(0);
      const done = [1, 2, 3, 4, 5].map((groups) => groups * mib).concat(gpt.length);
      const inputBytesTotal = gpt.length;
      expect(progress).toEqual(
        done.map((imageBytes) => ({ inputBytes: imageBytes, inputBytesTotal, imageBytes })),
      );
    });
  });

  test("an image of nothing but zeroes", async () => {
    await withInput(new Uint8Array(2 * mib + 5), async ({ options }) => {
      expect(await importImage(options)).toMatchObject({
        root: await rootOf(new Uint8Array(2 * mib + 5)),
        zeroGroups: 3,
        storedBytes: 0,
      });
    });
  });

  test.each<[string, Uint8Array]>([
    ["gzip", gzipSync(gpt, { level: 1 })],
    [
      "gzip",
      Buffer.concat([
        gzipSync(gpt.subarray(0, 70_000)),
        gzipSync(gpt.subarray(70_000), { level: 1 }),
        new Uint8Array(300_000),
      ]),
    ],
    ["zstd", zstdCompressSync(gpt)],
    // Node's own decoder would end after the first of these without a word.
    ["zstd", manyFrames],
  ])("%s, in one or several members", async (format, packed) => {
    await withInput(packed, async ({ options, store }) => {
      const view = await importImage(options);
      expect(view).toMatchObject({ ...gptView, importedFrom: format });
      expect(Buffer.compare(await readStored(store, view.root), gpt)).toBe(0);
    });
  });

  test.skipIf(!hasXz)("xz (needs the xz program)", async () => {
    const packed = execFileSync("xz", ["-0", "--stdout"], { input: gpt, maxBuffer: 64 * mib });
    await withInput(Buffer.concat([packed, packed]), async ({ options }) => {
      expect(await importImage(options)).toMatchObject({
        root: await rootOf(Buffer.concat([gpt, gpt])),
        importedFrom: "xz",
      });
    });
  });

  test.skipIf(!hasQemu)("qcow2, made by hand (needs qemu-img)", async () => {
    const [a, b] = [content(qcow2ClusterBytes, 7), content(qcow2ClusterBytes, 8)];
    const expected = new Uint8Array(2 * mib);
    expected.set(a, 0);
    expected.set(b, 3 * qcow2ClusterBytes);
    for (const version of [2, 3] as const) {
      await withInput(
        makeQcow2({ version, sizeBytes: 2 * mib, map: [1, 0, 0, 2], clusters: [a, b] }),
        async ({ options, store }) => {
          const view = await importImage(options);
          expect(view).toMatchObject({
            root: await rootOf(expected),
            sizeBytes: 2 * mib,
            zeroGroups: 1,
            importedFrom: "qcow2",
          });
          expect(await namesIn(store)).toEqual([view.root]);
        },
      );
    }
  });

  test("what is packed is taken as it is with format raw", async () => {
    const packed = gzipSync(content(5000));
    await withInput(packed, async ({ options }) => {
      expect(await importImage({ ...options, format: "raw" })).toMatchObject({
        root: await rootOf(packed),
        importedFrom: "raw",
      });
    });
  });

  test("the same content again is the same image; another of the same name is refused", async () => {
    await withInput(gzipSync(content(5000)), async ({ options, store, path }) => {
      const first = await importImage(options);
      expect(await importImage({ ...options, name: "other" })).toEqual(first);
      const input = join(path, "second");
      await writeFile(input, content(6000));
      const error = await errorOf(importImage({ ...options, input, name: "disk" }));
      expect(error).toMatchObject({ code: "image.exists", details: { name: "disk", root: first.root } });
      expect(await namesIn(store)).toEqual([first.root]);
    });
  });
});

describe("the vendor's SHA-256 is that of the input as published", () => {
  const packed = gzipSync(gpt, { level: 1 });
  const sha256 = createHash("sha256").update(packed).digest("hex");
  test.each<[string, Uint8Array, string]>([
    ["packed", packed, sha256],
    ["packed, upper case", packed, sha256.toUpperCase()],
    ["raw", gpt, createHash("sha256").update(gpt).digest("hex")],
    [
      "packed with padding",
      Buffer.concat([packed, new Uint8Array(600_000)]),
      createHash("sha256").update(packed).update(new Uint8Array(600_000)).digest("hex"),
    ],
  ])("right: %s", async (_, bytes, digest) => {
    await withInput(bytes, async ({ options }) => {
      expect((await importImage({ ...options, sha256: digest })).root).toBe(gptRoot);
    });
  });
  test("wrong: nothing is kept", async () => {
    const wrong = { sha256: "0".repeat(64) };
    for (const bytes of [packed, gpt])
      expect((await failure(bytes, wrong)).code).toBe("image.digest-mismatch");
    expect((await failure(gpt, { sha256: "abc" })).code).toBe("usage");
  });
  test("wrong for a qcow2: qemu-img never sees it", async () => {
    const error = await failure(makeQcow2(), { sha256: "0".repeat(64), programs: { path: "/nonexistent" } });
    expect(error.code).toBe("image.digest-mismatch");
  });
});

describe("cut, damaged and followed by garbage", () => {
  const gz = gzipSync(gpt, { level: 1 });
  const zst = zstdCompressSync(gpt, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  const small = zstdCompressSync(content(1000));
  const flip = (bytes: Uint8Array) =>
    bytes.map((byte, i) => (i === Math.floor(bytes.length / 2) ? byte ^ 1 : byte));
  test.each<[string, Uint8Array]>([
    ["gzip without its last byte", gz.subarray(0, -1)],
    ["gzip after its header", gz.subarray(0, 10)],
    ["gzip in its second member", Buffer.concat([gz, gz.subarray(0, 5000)])],
    ["zstd without its last byte", zst.subarray(0, -1)],
    ["zstd between blocks", zst.subarray(0, 9)],
    ["zstd in its second frame", Buffer.concat([small, zst.subarray(0, 5000)])],
    ["qcow2 in its header", makeQcow2().subarray(0, 80)],
    ["qcow2 before its tables", makeQcow2().subarray(0, 70_000)],
  ])("%s is truncated", async (_, bytes) => {
    expect((await failure(bytes)).code).toBe("image.truncated");
  });
  test.each<[string, Uint8Array]>([
    ["a flipped bit in gzip", flip(gz)],
    ["a flipped bit in zstd", flip(zst)],
    ["garbage after gzip", Buffer.concat([gz, Buffer.from("garbage")])],
    ["garbage after gzip's padding", Buffer.concat([gz, new Uint8Array(1_000_000), Buffer.from("garbage")])],
    [
      "garbage long after gzip's end",
      Buffer.concat([gzipSync(content(100)), new Uint8Array(16 * mib), Buffer.from("garbage")]),
    ],
    ["garbage after zstd", Buffer.concat([zst, Buffer.from("garbage")])],
  ])("%s is corrupt", async (_, bytes) => {
    expect((await failure(bytes)).code).toBe("image.corrupt");
  });
  test.skipIf(!hasXz)("xz likewise (needs the xz program)", async () => {
    const xz = execFileSync("xz", ["-0", "--stdout"], { input: gpt, maxBuffer: 64 * mib });
    expect((await failure(xz.subarray(0, -5000))).code).toBe("image.truncated");
    expect((await failure(flip(xz))).code).toBe("image.corrupt");
    expect((await failure(Buffer.concat([xz, Buffer.from("garbage!")]))).code).toMatch(
      /image\.(corrupt|truncated)/,
    );
  });
  test("empty, raw or unpacked", async () => {
    for (const bytes of [new Uint8Array(), gzipSync(new Uint8Array()), zstdCompressSync(new Uint8Array())]) {
      expect((await failure(bytes)).code).toBe("image.unsupported");
    }
  });
  test("packed within packed", async () => {
    expect(await failure(gzipSync(makeQcow2()))).toMatchObject({
      code: "image.unsupported",
      message: expect.stringContaining("qcow2"),
    });
  });
  test("a zstd window of 4 GiB", async () => {
    const header = [0x28, 0xb5, 0x2f, 0xfd, 0, 22 << 3];
    expect((await failure(Uint8Array.from([...header, 1, 0, 0]))).code).toBe("image.unsupported");
  });
});

describe("what expands past its bound", () => {
  const tight = { expansionMax: { freeBytes: mib, ratio: 100 } };
  test("gzip of zeroes", async () => {
    const bomb = gzipSync(new Uint8Array(32 * mib));
    expect((await failure(bomb, tight)).code).toBe("image.expansion");
    expect((await failure(bomb, { expansionMax: { bytes: 8 * mib } })).code).toBe("image.expansion");
  });
  test("zstd of repeated bytes, by the ratio that is the default", async () => {
    // 9000 run-length blocks of 128 KiB: 36 kB that stand for 1.2 GB.
    const block = 128 * 1024 * 8 + 2;
    const blocks = Buffer.alloc(9000 * 4);
    for (let i = 0; i < 9000; i++) blocks.writeUInt32LE((block + (i === 8999 ? 1 : 0)) | (0x41 << 24), 4 * i);
    const bomb = Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3]), blocks]);
    expect((await failure(bomb, { expansionMax: { freeBytes: 64 * mib } })).code).toBe("image.expansion");
  });
  test.skipIf(!hasXz)("xz of zeroes (needs the xz program)", async () => {
    const bomb = execFileSync("xz", ["-0", "--stdout"], { input: new Uint8Array(32 * mib) });
    expect((await failure(bomb, tight)).code).toBe("image.expansion");
  });
  test("qcow2 of too large a disk, before anything opens it", async () => {
    const error = await failure(makeQcow2({ sizeBytes: 512 * mib }), {
      expansionMax: { bytes: 511 * mib },
      programs: { path: "/nonexistent" },
    });
    expect(error.code).toBe("image.expansion");
  });
  test.skipIf(!hasQemu)("qcow2 whose every entry names one cluster (needs qemu-img)", async () => {
    const bomb = makeQcow2({
      sizeBytes: 64 * mib,
      map: new Array(1024).fill(1),
      clusters: [content(qcow2ClusterBytes)],
    });
    expect((await failure(bomb, tight)).code).toBe("image.expansion");
  });
});

describe("programs", () => {
  const script = async (path: string, name: string, text: string) => {
    const directory = join(path, "bin");
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, name), `#!/bin/sh\n${text}\n`);
    await chmod(join(directory, name), 0o755);
    // The program runs as nobody, who must be able to reach it.
    await chmod(path, 0o755);
    return { path: `${directory}:${systemPrograms.path}` };
  };
  const xzHead = Uint8Array.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 1, 2, 3]);

  test("a missing one is named with its package", async () => {
    const programs = { path: "/nonexistent" };
    expect(await failure(xzHead, { programs })).toMatchObject({
      code: "image.tool-missing",
      details: { program: "xz", package: "xz-utils" },
    });
    expect(await failure(makeQcow2(), { programs })).toMatchObject({
      code: "image.tool-missing",
      details: { program: "qemu-img", package: "qemu-utils" },
    });
  });
  test("an unsafe qcow2 is refused before it is missed", async () => {
    const file = makeQcow2({ patches: [{ at: 32, bytes: [0, 0, 0, 1] }] });
    expect((await failure(file, { programs: { path: "/nonexistent" } })).code).toBe("image.unsafe");
  });
  test("they run without rights and within limits", async () => {
    await withInput(xzHead, async ({ options, store, path }) => {
      const programs = await script(
        path,
        "xz",
        'cat > /dev/null; id -u; ulimit -c; grep NoNewPrivs /proc/self/status; env | grep -v "^_=\\|^PWD=" | cut -d= -f1 | sort | tr "\\n" " "',
      );
      const { root } = await importImage({ ...options, programs });
      const lines = Buffer.from(await readStored(store, root))
        .toString()
        .split("\n");
      expect(lines[0]).toBe(isRoot ? "65534" : String(process.getuid?.()));
      expect(lines[1]).toBe("0");
      expect(lines[2]).toBe("NoNewPrivs:\t1");
      expect(lines[3]!.trim()).toBe("LC_ALL PATH");
    });
  });
  test("an abort kills them", async () => {
    await withInput(xzHead, async ({ options, store, path }) => {
      const programs = await script(path, "xz", "exec sleep 4242.4242");
      const abort = new AbortController();
      const importing = importImage({ ...options, programs, signal: abort.signal });
      const sleepers = async () => {
        const commands = await Promise.all(
          (await readdir("/proc"))
            .filter((name) => /^\d+$/.test(name))
            .map((pid) => readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "")),
        );
        return commands.filter((command) => command.startsWith("sleep\x004242.4242")).length;
      };
      await expect.poll(sleepers, { timeout: 10_000 }).toBe(1);
      abort.abort();
      expect(await codeOf(importing)).toBe("image.aborted");
      expect(await sleepers()).toBe(0);
      expect(await namesIn(store)).toEqual([]);
    });
  });
});

describe("stopped half-way", () => {
  test.each<[string, Uint8Array]>([
    ["raw", content(12 * mib, 3)],
    ["gzip", gzipSync(content(12 * mib, 3), { level: 1 })],
    ["zstd", zstdCompressSync(content(12 * mib, 3))],
  ])("%s leaves nothing", async (_, bytes) => {
    await withInput(bytes, async ({ options, store }) => {
      const abort = new AbortController();
      let last = 0;
      const onProgress = ({ imageBytes }: { imageBytes: number }) => {
        last = imageBytes;
        if (imageBytes === 2 * mib) abort.abort();
      };
      expect(await codeOf(importImage({ ...options, signal: abort.signal, onProgress }))).toBe(
        "image.aborted",
      );
      expect(last).toBeLessThan(6 * mib);
      expect(await namesIn(store)).toEqual([]);
    });
  });
  test("aborted before it starts", async () => {
    expect((await failure(content(10), { signal: AbortSignal.abort() })).code).toBe("image.aborted");
  });
  test("a file that changes meanwhile", async () => {
    await withInput(content(8 * mib), async ({ options, store }) => {
      let changed: Promise<void> | undefined;
      const change = async () => {
        await using file = await open(options.input, "r+");
        await file.write(Uint8Array.of(1), 0, 1, 8 * mib - 1);
      };
      const onProgress = () => {
        changed ??= change();
      };
      expect(await codeOf(importImage({ ...options, onProgress }))).toBe("file.changed");
      await changed;
      expect(await namesIn(store)).toEqual([]);
    });
  });
});

describe("inputs that cannot be read, names that cannot be", () => {
  test("no such file, a directory, a bad name", async () => {
    await withInput(content(10), async ({ options, path, store }) => {
      expect(await codeOf(importImage({ ...options, input: join(path, "none") }))).toBe("file.unreadable");
      expect(await codeOf(importImage({ ...options, input: path }))).toBe("file.unreadable");
      for (const name of ["", "-x", "a b", "x".repeat(129)])
        expect(await codeOf(importImage({ ...options, name }))).toBe("usage");
      expect(await namesIn(store)).toEqual([]);
    });
  });
  test("a store that cannot be written", async () => {
    await withInput(content(10), async ({ options }) => {
      expect(await codeOf(importImage({ ...options, store: join(options.input, "store") }))).toBe(
        "image.store-failed",
      );
    });
  });
});

describe("over HTTP", () => {
  async function served<T>(listener: RequestListener, use: (origin: string) => Promise<T>): Promise<T> {
    const server = createServer(listener).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    try {
      return await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }
  const outcome = (listener: RequestListener, path = "/disk.img.gz", changes: Partial<ImportOptions> = {}) =>
    served(listener, (origin) => failure(new Uint8Array(), { input: origin + path, ...changes }));

  test("a gzip image, its bytes hashed as sent and its name from the address", async () => {
    const packed = gzipSync(gpt, { level: 1 });
    await served(
      // Servers do label .gz files so; the digest is still over what they send.
      (_, response) =>
        response.writeHead(200, { "content-length": packed.length, "content-encoding": "gzip" }).end(packed),
      (origin) =>
        withInput(new Uint8Array(), async ({ options }) => {
          const sha256 = createHash("sha256").update(packed).digest("hex");
          expect(await importImage({ ...options, input: `${origin}/a/disk.raw.gz?x`, sha256 })).toMatchObject(
            { ...gptView, importedFrom: "gzip" },
          );
        }),
    );
  });
  test("redirects are followed five times", async () => {
    const listener: RequestListener = (request, response) => {
      const left = Number(request.url!.slice(1));
      if (left > 0) response.writeHead(302, { location: `/${left - 1}` }).end();
      else response.writeHead(200).end(content(1000));
    };
    await served(listener, (origin) =>
      withInput(new Uint8Array(), async ({ options }) => {
        expect((await importImage({ ...options, input: `${origin}/5` })).sizeBytes).toBe(1000);
      }),
    );
    expect((await outcome(listener, "/6")).code).toBe("source.refused");
  });
  test("a body shorter than declared, or without its last chunk, is truncated", async () => {
    const half: RequestListener = (_, response) => {
      response
        .writeHead(200, { "content-length": 2_000_000 })
        .write(content(1_000_000), () => response.destroy());
    };
    expect(await outcome(half)).toMatchObject({
      code: "image.truncated",
      details: { received: 1_000_000, expected: 2_000_000 },
    });
    const chunked: RequestListener = (_, response) => {
      response.writeHead(200).write(content(1_000_000), () => response.destroy());
    };
    expect((await outcome(chunked)).code).toBe("image.truncated");
  });
  test("a status other than 200 and nobody listening", async () => {
    expect(await outcome((_, response) => response.writeHead(404).end("no"))).toMatchObject({
      code: "image.fetch-failed",
      details: { status: 404 },
    });
    const origin = await served(
      () => {},
      async (address) => address,
    );
    expect((await failure(new Uint8Array(), { input: `${origin}/x` })).code).toBe("image.fetch-failed");
  });
  test("an abort ends a download that hangs", async () => {
    const abort = new AbortController();
    const hanging: RequestListener = (_, response) => {
      response.writeHead(200).write(content(100_000));
      setTimeout(() => abort.abort(), 50);
    };
    expect((await outcome(hanging, "/x", { signal: abort.signal })).code).toBe("image.aborted");
  });
});
