// The demo's own parts: its partition table, its image, the bit it flips, the line of vitals.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtemp, open, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, zstdDecompressSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parsePolicy } from "../../agent/policy/policy.ts";
import { policyText } from "../../cli/demo/disks.ts";
import { flipBit, middleGroup } from "../../cli/demo/flip-bit.ts";
import { createPartitionTable } from "../../cli/demo/gpt.ts";
import { makeImage } from "../../cli/demo/image.ts";
import { deploySummary, emptySummary, faultsOf } from "../../cli/demo/summary.ts";
import { vitalsLine, vitalsOf } from "../../cli/demo/vitals.ts";
import { importImage } from "../../controller/images/import.ts";
import { decodeManifest, frameOffsets, groupBytes } from "../../protocol/manifest.ts";

const has = (tool: string) =>
  spawnSync("sh", ["-c", `PATH=$PATH:/usr/sbin:/sbin command -v ${tool}`]).status === 0;
const tools = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const mib = 1 << 20;
const { signal } = new AbortController();

let directory: string;
let image: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-demo-parts-"));
  image = (await makeImage(directory, 24 * mib - 5, signal)).path;
});
afterAll(() => rm(directory, { recursive: true, force: true }));

test("both headers of the partition table check out and point at each other", () => {
  const diskBytes = 64 * mib;
  const { head, tail, startBytes, sizeBytes } = createPartitionTable(diskBytes, new Uint8Array(32).fill(7));
  expect([startBytes, sizeBytes]).toEqual([mib, 62 * mib]);
  const disk = Buffer.alloc(diskBytes);
  disk.set(head);
  disk.set(tail, diskBytes - tail.length);
  expect(disk.readUInt16LE(510)).toBe(0xaa55);
  const last = diskBytes / 512 - 1;
  for (const [own, other] of [
    [1, last],
    [last, 1],
  ] as const) {
    const header = Buffer.from(disk.subarray(own * 512, own * 512 + 92));
    expect(header.toString("latin1", 0, 8)).toBe("EFI PART");
    expect([Number(header.readBigUInt64LE(24)), Number(header.readBigUInt64LE(32))]).toEqual([own, other]);
    const stored = header.readUInt32LE(16);
    header.writeUInt32LE(0, 16);
    expect(stored).toBe(crc32(header));
    const entriesAt = Number(header.readBigUInt64LE(72)) * 512;
    expect(header.readUInt32LE(88)).toBe(crc32(disk.subarray(entriesAt, entriesAt + 128 * 128)));
    expect(Number(disk.readBigUInt64LE(entriesAt + 32)) * 512).toBe(startBytes);
    expect((Number(disk.readBigUInt64LE(entriesAt + 40)) + 1) * 512).toBe(startBytes + sizeBytes);
  }
  expect(() => createPartitionTable(diskBytes + 512, new Uint8Array(32))).toThrow("assertion");
});

test.runIf(has("partx"))("partx finds the one partition in it", () => {
  const argv = ["--show", "--output", "NR,START,SECTORS,NAME", "--noheadings", image];
  expect(execFileSync("partx", argv, { env: tools }).toString().trim().replaceAll(/ +/g, " ")).toBe(
    `1 2048 ${22 * 2048} bedplate-demo`,
  );
});

test.runIf(has("mke2fs") && has("e2fsck"))(
  "its file system is clean and holds this machine's files",
  async () => {
    expect((await stat(image)).size).toBe(24 * mib);
    const partition = join(directory, "partition");
    {
      await using from = await open(image, "r");
      await using to = await open(partition, "w");
      const bytes = Buffer.alloc(22 * mib);
      await from.read(bytes, 0, bytes.length, mib);
      await to.write(bytes);
    }
    const check = spawnSync("e2fsck", ["-f", "-n", partition], { env: tools });
    expect(check.status, check.stdout.toString()).toBe(0);
    const files = /: (\d+)\/\d+ files/.exec(check.stdout.toString())?.[1];
    expect(Number(files)).toBeGreaterThan(20);
  },
);

test("the image has groups of zeroes and others, and the bit that is flipped is found by nothing but the digest", async () => {
  const store = join(directory, "store");
  const { root, groups, zeroGroups } = await importImage({ input: image, store, signal });
  expect(zeroGroups).toBeGreaterThan(0);
  expect(groups - zeroGroups).toBeGreaterThanOrEqual(8);
  const frames = join(store, root, "frames");
  const before = await readFile(frames);
  const flipped = await flipBit(join(store, root));
  const after = await readFile(frames);
  const differing = [...before.keys()].filter((i) => before[i] !== after[i]);
  expect(differing).toEqual([flipped.at]);
  expect(before[flipped.at]! ^ after[flipped.at]!).toBe(1 << flipped.bit);

  const manifest = decodeManifest(await readFile(join(store, root, "manifest")));
  const offsets = frameOffsets(manifest);
  expect(flipped.at).toBeGreaterThanOrEqual(offsets[flipped.group]!);
  expect(flipped.at).toBeLessThan(offsets[flipped.group + 1]!);
  expect(flipped.offset).toBe(flipped.group * groupBytes);
  expect(flipped.silent).toBe(true);
  const [start, end] = [offsets[flipped.group]!, offsets[flipped.group + 1]!];
  const [good, bad] = [before, after].map((bytes) => zstdDecompressSync(bytes.subarray(start, end)));
  expect(bad!.length).toBe(good!.length);
  expect(bad!.equals(good!)).toBe(false);

  await flipped.restore();
  expect((await readFile(frames)).equals(before)).toBe(true);
});

