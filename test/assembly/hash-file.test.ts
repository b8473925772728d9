import { createHash } from "node:crypto";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createFileHasher, groupBytes, hashFile, hashStream } from "../../assembly/index.ts";
import { hex, implementations, randomBytes } from "./implementations.ts";

const anchor = implementations.find(({ name }) => name === "hash-wasm")!;
const expectedOf = {
  blake3: (input: Uint8Array) => hex(anchor.hash(input)),
  sha256: (input: Uint8Array) => createHash("sha256").update(input).digest("hex"),
};
const algorithms = ["blake3", "sha256"] as const;
const { signal } = new AbortController();

let directory = "";
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "bedplate-hash-"));
});
afterAll(() => rmSync(directory, { recursive: true }));

function file(length: number): { path: string; input: Uint8Array } {
  const path = join(directory, `${length}.bin`);
  const input = randomBytes(length, length);
  writeFileSync(path, input);
  return { path, input };
}

describe.each(algorithms)("%s", (algorithm) => {
  test("of files of any size, one hasher for all, at once", async () => {
    await using hasher = createFileHasher({ threads: 2 });
    const sizes = [
      0,
      1,
      1000,
      groupBytes,
      4 * groupBytes,
      4 * groupBytes + 1,
      5 * groupBytes,
      9 * groupBytes - 1,
      33 * groupBytes + 12_345,
    ];
    await Promise.all(
      sizes.map(async (size) => {
        const { path, input } = file(size);
        const progress: number[] = [];
        const result = await hasher.hash(path, {
          algorithm,
          signal,
          onProgress: (done) => progress.push(done),
        });
        expect(hex(result.digest), `${size} bytes`).toBe(expectedOf[algorithm](input));
        expect(result.bytes).toBe(size);
        expect(progress).toEqual(progress.toSorted((a, b) => a - b));
        expect(progress.at(-1) ?? 0).toBe(size);
      }),
    );
  });

  test("of one file with more threads than groups", async () => {
    const { path, input } = file(5 * groupBytes + 3);
    const { digest } = await hashFile(path, { algorithm, threads: 16, signal });
    expect(hex(digest)).toBe(expectedOf[algorithm](input));
  });

  test("of a stream", async () => {
    const input = randomBytes(3 * groupBytes + 17, 3);
    const pieces = Array.from({ length: 40 }, (_, k) => input.subarray(k * 99_991, (k + 1) * 99_991));
    const { digest, bytes } = await hashStream(Readable.from(pieces), { algorithm, signal });
    expect(hex(digest)).toBe(expectedOf[algorithm](input));
    expect(bytes).toBe(input.length);
  });

  test("of files that say they are empty", async () => {
    // Files of /proc have size 0 and contents.
    const { digest, bytes } = await hashFile("/proc/version", { algorithm, threads: 1, signal });
    expect(bytes).toBeGreaterThan(10);
    expect(hex(digest)).not.toBe(expectedOf[algorithm](new Uint8Array()));
  });

  test("stops within 100 ms of its signal, and goes on with the next file", async () => {
    const path = join(directory, `sparse-${algorithm}`);
    const fd = openSync(path, "w");
    ftruncateSync(fd, 2 ** 36);
    closeSync(fd);
    await using hasher = createFileHasher({ threads: 2 });
    const delaysMs: number[] = [];
    // The best of some: the machine may be busy with others.
    for (let attempt = 0; attempt < 5 && !delaysMs.some((delay) => delay < 100); attempt++) {
      const controller = new AbortController();
      let abortedAt = 0;
      const onProgress = (done: number) => {
        if (done === 0 || abortedAt > 0) return;
        abortedAt = performance.now();
        controller.abort();
      };
      const hashing = hasher.hash(path, { algorithm, signal: controller.signal, onProgress });
      await expect(hashing).rejects.toMatchObject({ code: "hash.aborted" });
      delaysMs.push(performance.now() - abortedAt);
    }
    expect(Math.min(...delaysMs)).toBeLessThan(100);
    const { path: next, input } = file(5 * groupBytes);
    expect(hex((await hasher.hash(next, { algorithm, signal })).digest)).toBe(expectedOf[algorithm](input));
  });

  test("refuses what is no readable file", async () => {
    await expect(
      hashFile(join(directory, "absent"), { algorithm, threads: 1, signal }),
    ).rejects.toMatchObject({ code: "file.unreadable" });
    await expect(hashFile(directory, { algorithm, threads: 1, signal })).rejects.toMatchObject({
      code: "file.unreadable",
    });
  });

  test("a file that becomes shorter meanwhile is an error", async () => {
    const path = join(directory, `shrinks-${algorithm}`);
    const fd = openSync(path, "w");
    ftruncateSync(fd, 2 ** 33);
    let shrunk = false;
    const onProgress = (done: number) => {
      if (done === 0 || shrunk) return;
      shrunk = true;
      ftruncateSync(fd, 5 * groupBytes);
    };
    const hashing = hashFile(path, { algorithm, threads: 2, signal, onProgress });
    await expect(hashing).rejects.toMatchObject({ code: "file.changed" });
    closeSync(fd);
  });
});

test("an aborted signal starts nothing", async () => {
  const { path } = file(10);
  await expect(
    hashFile(path, { algorithm: "blake3", threads: 1, signal: AbortSignal.abort() }),
  ).rejects.toMatchObject({ code: "hash.aborted" });
  await expect(
    hashStream(new Readable({ read() {} }), { algorithm: "blake3", signal: AbortSignal.abort() }),
  ).rejects.toMatchObject({ code: "hash.aborted" });
});

test("a stalled stream stops at the signal", async () => {
  const controller = new AbortController();
  const stalled = new Readable({ read() {} });
  stalled.push("some");
  const hashing = hashStream(stalled, {
    algorithm: "blake3",
    signal: controller.signal,
    onProgress: () => controller.abort(),
  });
  await expect(hashing).rejects.toMatchObject({ code: "hash.aborted" });
});

test.each([0, -1, 1.5, 1025, Number.NaN])("refuses %d threads", (threads) => {
  expect(() => createFileHasher({ threads })).toThrow(expect.objectContaining({ code: "kernel.bad-range" }));
});
