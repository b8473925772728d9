// An image's frames from the page cache, decoded and verified by the code that deploys them, against `zstd -dc` to nowhere.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { constants, zstdCompressSync } from "node:zlib";
import { Piscina } from "piscina";
import { type ImageJob, slots } from "../agent/devices/image-job.ts";
import { shareImage } from "../agent/devices/share-image.ts";
import { compileKernel, createGroupKernel, digestBytes, groupBytes, mergeGroups } from "../assembly/index.ts";
import type { Manifest } from "../protocol/manifest.ts";
import type { FramesJob } from "./frames-worker.ts";
import { type Bench, type Candidate, programMissing, type Skipped, wallTimed } from "./harness.ts";

const groupsMax = 96;

export const frames: Bench = {
  name: "frames",
  group: "kernels",
  title: "1 MiB zstd frames of a program's text (the node binary), decoded and verified, wall time",
  async prepare() {
    const directory = await mkdtemp(join(tmpdir(), "bedplate-bench-"));
    const path = join(directory, "frames.zst");
    const { manifest, data } = await pack(await readFile(process.execPath));
    await writeFile(path, data);
    const fd = openSync(path, "r");
    const bytes = manifest.sizeBytes;
    const pools = [startPool(1), startPool(2)] as const;
    const job = await jobOf(manifest, fd);
    const decoded = (pool: Piscina) => wallTimed(() => decodeAll(pool, job), bytes);
    return {
      rounds: 7,
      sliceSeconds: 0.1,
      candidates: {
        "ours 1 worker": decoded(pools[0]),
        "ours 2 workers": decoded(pools[1]),
        "zstd -dc": await zstdCandidate(path, bytes),
      },
      rows: [
        {
          name: "2 workers decode and verify, against zstd -dc",
          subject: "ours 2 workers",
          peer: "zstd -dc",
          floor: 1,
          cores: 2,
        },
        { name: "1 worker, against zstd -dc", subject: "ours 1 worker", peer: "zstd -dc" },
        { name: "1 → 2 workers", subject: "ours 2 workers", peer: "ours 1 worker", cores: 2 },
      ],
      async [Symbol.asyncDispose]() {
        await Promise.all(pools.map((pool) => pool.destroy()));
        closeSync(fd);
        await rm(directory, { recursive: true });
      },
    };
  },
};

/** Frames as an import makes them. */
async function pack(content: Uint8Array): Promise<{ manifest: Manifest; data: Uint8Array }> {
  const count = Math.min(groupsMax, Math.floor(content.length / groupBytes));
  const kernel = await createGroupKernel();
  const digests = new Uint8Array(count * digestBytes);
  const parts = Array.from({ length: count }, (_, group) => {
    const bytes = content.subarray(group * groupBytes, (group + 1) * groupBytes);
    kernel.windows[0]!.set(bytes);
    digests.set(kernel.chainingValue(0, groupBytes, group), group * digestBytes);
    return zstdCompressSync(bytes, {
      params: { [constants.ZSTD_c_compressionLevel]: constants.ZSTD_CLEVEL_DEFAULT },
      pledgedSrcSize: groupBytes,
    });
  });
  const manifest: Manifest = {
    sizeBytes: count * groupBytes,
    sectorBytes: null,
    root: mergeGroups(digests, count),
    groups: digests,
    frameBytes: Uint32Array.from(parts, ({ length }) => length),
    name: "bench",
    importedFrom: "raw",
  };
  return { manifest, data: Buffer.concat(parts) };
}

async function jobOf(manifest: Manifest, fd: number): Promise<FramesJob> {
  const job: ImageJob = {
    phase: "write",
    // Nothing is written.
    disk: { path: "", fd: -1, direct: false },
    sectorBytes: 512,
    sizeBytes: manifest.sizeBytes,
    claimedBefore: 0,
    shared: shareImage(manifest),
    sources: [],
    ca: "",
  };
  return { ...job, kernel: await compileKernel(), fd };
}

function startPool(threads: number): Piscina {
  return new Piscina({
    filename: new URL("./frames-worker.ts", import.meta.url).href,
    minThreads: threads,
    maxThreads: threads,
    // As a deploy's workers.
    resourceLimits: { maxYoungGenerationSizeMb: 1 },
    atomics: "disabled",
  });
}

async function decodeAll(pool: Piscina, job: FramesJob): Promise<void> {
  Atomics.store(job.shared.control, slots.next, 0);
  await Promise.all(Array.from({ length: pool.maxThreads }, () => pool.run(job)));
}

async function zstdCandidate(path: string, bytes: number): Promise<Candidate | Skipped> {
  if (await programMissing("zstd")) return { skipped: "zstd is not installed" };
  return wallTimed(async () => {
    const nowhere = openSync("/dev/null", "w");
    const child = spawn("zstd", ["-dcq", path], { stdio: ["ignore", nowhere, "inherit"] });
    closeSync(nowhere);
    const [code] = await once(child, "exit");
    if (code !== 0) throw new Error(`zstd ended with ${code}`);
  }, bytes);
}
