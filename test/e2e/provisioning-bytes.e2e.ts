// What a deploy puts on a real disk, byte by byte: nothing unverified, nothing twice, nothing left of old holes; odd sizes.
import { spawnSync } from "node:child_process";
import { closeSync, fsyncSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { groupBytes } from "../../protocol/groups.ts";
import { eventually } from "../contract/programs.ts";
import {
  deployed,
  faultsOfFinished,
  faultsOfUnfinished,
  type Host,
  onLoop,
  openHost,
  planned,
  runCommand,
  type Source,
} from "../provisioning/deploys.ts";
import { type LoopDisk, lackForLoops, writersOf } from "../provisioning/loop-disk.ts";
import { type Mirror, type MirrorOptions, mirrorAuthority, openMirror } from "../provisioning/mirror.ts";
import { makeSystem, systemBytes, withFlippedBit } from "../provisioning/systems.ts";
import { imageOf, type TestImage } from "../support/test-image.ts";

const mib = groupBytes;
const lack = lackForLoops();
if (lack !== undefined) console.warn(`skipped: ${lack}`);
const traces = spawnSync("strace", ["-o", "/dev/null", "true"]).status === 0;
if (!traces) console.warn("skipped: what happens between two system calls needs strace");

describe.skipIf(lack !== undefined)("on a real disk", () => {
  let host: Host;
  let ca: string;
  const places: string[] = [];
  beforeAll(async () => {
    host = await openHost();
    ca = await mirrorAuthority();
    places.push(`file:${host.directory}`);
  });
  afterAll(() => host?.[Symbol.asyncDispose]());

  /** A mirror that the host's policy lists. */
  async function mirror(image: TestImage, options: MirrorOptions): Promise<Mirror> {
    const opened = await openMirror(image, options);
    places.push(opened.origin);
    await host.listSources(places);
    return opened;
  }

  describe("a flipped bit never reaches it", () => {
    const flippedGroup = 5;
    const diskBytes = 12 * mib;
    let image: TestImage;
    let flippedRaw: Uint8Array;
    let flippedFrames: Uint8Array;
    beforeAll(async () => {
      image = await makeSystem({ sizeBytes: 9 * mib + 4321 });
      flippedRaw = withFlippedBit(image.bytes, flippedGroup * mib + 77_777);
      flippedFrames = withFlippedBit(image.frames, image.frameStarts[flippedGroup]! + 12_345);
    });

    test.each([
      ["raw", "file"],
      ["raw", "http"],
      ["raw", "https"],
      ["frames", "http"],
      ["frames", "https"],
    ] as const)(
      "%s by %s: the group stays as it was and is named; with a second source all is right",
      async (layout, scheme) => {
        const data = layout === "raw" ? flippedRaw : flippedFrames;
        const path = join(host.directory, "flipped.raw");
        writeFileSync(path, flippedRaw);
        await using bad = await mirror(image, {
          ...{ layout, data },
          scheme: scheme === "file" ? "http" : scheme,
        });
        // The manifest comes from it, and no data.
        await using dumb = await mirror(image, {
          ...{ layout: "frames", scheme: "https" },
          answer: ({ what }, { serve, response }) =>
            what === "manifest" ? serve() : void response.writeHead(404).end(),
        });
        await using good = await mirror(image, { layout: "frames", scheme: "https" });
        const source: Source = scheme === "file" ? { url: `file://${path}`, layout: "raw" } : bad.source;
        const disk = await host.makeDisk({ sizeBytes: diskBytes });
        const alone = { ca, sources: [dumb.source, source] };
        const { result } = await deployed(host, { image, disk: onLoop(disk), offer: alone });
        const offset = flippedGroup * mib;
        expect(result).toMatchObject({
          outcome: "failed",
          error: { code: "image.corrupt", details: { group: flippedGroup, offset, source: source.url } },
        });
        expect(result.error!.message).toContain(`Group ${flippedGroup} (from byte ${offset})`);
        const after = disk.bytes();
        expect(after.subarray(offset, offset + mib).equals(disk.old.subarray(offset, offset + mib))).toBe(
          true,
        );
        expect(faultsOfUnfinished(after, image.bytes, disk.old)).toEqual([]);

        const both = { ca, sources: [source, good.source] };
        const again = await deployed(host, { image, disk: onLoop(disk), offer: both });
        expect(again.result).toMatchObject({
          outcome: "succeeded",
          output: { sources: [{ url: source.url, gaveUp: "image.corrupt" }, { url: good.source.url }] },
        });
        expect(again.output.sources![1]).not.toHaveProperty("gaveUp");
        expect(faultsOfFinished(disk.bytes(), image.bytes, disk.old)).toEqual([]);
      },
    );
  });

  describe("closed connections", () => {
    test.each(["raw", "frames"] as const)(
      "%s: one closed at 37 % costs one group at most",
      async (layout) => {
        const image = await makeSystem({ sizeBytes: 31 * mib + 999, seed: 37, zeroGroups: [11] });
        const whole = layout === "raw" ? image.bytes.length - mib : image.frames.length;
        const cutAt = Math.floor(whole * 0.37);
        let closed = 0;
        let sent = () => 0;
        await using from = await mirror(image, {
          ...{ layout, scheme: "https" },
          answer: ({ what }, { serve, begin, right }) => {
            if (what === "manifest" || closed > 0 || sent() + right.length <= cutAt) return serve();
            closed++;
            return begin(cutAt - sent(), "close");
          },
        });
        sent = from.sentBytes;
        await using manifest = await mirror(image, { layout: "frames", scheme: "https" });
        const disk = await host.makeDisk({ sizeBytes: 32 * mib });
        const offer = { ca, sources: layout === "raw" ? [from.source, manifest.source] : [from.source] };
        const { result, output } = await deployed(host, { image, disk: onLoop(disk), offer });
        expect(result).toMatchObject({ outcome: "succeeded" });
        expect(closed).toBe(1);
        expect(from.sentBytes()).toBeGreaterThanOrEqual(whole);
        expect(from.sentBytes()).toBeLessThanOrEqual(whole + mib);
        expect(output.bytesFetched).toBeLessThanOrEqual(from.sentBytes());
        expect(output.sources![0]).not.toHaveProperty("gaveUp");
        expect(faultsOfFinished(disk.bytes(), image.bytes, disk.old)).toEqual([]);
      },
    );
  });

  describe.skipIf(!traces)("a byte changed between write and read-back", () => {
    const changed = 6 * mib + 1234;
    test.each([
      ["data", 6],
      ["a hole", 9],
    ] as const)("in %s is found, and its group alone is written again", async (_, group) => {
      const image = await makeSystem({ sizeBytes: 15 * mib + 100, zeroGroups: [9] });
      await using from = await mirror(image, { layout: "frames", scheme: "https" });
      const disk = await host.makeDisk({ sizeBytes: 20 * mib });
      const deploy = { image, disk: onLoop(disk), offer: { ca, sources: [from.source] } };
      const command = await planned(host, deploy);
      const trace = join(host.directory, `trace-${group}`);
      // It stops after every sync, so also after that between the last write and the first reading (the third one).
      const strace = ["strace", "-f", "-qq", "-o", trace, "-P", disk.path];
      const running = runCommand(host, command, deploy.offer, [
        ...[...strace, "-e", "trace=pwrite64,fsync", "-e", "inject=fsync:signal=SIGSTOP"],
      ]);
      const at = group === 9 ? 9 * mib + 4097 : changed;
      const written = () => disk.bytes().subarray(mib, image.bytes.length).equals(image.bytes.subarray(mib));
      await goOnUntil(disk, written);
      const second = openSync(disk.path, "r+");
      writeSync(second, Buffer.of(image.bytes[at]! ^ 0xff), 0, 1, at);
      fsyncSync(second);
      closeSync(second);
      const { result, output } = await goOnUntilEnd(disk, running);
      expect(result).toMatchObject({ outcome: "succeeded", output: { resumed: { groupsRewritten: 1 } } });
      expect(output.readback.root).toBe(image.reference.root);
      expect(faultsOfFinished(disk.bytes(), image.bytes, disk.old)).toEqual([]);
      const calls = readFileSync(trace, "utf8").split("\n");
      const rewritten = calls
        .slice(thirdSync(calls))
        .map(writeOf)
        .filter((write) => write !== undefined && write.offset >= mib);
      expect(rewritten).toEqual([{ offset: group * mib, bytes: mib }]);
    });

    const thirdSync = (calls: readonly string[]) =>
      calls
        .map((line, index) => (/fsync\(.*= 0|fsync resumed.*= 0/.test(line) ? index : -1))
        .filter((index) => index >= 0)[2]!;
    const writeOf = (line: string) => {
      const match = /pwrite64\(.*, (\d+), (\d+)(?:\)| <unfinished)/.exec(line);
      return match === null ? undefined : { bytes: Number(match[1]), offset: Number(match[2]) };
    };
  });

  describe("what stays", () => {
    test("a new version over the old one, 95 % the same: less than a tenth is fetched or written", async () => {
      const first = await makeSystem({ sizeBytes: 60 * mib });
      const bytes = Uint8Array.from(first.bytes);
      for (const group of [20, 21, 59])
        bytes.set(systemBytes({ sizeBytes: 1000, plain: true, seed: 7 }), group * mib + 5);
      const second = await imageOf(bytes, 512);
      const disk = await host.makeDisk({ sizeBytes: 64 * mib });
      for (const [image, least, most] of [
        [first, 0.5, 1.02],
        [second, 0.01, 0.1],
      ] as const) {
        await using from = await mirror(image, { layout: "raw", scheme: "http" });
        await using manifest = await mirror(image, { layout: "frames", scheme: "https" });
        const offer = { ca, sources: [from.source, manifest.source] };
        const { result, output } = await deployed(host, { image, disk: onLoop(disk), offer });
        expect(result).toMatchObject({ outcome: "succeeded" });
        const share = (count: number) => count / image.bytes.length;
        for (const count of [from.sentBytes(), output.bytesFetched, output.bytesWritten]) {
          expect(share(count)).toBeGreaterThanOrEqual(least);
          expect(share(count)).toBeLessThan(most);
        }
        expect(output.bytesFetched).toBe(from.sentBytes());
        expect(faultsOfFinished(disk.bytes(), image.bytes, first.bytes, disk.old)).toEqual([]);
      }
    });

    test("a sparse image over a dirty disk: every hole reads as zeroes", async () => {
      const holes = [2, 5, ...Array.from({ length: 17 }, (_, k) => 8 + k), 30, 39];
      const image = await makeSystem({ sizeBytes: 40 * mib, zeroGroups: holes });
      await using from = await mirror(image, { layout: "frames", scheme: "https" });
      const disk = await host.makeDisk({ sizeBytes: 48 * mib });
      const offer = { ca, sources: [from.source] };
      const { result } = await deployed(host, { image, disk: onLoop(disk), offer });
      expect(result).toMatchObject({ outcome: "succeeded" });
      const bytes = disk.bytes();
      for (const hole of holes.slice(0, -1))
        expect(bytes.subarray(hole * mib, (hole + 1) * mib).every((byte) => byte === 0)).toBe(true);
      expect(faultsOfFinished(bytes, image.bytes, disk.old)).toEqual([]);
    });
  });

  describe("odd sizes", () => {
    // Image, disk, sector.
    test.each([
      ["one byte", 1, 4 * mib, 512],
      ["one byte on 4096-byte sectors", 1, 4 * mib, 4096],
      ["one byte less than a group", mib - 1, mib, 512],
      ["a group on a disk of one", mib, mib, 512],
      ["a group and a byte", mib + 1, 2 * mib, 4096],
      ["less than a MiB on a disk of as much", 600 * 1024, 600 * 1024, 512],
      ["exactly the disk", 6 * mib, 6 * mib, 512],
      ["exactly a ragged disk", 6 * mib + 512, 6 * mib + 512, 512],
      ["exactly a ragged disk of 4096-byte sectors", 6 * mib + 8192, 6 * mib + 8192, 4096],
      ["all but a sector of the disk", 6 * mib - 512, 6 * mib, 512],
      ["all but a byte of a 4096-byte-sector disk", 3 * mib - 1, 3 * mib, 4096],
    ] as const)("%s", async (_, sizeBytes, diskBytes, sectorBytes) => {
      const plain = sizeBytes < 256 * sectorBytes || sizeBytes % sectorBytes !== 0;
      const image = await makeSystem({ sizeBytes, sectorBytes, plain });
      await using from = await mirror(image, { layout: "frames", scheme: "https" });
      const disk = await host.makeDisk({ sizeBytes: diskBytes, sectorBytes });
      const offer = { ca, sources: [from.source] };
      const { result } = await deployed(host, { image, disk: onLoop(disk), offer });
      expect(result).toMatchObject({ outcome: "succeeded" });
      expect(faultsOfFinished(disk.bytes(), image.bytes, disk.old)).toEqual([]);
      const end = Math.ceil(sizeBytes / sectorBytes) * sectorBytes;
      expect(
        disk
          .bytes()
          .subarray(sizeBytes, end)
          .every((byte) => byte === 0),
      ).toBe(true);
    });

    test.each([
      ["a sector", 4 * mib + 512, 512, "disk.too-small"],
      ["a byte", 4 * mib + 1, 4096, "disk.too-small"],
      ["nothing, but for other sectors", 4 * mib, 4096, "disk.sector-size"],
    ] as const)(
      "an image larger than the disk by %s is refused, and nothing is written",
      async (_, sizeBytes, sectorBytes, code) => {
        const image = await makeSystem({ sizeBytes, plain: sizeBytes % 512 !== 0 });
        await using from = await mirror(image, { layout: "frames", scheme: "https" });
        const disk = await host.makeDisk({ sizeBytes: 4 * mib, sectorBytes });
        const offer = { ca, sources: [from.source] };
        const { result } = await deployed(host, { image, disk: onLoop(disk), offer });
        expect(result).toMatchObject({ outcome: "failed", error: { code } });
        expect(disk.bytes().equals(disk.old)).toBe(true);
        expect(from.sentBytes()).toBe(0);
      },
    );
  });

  test("two hosts' executors at once on one disk: one writes, the other one is told and touches nothing", async () => {
    const images = [
      await makeSystem({ sizeBytes: 40 * mib, seed: 1 }),
      await makeSystem({ sizeBytes: 40 * mib, seed: 2 }),
    ];
    const disk = await host.makeDisk({ sizeBytes: 48 * mib });
    await using other = await openHost();
    await other.allow(disk);
    await using first = await openMirror(images[0]!, { layout: "frames", scheme: "https" });
    await using second = await openMirror(images[1]!, { layout: "frames", scheme: "https" });
    const tries = [
      { by: host, image: images[0]!, from: first },
      { by: other, image: images[1]!, from: second },
    ];
    // Both are planned on the same disk, and slow enough to meet.
    const commands = await Promise.all(
      tries.map(({ by, image, from }) => {
        const offer = { ca, sources: [from.source] };
        const limits = { bytesPerSecondMax: 20 * mib };
        return planned(by, { image, disk: onLoop(disk), offer, arguments: { limits } });
      }),
    );
    const ends = await Promise.all(
      tries.map(({ by, from }, index) => runCommand(by, commands[index]!, { ca, sources: [from.source] })),
    );
    const winner = ends.findIndex(({ result }) => result.outcome === "succeeded");
    expect(winner).toBeGreaterThanOrEqual(0);
    const { result } = ends[1 - winner]!;
    expect(["disk.held", "plan.changed"]).toContain(result.error?.code);
    expect(result.error!.details).not.toHaveProperty("left");
    expect(faultsOfFinished(disk.bytes(), images[winner]!.bytes, disk.old)).toEqual([]);
  });
});

/** Lets whoever writes to the disk go on wherever it has stopped, until it has stopped where that holds. */
async function goOnUntil(disk: LoopDisk, holds: () => boolean): Promise<void> {
  await eventually(180_000, () => {
    const stopped = writersOf(disk.path).filter(isStopped);
    if (stopped.length > 0 && holds()) return true;
    for (const pid of stopped) process.kill(pid, "SIGCONT");
    return false;
  });
}

async function goOnUntilEnd<T>(disk: LoopDisk, running: Promise<T>): Promise<T> {
  const ended = new AbortController();
  const going = eventually(180_000, () => {
    for (const pid of writersOf(disk.path).filter(isStopped)) process.kill(pid, "SIGCONT");
    return ended.signal.aborted;
  });
  try {
    return await running;
  } finally {
    ended.abort();
    await going;
  }
}

/** All its threads: one that a tracer looks at stands still for a moment, too. */
function isStopped(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).every((thread) => {
      const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "latin1");
      return /^[Tt]/.test(stat.slice(stat.lastIndexOf(")") + 2));
    });
  } catch {
    // It, or one of them, has ended.
    return false;
  }
}
