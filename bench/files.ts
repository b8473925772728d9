// Whole files from the page cache, wall time: our workers against the programs one would use instead.
import { execFile } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { createFileHasher, type FileHasher, groupBytes } from "../assembly/index.ts";
import { type Bench, type Candidate, median, programMissing, type Skipped, wallTimed } from "./harness.ts";

const groups = 256;
const bytes = groups * groupBytes;
const signal = new AbortController().signal;
const run = promisify(execFile);

export const files: Bench = {
  name: "files",
  group: "kernels",
  title: `Whole file of ${groups} MiB from the page cache, wall time`,
  async prepare() {
    const directory = await mkdtemp(join(tmpdir(), "bedplate-bench-"));
    const path = join(directory, "random.bin");
    await writeRandom(path);
    const hashers = [createFileHasher({ threads: 1 }), createFileHasher({ threads: 2 })] as const;
    const ours = (hasher: FileHasher): Candidate => {
      const hash = () => hasher.hash(path, { algorithm: "blake3", signal });
      const { measure } = wallTimed(hash, bytes);
      return {
        bytes,
        // Once before the clock runs: workers that idled while the others were measured have ended.
        measure: async (repeat) => {
          await hash();
          return await measure(repeat);
        },
      };
    };
    const program = (name: string, ...args: string[]) => programCandidate(name, [...args, path]);
    return {
      rounds: 5,
      sliceSeconds: 0.1,
      candidates: {
        "ours 1 worker": ours(hashers[0]),
        "ours 2 workers": ours(hashers[1]),
        "openssl sha256": await program("openssl", "dgst", "-sha256"),
        sha256sum: await program("sha256sum"),
        "b3sum 1 thread": await program("b3sum", "--num-threads", "1"),
      },
      rows: [
        { name: "1 → 2 workers", subject: "ours 2 workers", peer: "ours 1 worker", floor: 1.6, cores: 2 },
        {
          name: "2 workers against openssl dgst -sha256",
          subject: "ours 2 workers",
          peer: "openssl sha256",
          floor: 1.6,
          cores: 2,
        },
        {
          name: "2 workers against sha256sum",
          subject: "ours 2 workers",
          peer: "sha256sum",
          floor: 12,
          // Where sha256sum (plain C in Debian) is nearer to OpenSSL's SHA instructions, 12 of it is past what hardware gives.
          atMost: { ratio: 1.6, than: "openssl sha256" },
          cores: 2,
        },
        {
          name: "2 workers against b3sum --num-threads 1",
          subject: "ours 2 workers",
          peer: "b3sum 1 thread",
          floor: 0.5,
          cores: 2,
        },
        {
          name: "dispatch of a MiB to 2 workers",
          unit: "µs",
          measure: () => dispatchMicroseconds(path),
          most: 10,
        },
      ],
      async [Symbol.asyncDispose]() {
        await Promise.all(hashers.map((hasher) => hasher[Symbol.asyncDispose]()));
        await rm(directory, { recursive: true });
      },
    };
  },
};

async function writeRandom(path: string): Promise<void> {
  await using handle = await open(path, "w");
  const group = new Uint8Array(groupBytes);
  for (let k = 0; k < groups; k++) await handle.write(randomFillSync(group));
}

async function programCandidate(name: string, args: string[]): Promise<Candidate | Skipped> {
  if (await programMissing(name)) return { skipped: `${name} is not installed` };
  return wallTimed(() => run(name, args), bytes);
}

/** Wall time of hashing the file with workers that neither read nor hash, for each of its groups. */
async function dispatchMicroseconds(path: string): Promise<number> {
  const worker = new URL("./dispatch-worker.ts", import.meta.url);
  await using hasher = createFileHasher({ threads: 2, worker });
  const times: number[] = [];
  for (let k = 0; k < 21; k++) {
    const before = performance.now();
    await hasher.hash(path, { algorithm: "blake3", signal });
    times.push(performance.now() - before);
  }
  return (median(times) * 1e3) / groups;
}