test("the group in the middle is a stored one and not the first", () => {
  expect(middleGroup(Uint32Array.from([9, 0, 9, 9, 0, 0, 0]))).toBe(3);
  expect(middleGroup(Uint32Array.from([9, 0, 9]))).toBe(2);
  expect(middleGroup(Uint32Array.from([9]))).toBe(0);
});

test("the policy allows the demo's disks and no others", () => {
  const disk = { name: "first", backing: '/tmp/a "b"/first.img', path: "/dev/loop7", sizeBytes: 2 * mib };
  const loop = parsePolicy(
    policyText({ kind: "loop", disks: [{ ...disk, selector: {}, entry: `loop:${disk.backing}` }] }),
    "policy.toml",
  );
  const listed = { type: "loop", backing: disk.backing } as Parameters<typeof loop.allows>[0];
  expect(loop.allows(listed)).toBe(true);
  expect(loop.allows({ ...listed, backing: "/other" })).toBe(false);
  const file = parsePolicy(
    policyText({ kind: "file", disks: [{ ...disk, path: disk.backing, selector: {}, entry: "file:first" }] }),
    "policy.toml",
  );
  expect(file.fileDisks).toEqual([{ name: "first", path: disk.backing, sizeBytes: 2 * mib }]);
});

test("vitals come from the difference of two samples", () => {
  const series = [
    { name: "node_cpu_seconds_total", labels: { cpu: "0", mode: "idle" } },
    { name: "node_cpu_seconds_total", labels: { cpu: "0", mode: "user" } },
    { name: "node_memory_MemTotal_bytes", labels: {} },
    { name: "node_memory_MemAvailable_bytes", labels: {} },
    { name: "node_load1", labels: {} },
    { name: "node_network_receive_bytes_total", labels: { device: "eth0" } },
  ].map((entry) => ({ ...entry, type: "gauge" as const, scale: 1 }));
  const vitals = vitalsOf(
    { series } as unknown as Parameters<typeof vitalsOf>[0],
    { at: 1000, values: [10, 5, 8 << 20, 6 << 20, 1, 1000] },
    { at: 3000, values: [11, 8, 8 << 20, 2 << 20, 0.5, 5096] },
  );
  expect(vitals).toEqual({
    processorShare: 0.75,
    memoryUsedBytes: 6 << 20,
    memoryTotalBytes: 8 << 20,
    load1: 0.5,
    diskWriteRate: undefined,
    networkReceiveRate: 2048,
  });
  expect(vitalsLine(vitals)).toBe("cpu  75%   load 0.50   memory 6 MiB of 8 MiB   network received 2 KiB/s");
  expect(vitalsLine(vitalsOf({ series: [] }, { at: 0, values: [] }, { at: 1, values: [] }))).toBe("");
});

test("a summary is ok only when every act ended as it must", () => {
  const root = "a".repeat(64);
  const good = {
    ...emptySummary(),
    host: {} as NonNullable<ReturnType<typeof emptySummary>["host"]>,
    telemetry: { samples: 3, series: 9, gaps: 0 },
    image: { root, sizeBytes: 5 },
    deploy: { ...deploySummary("succeeded", undefined)!, readback: root },
    corrupt: { state: "failed", code: "image.corrupt", group: 4, bytesWrittenOfBadGroup: 0 },
    resume: { state: "succeeded", groupsRewritten: 0 },
  };
  const expected = { flippedGroup: 4 };
  expect(faultsOf(good, expected)).toEqual([]);
  for (const bad of [
    emptySummary(),
    { ...good, deploy: { ...good.deploy, readback: "b".repeat(64) } },
    { ...good, deploy: { ...good.deploy, state: "failed" } },
    { ...good, corrupt: { ...good.corrupt, state: "succeeded" } },
    { ...good, corrupt: { ...good.corrupt, code: "disk.io" } },
    { ...good, corrupt: { ...good.corrupt, group: 5 } },
    { ...good, corrupt: { ...good.corrupt, bytesWrittenOfBadGroup: 1 } },
    { ...good, resume: { state: "failed", groupsRewritten: 0 } },
    { ...good, telemetry: { samples: 0, series: 0, gaps: 0 } },
  ]) {
    expect(faultsOf(bad, expected).length).toBeGreaterThan(0);
  }
});
