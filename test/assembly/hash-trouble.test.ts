import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createFileHasher, type FileHasher, groupBytes } from "../../assembly/index.ts";
import { hex, implementations, kernels, randomBytes } from "./implementations.ts";

const { signal } = new AbortController();
const worker = new URL("./troubled-worker.ts", import.meta.url);
const anchor = implementations.find(({ name }) => name === "hash-wasm")!;
const input = randomBytes(6 * groupBytes + 5, 6);
const expected = hex(anchor.hash(input));

let directory = "";
const path = (name: string) => join(directory, name);
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "bedplate-trouble-"));
  for (const name of ["exits", "throws", "traps", "good"]) writeFileSync(path(name), input);
  const fd = openSync(path("endless"), "w");
  ftruncateSync(fd, 2 ** 36);
  closeSync(fd);
});
afterAll(() => rmSync(directory, { recursive: true }));

const hash = (hasher: FileHasher, name: string) => hasher.hash(path(name), { algorithm: "blake3", signal });
const hashesRight = async (hasher: FileHasher) =>
  expect(hex((await hash(hasher, "good")).digest)).toBe(expected);

describe.each([
  ["exits", "worker.died", /exited with code: 7/],
  ["throws", "worker.died", /out of nowhere/],
] as const)("a worker that %s", (name, code, cause) => {
  test("ends the job with its cause, and the next file finds a new one", async () => {
    await using hasher = createFileHasher({ threads: 2, worker });
    for (let time = 0; time < 3; time++) {
      await expect(hash(hasher, name)).rejects.toMatchObject({
        code,
        cause: expect.objectContaining({ message: expect.stringMatching(cause) }),
      });
      await hashesRight(hasher);
    }
  });

  test("takes no other file's jobs with it, running or waiting", async () => {
    await using hasher = createFileHasher({ threads: 1, worker });
    const outcomes = await Promise.allSettled(
      ["good", name, "good", name, "good"].map((file) => hash(hasher, file)),
    );
    expect(outcomes.map(({ status }) => status)).toEqual([
      "fulfilled",
      "rejected",
      "fulfilled",
      "rejected",
      "fulfilled",
    ]);
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") expect(outcome.reason).toMatchObject({ code });
      else expect(hex(outcome.value.digest)).toBe(expected);
    }
  });
});

test("a trap is a failed job, and its worker goes on", async () => {
  await using hasher = createFileHasher({ threads: 1, worker });
  for (let time = 0; time < 3; time++) {
    await expect(hash(hasher, "traps")).rejects.toMatchObject({ code: "kernel.trap" });
    await hashesRight(hasher);
  }
});

test("workers that cannot start end their jobs, each time anew", async () => {
  await using hasher = createFileHasher({ threads: 2, worker: pathToFileURL(path("absent.ts")) });
  for (let time = 0; time < 2; time++) {
    await expect(hash(hasher, "good")).rejects.toMatchObject({
      code: "worker.died",
      cause: expect.objectContaining({ code: "ERR_MODULE_NOT_FOUND" }),
    });
  }
});

test("a signal is obeyed within 100 ms also while workers start", async () => {
  const delaysMs: number[] = [];
  // The best of some: the machine may be busy with others.
  for (let attempt = 0; attempt < 10 && !delaysMs.some((delay) => delay < 100); attempt++) {
    await using hasher = createFileHasher({ threads: 2 });
    const controller = new AbortController();
    const hashing = hasher.hash(path("endless"), { algorithm: "blake3", signal: controller.signal });
    const rejected = expect(hashing).rejects.toMatchObject({ code: "hash.aborted" });
    await sleep(5);
    const abortedAt = performance.now();
    controller.abort();
    await rejected;
    delaysMs.push(performance.now() - abortedAt);
  }
  expect(Math.min(...delaysMs)).toBeLessThan(100);
});

test("no worker starts before a file needs one", async () => {
  // Its worker does not exist: the first would fail.
  await using hasher = createFileHasher({ worker: pathToFileURL(path("absent.ts")) });
  writeFileSync(path("small"), input.subarray(0, 1000));
  expect(hex((await hash(hasher, "small")).digest)).toBe(hex(anchor.hash(input.subarray(0, 1000))));
});

test.each(kernels)("whole files by $name", async ({ compiled }) => {
  await using hasher = createFileHasher({ threads: 2, kernel: compiled });
  await hashesRight(hasher);
});
