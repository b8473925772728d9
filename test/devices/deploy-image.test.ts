// The write order itself, in this process: cut off at every step of its journal, damaged under way, and taken up again.
import { closeSync, openSync, writeSync } from "node:fs";
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { constants, createZstdCompress, zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DeployJournal, deployImage } from "../../agent/devices/deploy-image.ts";
import { type DirectFile, openDisk } from "../../agent/devices/direct-file.ts";
import { contentDigest, fingerprintOf } from "../../agent/devices/fingerprint.ts";
import { decodeFrame, type Work } from "../../agent/devices/group-work.ts";
import { createImageRun, type ImageWorkers, startImageWorkers } from "../../agent/devices/image-run.ts";
import type { UsableSource } from "../../agent/devices/open-sources.ts";
import { proveImage } from "../../agent/devices/proved-image.ts";
import { shareImage } from "../../agent/devices/share-image.ts";
import { verifyImage } from "../../agent/devices/verify-image.ts";
import { zeroRuns } from "../../agent/devices/zero-runs.ts";
import { systemClock } from "../../agent/host/clock.ts";
import { createPause, type Pause } from "../../agent/host/pause.ts";
import type { Processes } from "../../agent/host/processes.ts";
import { systemRandom } from "../../agent/host/random.ts";
import { compileKernel, createGroupKernel, groupKernelOf } from "../../assembly/index.ts";
import type { DeployOutput } from "../../protocol/commands.ts";
import type { DiskContent } from "../../protocol/disk-content.ts";
import type { Disk, Fingerprint } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { mintId } from "../support/executor-host.ts";
import { type ImageServer, serveImage } from "../support/image-server.ts";
import { makeImage, type TestImage } from "../support/test-image.ts";

