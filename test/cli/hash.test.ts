// `bedplate hash` beside b3sum and sha256sum, and beside other implementations where those are not installed.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { blake3 } from "hash-wasm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { digestLine, hashCommand } from "../../cli/hash.ts";

const version = (program: string) => spawnSync(program, ["--version"]).stdout?.toString() ?? "";
const b3sum = version("b3sum");
const sha256sum = version("sha256sum");
const never = new AbortController().signal;
const peers = {
  blake3: { program: "b3sum", present: b3sum !== "", hash: (bytes: Uint8Array) => blake3(bytes) },
  sha256: {
    program: "sha256sum",
    present: sha256sum.includes("coreutils"),
    hash: async (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex"),
  },
} as const;

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-hash-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function run(
  files: readonly string[],
  algorithm: "blake3" | "sha256",
  {
    stdin = "",
    threads = 2,
    signal = never,
  }: { stdin?: string | Readable; threads?: number; signal?: AbortSignal } = {},
) {
  const [out, errors]: [string[], string[]] = [[], []];
  const io = {
    stdout: (text: string) => out.push(text),
    stderr: (text: string) => errors.push(text),
    stdin: typeof stdin === "string" ? Readable.from([Buffer.from(stdin)]) : stdin,
  };
  const exitCode = await hashCommand(files, { algorithm, threads }, io, signal);
  return { exitCode, out: out.join(""), errors };
}

function sequence(seed: number) {
  let state = seed;
  return (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Lengths that matter to the tree: empty, around chunks, groups, and where worker threads take over. */
const lengths = [
  0,
  1,
  63,
  64,
  65,
  1023,
  1024,
  1025,
  8192,
  1 << 20,
  (1 << 20) + 1,
  4 << 20,
  (4 << 20) + 1,
  9_000_001,
];
const letters = ["a", "B", "7", " ", "'", '"', "\\", "\n", "é", "日", "-", ".", "%", "$", "*"];

/** A thousand files of random names and content. */
async function makeFiles(): Promise<{ path: string; bytes: Uint8Array }[]> {
  const random = sequence(20260101);
  const pool = new Uint8Array(9_000_001);
  for (let i = 0; i < pool.length; i++) pool[i] = random(256);
  const folder = join(directory, "many");
  await mkdir(folder);
  const files: { path: string; bytes: Uint8Array }[] = [];
  for (let i = 0; i < 1000; i++) {
    const name = Array.from({ length: random(12) }, () => letters[random(letters.length)]).join("");
    const length = lengths[i] ?? random(3) * random(20_000);
    const bytes = pool
      .subarray(length === pool.length ? 0 : random(pool.length - length))
      .subarray(0, length);
    const path = join(folder, `${i}${name}`);
    await writeFile(path, bytes);
    files.push({ path, bytes });
  }
  return files;
}

describe("a thousand random files", () => {
  let files: { path: string; bytes: Uint8Array }[];
  beforeAll(async () => {
    files = await makeFiles();
  });
  describe.each(["blake3", "sha256"] as const)("%s", (algorithm) => {
    const { program, present, hash } = peers[algorithm];
    test("each digest is another implementation's", async () => {
      const { exitCode, out } = await run(
        files.map((file) => file.path),
        algorithm,
      );
      expect(exitCode).toBe(0);
      const digests = await Promise.all(files.map((file) => hash(file.bytes)));
      expect(out).toBe(files.map(({ path }, i) => `${digestLine(digests[i]!, path, algorithm)}\n`).join(""));
    });
    test.skipIf(!present)(`every byte printed is ${program}'s (needs ${program})`, async () => {
      const paths = files.map((file) => file.path);
      const { out } = await run(paths, algorithm, { threads: 1 });
      expect(out).toBe(execFileSync(program, ["--", ...paths], { maxBuffer: 1 << 24 }).toString());
      expect(out).toMatch(/^\\[0-9a-f]{64} {2}.*\\n/m);
    });
  });
});

test("lines with awkward names", () => {
  const digest = "0".repeat(64);
  expect(digestLine(digest, "a b", "blake3")).toBe(`${digest}  a b`);
  expect(digestLine(digest, "a\\b\nc", "blake3")).toBe(`\\${digest}  a\\\\b\\nc`);
  expect(digestLine(digest, "a\\b\nc", "sha256")).toBe(`\\${digest}  a\\\\b\\nc`);
  expect(digestLine(digest, "a\rb", "blake3")).toBe(`${digest}  a\rb`);
  expect(digestLine(digest, "a\rb", "sha256")).toBe(`\\${digest}  a\\rb`);
  expect(digestLine(digest, "a\t\u0001", "sha256")).toBe(`${digest}  a\t\u0001`);
});

test.skipIf(!b3sum.includes(" 1.2.") || !sha256sum.includes(" 9.1"))(
  "a carriage return in a name (needs b3sum 1.2 and coreutils 9.1)",
  async () => {
    const path = join(directory, "carriage\rreturn");
    await writeFile(path, "x");
    for (const algorithm of ["blake3", "sha256"] as const) {
      expect((await run([path], algorithm)).out).toBe(
        execFileSync(peers[algorithm].program, ["--", path]).toString(),
      );
    }
  },
);

describe.each(["blake3", "sha256"] as const)("%s", (algorithm) => {
  const { program, present, hash } = peers[algorithm];
  test("standard input is -, and empty the second time", async () => {
    const { exitCode, out } = await run(["-", "-"], algorithm, { stdin: "hello" });
    expect(exitCode).toBe(0);
    expect(out).toBe(`${await hash(Buffer.from("hello"))}  -\n${await hash(new Uint8Array())}  -\n`);
    if (present) expect(out).toBe(execFileSync(program, ["-", "-"], { input: "hello" }).toString());
  });

  test("a file that cannot be read is told, the others are hashed, and the exit code is 1", async () => {
    const good = join(directory, "good");
    await writeFile(good, "good");
    const files = [join(directory, "missing"), good, directory, good];
    const { exitCode, out, errors } = await run(files, algorithm);
    expect(exitCode).toBe(1);
    expect(out).toBe(`${await hash(Buffer.from("good"))}  ${good}\n`.repeat(2));
    expect(errors).toHaveLength(2);
    expect(errors[0]).toMatch(/missing cannot be read.*\n.*file\.unreadable/s);
    if (present) {
      const peer = spawnSync(program, files);
      expect([peer.status, peer.stdout.toString()]).toEqual([1, out]);
    }
  });

  test("standard input that fails is a file that cannot be read", async () => {
    const failing = new Readable({
      read() {
        this.destroy(Object.assign(new Error("EISDIR: is a directory"), { code: "EISDIR" }));
      },
    });
    const { exitCode, out, errors } = await run(["-"], algorithm, { stdin: failing });
    expect([exitCode, out]).toEqual([1, ""]);
    expect(errors[0]).toContain("- cannot be read (EISDIR)");
  });

  test("an abort ends it with the signal's reason", async () => {
    const reason = new Error("stop");
    const abort = new AbortController();
    const endless = new Readable({
      read() {
        setImmediate(() => {
          this.push(Buffer.alloc(1000));
          abort.abort(reason);
        });
      },
    });
    await expect(run(["-"], algorithm, { stdin: endless, signal: abort.signal })).rejects.toBe(reason);
  });
});