const mib = 1 << 20;
const diskBytes = 14 * mib;
let directory: string;
let image: TestImage;
let server: ImageServer;
let workers: ImageWorkers;
let made = 0;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bp-deploy-"));
  image = await makeImage({ sizeBytes: 12 * mib + 5, zeroGroups: [4] });
  server = await serveImage(image);
  workers = startImageWorkers({ kernel: await compileKernel() });
});
afterAll(async () => {
  await workers[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

interface Bench {
  readonly path: string;
  readonly disk: Disk;
  readonly planned: Fingerprint;
  readonly operation: string;
}

async function makeBench(sizeBytes = diskBytes): Promise<Bench> {
  const path = join(directory, `disk${made++}`);
  await writeFile(path, new Uint8Array(sizeBytes).fill(0xee));
  const disk = {
    path,
    type: "file",
    sizeBytes,
    logicalSectorBytes: 512,
    physicalSectorBytes: 4096,
    serial: null,
    wwn: null,
    model: null,
    backing: path,
    diskSequence: 0,
  } as unknown as Disk;
  await using file = await openFile(path);
  const { windows } = await createGroupKernel();
  return { path, disk, planned: await fingerprintOf(disk, file, "boot", windows[0]!), operation: mintId() };
}

async function openFile(path: string): Promise<DirectFile> {
  const { windows } = await createGroupKernel();
  return openDisk({ path, kind: "file", access: "write", window: windows[0]! });
}

/** What the journal would have on disk, and a fault that strikes once. */
interface Memory {
  began: boolean;
  sealing: boolean;
  good: DeployJournal["good"];
}
class Cut extends Error {}
type Step = "begin" | "saveGood" | "beforeSeal" | "seal";

function journalOf(memory: Memory, cutAt?: Step): DeployJournal {
  const step = (name: Step, keep: () => void) => {
    keep();
    if (cutAt === name) throw new Cut(name);
  };
  return {
    began: memory.began,
    sealing: memory.sealing,
    good: memory.good,
    begin: () => step("begin", () => Object.assign(memory, { began: true })),
    saveGood: (bitmap, claimed) =>
      step("saveGood", () => Object.assign(memory, { good: { bitmap, claimed } })),
    seal: () => step("seal", () => Object.assign(memory, { sealing: true })),
  };
}

async function deploy(
  { disk, planned, operation, path }: Bench,
  memory: Memory,
  options: {
    cutAt?: Step;
    run?: number;
    content?: DiskContent;
    onPhase?: (name: string, done: () => number) => void;
    planned?: Fingerprint;
    pause?: Pause;
    signal?: AbortSignal;
    log?: (text: string) => void;
    fetchBytesPerSecondMax?: number;
    bytesPerSecondMax?: number;
    sources?: readonly UsableSource[];
  } = {},
): Promise<DeployOutput> {
  const signal = options.signal ?? new AbortController().signal;
  await using file = await openFile(path);
  const kernel = await createGroupKernel();
  const pause = options.pause ?? createPause(signal);
  const from = { manifest: image.manifest, sources: options.sources ?? [server.source], ca: server.ca };
  const { fetchBytesPerSecondMax } = options;
  await using proved = proveImage({
    ...{ ...from, kernel, workers, clock: systemClock, random: systemRandom },
    ...{ signal, pause, fetchBytesPerSecondMax },
  });
  return await deployImage({
    ...from,
    operation,
    run: options.run ?? 1,
    image: proved,
    disk,
    open: file,
    planned: options.planned ?? planned,
    bootId: "boot",
    content: async () => options.content ?? blank,
    kernel,
    workers,
    clock: systemClock,
    random: systemRandom,
    journal: journalOf(memory, options.cutAt),
    signal,
    pause,
    startedMs: systemClock.monotonic(),
    ...(options.log === undefined ? {} : { log: options.log }),
    fetchBytesPerSecondMax,
    bytesPerSecondMax: options.bytesPerSecondMax,
    phase: (name, _, done) => options.onPhase?.(name, done),
    pointOfNoReturn: () => {
      if (options.cutAt === "beforeSeal") throw new Cut("beforeSeal");
    },
  });
}

const undisturbed = () => {
  const { signal } = new AbortController();
  return { signal, pause: createPause(signal), onStart() {} };
};
const blank: DiskContent = { table: null, partitions: [], signatures: [], errors: [] };
const fresh = (): Memory => ({ began: false, sealing: false, good: undefined });
const startsAsImage = async (path: string) =>
  Buffer.compare((await readFile(path)).subarray(0, 512), image.bytes.subarray(0, 512)) === 0;
const holdsImage = async (path: string) =>
  Buffer.compare((await readFile(path)).subarray(0, image.bytes.length), image.bytes) === 0;

describe("cut off", () => {
  test.each<[Step, string]>([
    ["begin", "old"],
    ["saveGood", "marker"],
    ["beforeSeal", "marker"],
    ["seal", "marker"],
  ])(
    "at %s: the disk starts with the %s, never with the image, and the next run ends it",
    async (cutAt, starts) => {
      const bench = await makeBench();
      const memory = fresh();
      await expect(deploy(bench, memory, { cutAt })).rejects.toThrow(Cut);
      expect(await startsAsImage(bench.path)).toBe(false);
      const text = (await readFile(bench.path)).subarray(0, 64).toString("latin1");
      expect(text.startsWith("BEDPLATE DEPLOY IN PROGRESS")).toBe(starts === "marker");
      const out = await deploy(bench, memory, { run: 2 });
      expect(out.readback.root).toBe(image.reference.root);
      expect(await holdsImage(bench.path)).toBe(true);
      if (cutAt === "seal" || cutAt === "beforeSeal")
        expect(out).toMatchObject({ resumed: { groupsKept: 12, groupsRewritten: 0 }, bytesWritten: mib });
    },
  );

  test("before the marker: taken up again only where the disk holds what was planned", async () => {
    const bench = await makeBench();
    const planned = { ...bench.planned, content: await contentDigest(blank) };
    const memory = fresh();
    await expect(deploy(bench, memory, { planned, cutAt: "begin" })).rejects.toThrow(Cut);
    const before = await readFile(bench.path);
    const content = { ...blank, errors: ["a pool that was made since"] };
    await expect(deploy(bench, memory, { planned, run: 2, content })).rejects.toMatchObject({
      code: "plan.changed",
      details: { changed: [{ field: "content" }] },
    });
    expect(Buffer.compare(await readFile(bench.path), before)).toBe(0);
    await deploy(bench, memory, { planned, run: 2 });
    expect(await holdsImage(bench.path)).toBe(true);
  });

  test("while the first MiB is being written: taken up again only because the journal says so", async () => {
    const bench = await makeBench();
    const memory = fresh();
    await expect(deploy(bench, memory, { cutAt: "seal" })).rejects.toThrow(Cut);
    {
      await using file = await open(bench.path, "r+");
      // The head is down, the rest of the first MiB is not.
      await file.write(image.bytes.subarray(0, 4096), 0, 4096, 0);
    }
    await expect(deploy(bench, { ...memory, sealing: false }, { run: 2 })).rejects.toMatchObject({
      code: "plan.changed",
    });
    expect((await deploy(bench, memory, { run: 2 })).readback.root).toBe(image.reference.root);
    expect(await holdsImage(bench.path)).toBe(true);
  });

  test("an image that fills the disk: its end, where a backup table lies, comes with the seal", async () => {
    const fullBytes = 12 * mib + 512;
    const bench = await makeBench(fullBytes);
    const memory = fresh();
    await expect(deploy(bench, memory, { cutAt: "beforeSeal" })).rejects.toThrow(Cut);
    const cut = await readFile(bench.path);
    expect(cut.subarray(fullBytes - mib).every((byte) => byte === 0)).toBe(true);
    expect(Buffer.compare(cut.subarray(mib, 11 * mib), image.bytes.subarray(mib, 11 * mib))).toBe(0);
    const out = await deploy(bench, memory, { run: 2 });
    expect(out).toMatchObject({
      readback: { root: image.reference.root },
      resumed: { groupsKept: 10, groupsRewritten: 0 },
      bytesWritten: 2 * mib + 5,
    });
    expect(await holdsImage(bench.path)).toBe(true);
  });

  test("another operation's marker is not taken for its own", async () => {
    const bench = await makeBench();
    const memory = fresh();
    await expect(deploy(bench, memory, { cutAt: "saveGood" })).rejects.toThrow(Cut);
    await expect(deploy({ ...bench, operation: mintId() }, memory, { run: 2 })).rejects.toMatchObject({
      code: "plan.changed",
    });
  });

  test("what the journal keeps is not believed blindly: the read-back finds what changed since, and mends it alone", async () => {
    const bench = await makeBench();
    const memory = fresh();
    await expect(deploy(bench, memory, { cutAt: "beforeSeal" })).rejects.toThrow(Cut);
    {
      await using file = await open(bench.path, "r+");
      await file.write(new Uint8Array([1, 2, 3]), 0, 3, 7 * mib + 9);
    }
    const out = await deploy(bench, memory, { run: 2 });
    expect(out.resumed).toEqual({ times: 1, groupsKept: 12, groupsRechecked: 0, groupsRewritten: 1 });
    expect(await holdsImage(bench.path)).toBe(true);
  });
});

/** Changes a byte at each place, at once. */
function patch(path: string, places: readonly number[]): void {
  const fd = openSync(path, "r+");
  for (const at of places) writeSync(fd, new Uint8Array([99]), 0, 1, at);
  closeSync(fd);
}

test("a group that reads back wrong is written again, alone, and told by its logical blocks; a group of zeroes too", async () => {
  const bench = await makeBench();
  const logged: string[] = [];
  const out = await deploy(bench, fresh(), {
    log: (text) => logged.push(text),
    onPhase(name) {
      if (name !== "verify") return;
      patch(bench.path, [3 * mib + 1, 4 * mib + 2, 12 * mib + 4]);
    },
  });
  expect(out.resumed.groupsRewritten).toBe(3);
  expect(await holdsImage(bench.path)).toBe(true);
  const { rereads, repaired, repairedGroups = [] } = out.readback;
  expect([rereads, repaired]).toEqual([3, 3]);
  // The image's last group has 5 bytes: one block.
  expect(repairedGroups.map(({ group, offset, lba, blocks }) => [group, offset, lba, blocks])).toEqual([
    [3, 3 * mib, 6144, 2048],
    [4, 4 * mib, 8192, 2048],
    [12, 12 * mib, 24_576, 1],
  ]);
  for (const { group, expected, found } of repairedGroups) {
    expect(expected).toBe(
      Buffer.from(image.manifest.groups.subarray(group * 32, group * 32 + 32)).toString("hex"),
    );
    expect(found).not.toBe(expected);
    expect(logged.join("\n")).toContain(`reads as ${found}, not ${expected}; it was repaired`);
  }
  expect(logged.join("\n")).toContain("LBA 6144 to 8191 (group 3, from byte 3145728)");
});

test("verified: each wrong group with its blocks and what was read, and no faster than is allowed", async () => {
  const bench = await makeBench();
  await deploy(bench, fresh());
  const verify = async (bytesPerSecondMax?: number) => {
    await using file = await openFile(bench.path);
    await using workers = startImageWorkers({ kernel: await compileKernel(), threads: 2 });
    const { signal, pause } = undisturbed();
    return await verifyImage({
      ...{ manifest: image.manifest, open: file, sectorBytes: 512, workers, bytesPerSecondMax },
      ...{ clock: systemClock, signal, pause, phase() {} },
    });
  };
  const fast = await verify();
  expect(fast).toMatchObject({ matches: true, wrong: [], rereads: 0 });
  // 12 MiB at 2 MiB a second, less what the buckets hold at the start.
  const slow = await verify(2 * mib);
  expect(slow.seconds).toBeGreaterThan(5);
  expect(slow.seconds).toBeGreaterThan(1.3 * fast.seconds);
  patch(bench.path, [7 * mib + 9]);
  const expected = Buffer.from(image.manifest.groups.subarray(7 * 32, 8 * 32)).toString("hex");
  expect(await verify()).toMatchObject({
    matches: false,
    rereads: 1,
    wrongGroups: [7],
    wrong: [{ group: 7, offset: 7 * mib, lba: 14_336, blocks: 2048, expected }],
  });
});

test("a disk that is not the planned one, in any field, is not touched", async () => {
  const bench = await makeBench();
  const before = await readFile(bench.path);
  for (const change of [
    { serial: "X" },
    { sizeBytes: 1 },
    { bootId: "other" },
    { diskSequence: 4 },
    { edges: "00".repeat(32) },
  ] as Partial<Fingerprint>[]) {
    const memory = fresh();
    await expect(deploy(bench, memory, { planned: { ...bench.planned, ...change } })).rejects.toMatchObject({
      code: "plan.changed",
      details: { changed: [{ field: Object.keys(change)[0] }] },
    });
    expect(memory.began).toBe(false);
  }
  expect(Buffer.compare(await readFile(bench.path), before)).toBe(0);
});

test("a worker that dies fails the operation, and nothing hangs", async () => {
  const bench = await makeBench();
  const worker = join(directory, "dying-worker.mjs");
  await writeFile(
    worker,
    "export default async () => { await new Promise((resolve) => setTimeout(resolve, 50)); process.exit(7); };\n",
  );
  await using file = await openFile(bench.path);
  const { path, fd, direct } = file;
  await using dying = startImageWorkers({
    ...{ kernel: await compileKernel(), threads: 2, worker: pathToFileURL(worker) },
  });
  const run = createImageRun({
    job: {
      disk: { path, fd, direct },
      sectorBytes: 512,
      sizeBytes: image.manifest.sizeBytes,
      claimedBefore: 0,
      shared: shareImage(image.manifest),
      sources: [server.source],
      ca: server.ca,
    },
    clock: systemClock,
    workers: dying,
  });
  const started = performance.now();
  await expect(
    run.run("write", {
      first: 1,
      ...undisturbed(),
      onTick: async () => {},
    }),
  ).rejects.toMatchObject({ code: "worker.died" });
  expect(performance.now() - started).toBeLessThan(30_000);
});

test("no more is fetched in a second than is allowed, by all workers together", async () => {
  const free = await deploy(await makeBench(), fresh());
  const bound = await deploy(await makeBench(), fresh(), { fetchBytesPerSecondMax: mib });
  expect(bound.bytesFetched).toBe(free.bytesFetched);
  // The buckets begin full, and the first group is fetched later.
  expect(bound.bytesFetched / bound.seconds.write).toBeLessThan(1.7 * mib);
});

test("a write that waits, for its bound or for a pause, keeps its window: what is read ahead from a file goes into another one", async () => {
  const raw = join(directory, "image.raw");
  await writeFile(raw, image.bytes);
  await using file = await open(raw, "r");
  const sources = [{ url: pathToFileURL(raw).href, layout: "raw", fd: file.fd }] as const;
  const abort = new AbortController();
  const pause = createPause(abort.signal);
  const out = await deploy(await makeBench(), fresh(), {
    ...{ sources, bytesPerSecondMax: 4 * mib, pause },
    onPhase(name) {
      if (name !== "write") return;
      setTimeout(() => pause.set(true), 400);
      setTimeout(() => pause.set(false), 1400);
    },
  });
  expect(out.readback).toMatchObject({ rereads: 0, repaired: 0 });
});

describe("paused", () => {
  /** Deploys, and is paused as that phase begins. */
  async function deployPaused(bench: Bench, phase: string) {
    const abort = new AbortController();
    const pause = createPause(abort.signal);
    const reached = Promise.withResolvers<() => number>();
    const ended = deploy(bench, fresh(), {
      pause,
      signal: abort.signal,
      onPhase(name, done) {
        if (name !== phase) return;
        pause.set(true);
        reached.resolve(done);
      },
    });
    const done = await Promise.race([reached.promise, ended.then(() => Promise.reject(new Error("ended")))]);
    return { abort, pause, ended, done };
  }
  const standsStill = async (path: string, done: () => number) => {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const before = [done(), await readFile(path)] as const;
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(done()).toBe(before[0]);
    expect(Buffer.compare(await readFile(path), before[1])).toBe(0);
    return before[0];
  };

  test.each(["write", "verify", "seal"])(
    "in the phase %s nothing is written within a second; then it goes on to the end",
    async (phase) => {
      const bench = await makeBench();
      const { pause, ended, done } = await deployPaused(bench, phase);
      const before = await standsStill(bench.path, done);
      expect(before).toBeLessThan(image.bytes.length / 2);
      expect(await startsAsImage(bench.path)).toBe(false);
      pause.set(false);
      await ended;
      expect(await holdsImage(bench.path)).toBe(true);
    },
  );

  test("a cancel ends it where it stands, and the disk boots nothing", async () => {
    const bench = await makeBench();
    const { abort, ended, done } = await deployPaused(bench, "write");
    await standsStill(bench.path, done);
    const began = performance.now();
    abort.abort(new BedplateError("command.cancelled", "enough"));
    await expect(ended).rejects.toMatchObject({
      code: "command.cancelled",
      details: { left: { marker: true } },
    });
    expect(performance.now() - began).toBeLessThan(30_000);
    expect(await startsAsImage(bench.path)).toBe(false);
  });
});

test("a journal that fails stops the workers", async () => {
  const bench = await makeBench();
  await using file = await openFile(bench.path);
  const { path, fd, direct } = file;
  const run = createImageRun({
    job: {
      disk: { path, fd, direct },
      sectorBytes: 512,
      sizeBytes: image.manifest.sizeBytes,
      claimedBefore: 0,
      shared: shareImage(image.manifest),
      sources: [server.source],
      ca: server.ca,
    },
    clock: systemClock,
    workers,
  });
  server.misbehave(() => {});
  try {
    const full = new Error("the journal's disk is full");
    const onTick = () => Promise.reject(full);
    await expect(run.run("write", { first: 1, ...undisturbed(), onTick })).rejects.toBe(full);
    // A sync that failed succeeds when it is tried again, though what it lost is lost: not even a cancel has it tried again.
    const abort = new AbortController();
    let ticks = 0;
    const failing = async () => {
      ticks++;
      abort.abort(new Error("cancelled"));
      throw full;
    };
    const cancelled = { first: 1, ...undisturbed(), signal: abort.signal, onTick: failing };
    await expect(run.run("write", cancelled)).rejects.toThrow("cancelled");
    expect(ticks).toBe(1);
  } finally {
    server.misbehave(undefined);
  }
});

test("what would zero while paused ends when the workers have failed", async () => {
  const pause = createPause(new AbortController().signal);
  pause.set(true);
  const failed = new AbortController();
  const job = { shared: shareImage(image.manifest), sizeBytes: image.manifest.sizeBytes, sectorBytes: 512 };
  const zeroing = zeroRuns(job, [{ first: 4, groups: 1 }], {
    disk: { path: "/dev/none", fd: -1, direct: true },
    processes: {} as Processes,
    ...{ signal: failed.signal, pause },
  });
  failed.abort(new Error("a worker died"));
  await expect(zeroing).rejects.toThrow("a worker died");
});

test("a frame that asks for a huge window is refused before the memory is taken", async () => {
  const part = image.bytes.subarray(mib, 2 * mib);
  const compress = createZstdCompress({
    params: { [constants.ZSTD_c_windowLog]: 27, [constants.ZSTD_c_contentSizeFlag]: 0 },
  });
  const frame = (async () => Buffer.concat(await Array.fromAsync(compress)))();
  compress.write(part.subarray(0, mib / 2));
  compress.end(part.subarray(mib / 2));
  const kernel = groupKernelOf(await compileKernel());
  const job = { shared: shareImage(image.manifest), sizeBytes: image.manifest.sizeBytes, sectorBytes: 512 };
  const decode = (data: Uint8Array) =>
    decodeFrame({ job, kernel } as Work, { group: 1, data, source: { url: "https://x" } }, 0);
  expect(decode(zstdCompressSync(part))).toBeUndefined();
  expect(decode(await frame)).toMatchObject({
    code: "image.corrupt",
    message: expect.stringContaining("too much memory"),
  });
});
