// Deploys onto real block devices: loop devices of both sector sizes, read-only, mounted, held, locked, full. Needs root.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { closeSync, constants, existsSync, openSync } from "node:fs";
import { mkdir, open, readFile, symlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { mergeGroups } from "../../assembly/index.ts";
import { hex } from "../../protocol/bytes.ts";
import type { Command, DeployOutput, DeployPlanOutput } from "../../protocol/commands.ts";
import { encodeManifest } from "../../protocol/manifest.ts";
import {
  type ExecutorHost,
  fillWithOldBytes,
  hostId,
  isRoot,
  mintId,
  openExecutorHost,
  type RunOptions,
  resultOf,
  runToEnd,
} from "../support/executor-host.ts";
import { type ImageServer, serveImage } from "../support/image-server.ts";
import { makeImage, type TestImage } from "../support/test-image.ts";

const mib = 1 << 20;
const diskBytes = 24 * mib;
const run = (program: string, ...argv: string[]) => execFileSync(program, argv, { encoding: "utf8" }).trim();
const usable =
  isRoot &&
  ["losetup", "flock", "mke2fs", "mount"].every(
    (tool) => spawnSync("sh", ["-c", `command -v ${tool}`]).status === 0,
  ) &&
  existsSync("/dev/loop-control");

describe.skipIf(!usable)("on loop devices", () => {
  let host: ExecutorHost;
  let image: TestImage;
  let server: ImageServer;
  let offer: RunOptions;
  const cleanups: (() => void)[] = [];
  let made = 0;

  beforeAll(async () => {
    host = await openExecutorHost();
    image = await makeImage({ sizeBytes: 20 * mib + 777, sectorBytes: 512, zeroGroups: [2] });
    server = await serveImage(image);
    offer = { sources: [server.source], ca: server.ca };
  });
  afterAll(async () => {
    for (const clean of cleanups.reverse()) clean();
    await server?.[Symbol.asyncDispose]();
    await host?.[Symbol.asyncDispose]();
  });

  interface Loop {
    readonly path: string;
    readonly backing: string;
  }
  const attachLoop = (backing: string, ...options: string[]): Loop => {
    const path = run("losetup", "--find", "--show", ...options, backing);
    cleanups.push(() => {
      // Taken off by its test, the number may be that of somebody else's by now.
      const argv = ["--noheadings", "--output", "BACK-FILE", path];
      if (spawnSync("losetup", argv, { encoding: "utf8" }).stdout.trim() === backing)
        spawnSync("losetup", ["--detach", path]);
    });
    return { path, backing };
  };
  async function makeLoop(...options: string[]): Promise<Loop> {
    const backing = await host.makeFile(`loop${made++}.img`, diskBytes);
    await fillWithOldBytes(backing, diskBytes);
    await host.writePolicy(`allowDisks = ["loop:${backing}"]\nunsigned = ["image.deploy"]\n`);
    return attachLoop(backing, ...options);
  }
  const command = (mode: "plan" | "apply", loop: Loop, more: object = {}, of = image) =>
    ({
      id: mintId(),
      host: hostId,
      kind: "image.deploy",
      mode,
      arguments: { image: of.reference, disk: { loop: loop.backing }, ...more },
      limits: {},
    }) as Command;
  const plan = async (loop: Loop, of = image, options = offer) =>
    resultOf((await runToEnd(host, command("plan", loop, {}, of), options)).last).output as DeployPlanOutput;
  const apply = async (loop: Loop, planned: DeployPlanOutput, of = image, options = offer) =>
    resultOf(
      (await runToEnd(host, command("apply", loop, { fingerprint: planned.fingerprint }, of), options)).last,
    );
  const bytesOf = (loop: Loop) => readFile(loop.backing);
  const refusedUnchanged = async (loop: Loop, code: string, of = image, options = offer) => {
    const planned = await plan(loop, of, options);
    const before = await bytesOf(loop);
    expect(await apply(loop, planned, of, options)).toMatchObject({ outcome: "failed", error: { code } });
    expect(Buffer.compare(await bytesOf(loop), before)).toBe(0);
    return planned;
  };

  test("sectors of 512 bytes: deployed past the page cache, read back, the identity told", async () => {
    const loop = await makeLoop();
    const planned = await plan(loop);
    expect(planned).toMatchObject({
      allowed: true,
      disk: { type: "loop", path: loop.path, logicalSectorBytes: 512 },
      fingerprint: { backing: loop.backing },
    });
    expect(planned.fingerprint.diskSequence).toBeGreaterThan(0);
    const result = await apply(loop, planned);
    expect(result).toMatchObject({
      outcome: "succeeded",
      output: { readback: { root: image.reference.root, direct: true }, disk: { path: loop.path } },
    });
    const bytes = await bytesOf(loop);
    expect(Buffer.compare(bytes.subarray(0, image.bytes.length), image.bytes)).toBe(0);
    expect(bytes.subarray(diskBytes - mib).every((byte) => byte === 0)).toBe(true);
  });

  test("sectors of 4096 bytes: an image for 512 is refused, one for 4096 with a ragged end is padded", async () => {
    const loop = await makeLoop("--sector-size", "4096");
    const refused = await refusedUnchanged(loop, "disk.sector-size");
    expect(refused.guards.filter(({ ok }) => !ok)).toMatchObject([{ guard: "sector-size" }]);
    const of4k = await makeImage({ sizeBytes: 5 * mib + 4097, sectorBytes: 4096 });
    await using served = await serveImage(of4k);
    const options = { ...offer, sources: [served.source] };
    const result = await apply(loop, await plan(loop, of4k, options), of4k, options);
    expect(result).toMatchObject({
      outcome: "succeeded",
      output: { readback: { root: of4k.reference.root, direct: true } },
    });
    const bytes = await bytesOf(loop);
    expect(Buffer.compare(bytes.subarray(0, of4k.bytes.length), of4k.bytes)).toBe(0);
    expect(bytes.subarray(of4k.bytes.length, 5 * mib + 8192).every((byte) => byte === 0)).toBe(true);
    expect(bytes[5 * mib + 8192]).toBe(0xee);
  });

  test("read-only", async () => {
    await refusedUnchanged(await makeLoop("--read-only"), "disk.read-only");
  });

  test("mounted", async () => {
    const loop = await makeLoop();
    run("mke2fs", "-q", "-F", loop.path);
    const at = join(host.directory, "mounted");
    await mkdir(at);
    // To be read: the kernel writes to what is mounted to be written, when it likes.
    run("mount", "-o", "ro", loop.path, at);
    try {
      const planned = await refusedUnchanged(loop, "disk.mounted");
      expect(planned.guards.find(({ guard }) => guard === "mounted")?.finding).toContain(at);
    } finally {
      run("umount", at);
    }
  });

  test("opened exclusively by another program: the plan tells", async () => {
    const loop = await makeLoop();
    const fd = openSync(loop.path, constants.O_RDWR | constants.O_EXCL);
    try {
      expect((await refusedUnchanged(loop, "disk.held")).allowed).toBe(false);
    } finally {
      closeSync(fd);
    }
  });

  test.each(["the device", "the file behind it"])(
    "open for writing in another program, by %s",
    async (which) => {
      const loop = await makeLoop();
      const fd = openSync(which === "the device" ? loop.path : loop.backing, constants.O_RDWR);
      try {
        const planned = await refusedUnchanged(loop, "disk.held");
        expect(planned.guards.find(({ guard }) => guard === "held")?.finding).toContain(`(${process.pid})`);
      } finally {
        closeSync(fd);
      }
      const reader = openSync(loop.path, constants.O_RDONLY);
      expect((await plan(loop)).allowed).toBe(true);
      closeSync(reader);
    },
  );

  test("locked by another program", async () => {
    const loop = await makeLoop();
    const holder = spawn("flock", ["--exclusive", loop.path, "sleep", "60"], { detached: true });
    try {
      await expect
        .poll(() => spawnSync("flock", ["--exclusive", "--nonblock", loop.path, "true"]).status)
        .toBe(1);
      await refusedUnchanged(loop, "disk.held");
    } finally {
      process.kill(-holder.pid!, "SIGKILL");
    }
  });

  test("another loop device on top of it", async () => {
    const loop = await makeLoop();
    const upper = attachLoop(loop.path);
    const planned = await refusedUnchanged(loop, "disk.held");
    expect(planned.guards.find(({ guard }) => guard === "held")?.finding).toContain(
      upper.path.replace("/dev/", ""),
    );
    run("losetup", "--detach", upper.path);
  });

  test("another loop device over a part of the same file, mounted", async () => {
    const loop = await makeLoop();
    const part = attachLoop(loop.backing, "--offset", String(4 * mib));
    run("mke2fs", "-q", "-F", part.path);
    const at = join(host.directory, "part");
    await mkdir(at);
    run("mount", "-o", "ro", part.path, at);
    try {
      const whole = { disk: { loop: loop.backing, sizeBytes: diskBytes } };
      const planned = resultOf((await runToEnd(host, command("plan", loop, whole), offer)).last)
        .output as DeployPlanOutput;
      const held = planned.guards.find(({ guard }) => guard === "held");
      expect(held).toMatchObject({ ok: false, finding: expect.stringContaining(part.path.slice(5)) });
      const before = await bytesOf(loop);
      const { fingerprint } = planned;
      const applied = await runToEnd(host, command("apply", loop, { ...whole, fingerprint }), offer);
      expect(resultOf(applied.last)).toMatchObject({ outcome: "failed", error: { code: "disk.held" } });
      expect(Buffer.compare(await bytesOf(loop), before)).toBe(0);
    } finally {
      run("umount", at);
      run("losetup", "--detach", part.path);
    }
  });

  test("a loop device over a declared file that the policy names by a link", async () => {
    const loop = await makeLoop();
    const linked = join(host.directory, `linked${made++}`);
    await symlink(host.directory, linked);
    const path = join(linked, basename(loop.backing));
    await host.allowFiles({ name: "linked", path, sizeBytes: diskBytes });
    const asked = { disk: { file: "linked" } };
    const planned = resultOf((await runToEnd(host, command("plan", loop, asked), offer)).last)
      .output as DeployPlanOutput;
    expect(planned.guards.find(({ guard }) => guard === "held")).toMatchObject({ ok: false });
  });

  test("taken off and attached again since the plan: another disk of this moment", async () => {
    const loop = await makeLoop();
    const planned = await plan(loop);
    run("losetup", "--detach", loop.path);
    const again = attachLoop(loop.backing);
    const before = await bytesOf(again);
    const result = await apply(again, planned);
    expect(result).toMatchObject({ outcome: "failed", error: { code: "plan.changed" } });
    expect(
      (result.error?.details?.changed as { field: string }[] | undefined)?.map(({ field }) => field),
    ).toContain("diskSequence");
    expect(Buffer.compare(await bytesOf(again), before)).toBe(0);
  });

  test("not named by the policy, though another loop device is", async () => {
    const loop = await makeLoop();
    await host.writePolicy('allowDisks = ["loop:/srv/other.img"]\nunsigned = ["image.deploy"]\n');
    await refusedUnchanged(loop, "disk.not-allowed");
  });

  /** Onto a file of a file system that is full before the image is on it. @param before the apply, after its plan */
  async function deployOntoFull(sizeMib: number, before?: () => void) {
    const at = join(host.directory, `small-${sizeMib}`);
    await mkdir(at);
    run("mount", "-t", "tmpfs", "-o", `size=${sizeMib}m`, "tmpfs", at);
    try {
      const path = join(at, "disk.img");
      {
        await using file = await open(path, "wx");
        await file.truncate(diskBytes);
      }
      await host.allowFiles({ name: "full", path, sizeBytes: diskBytes });
      const toFile = (mode: "plan" | "apply", more: object = {}) =>
        ({
          ...command(mode, { path, backing: path }),
          arguments: { image: image.reference, disk: { file: "full" }, ...more },
        }) as Command;
      const planned = resultOf((await runToEnd(host, toFile("plan"), offer)).last).output as DeployPlanOutput;
      before?.();
      const result = resultOf(
        (await runToEnd(host, toFile("apply", { fingerprint: planned.fingerprint }), offer)).last,
      );
      expect(result).toMatchObject({
        outcome: "failed",
        error: { code: "disk.io", details: { errno: "ENOSPC", path, left: { marker: true } } },
      });
      expect((await readFile(path)).subarray(0, 27).toString()).toBe("BEDPLATE DEPLOY IN PROGRESS");
    } finally {
      run("umount", at);
    }
  }

  test("the file system behind a file-backed disk is full: disk.io with the place, and the disk boots nothing", async () => {
    await deployOntoFull(8);
  });

  test("a disk that fails is told of at once, also while a source hangs", async () => {
    const starts: number[] = [];
    const hang = () =>
      server.misbehave(({ start, end }, response, serve) => {
        if (start === 0) return serve();
        starts.push(start);
        const group = image.frameStarts.lastIndexOf(start);
        const part = image.frames.subarray(start, Math.min(end, image.frameStarts[group + 3] ?? end));
        response.writeHead(206, {
          "content-range": `bytes ${start}-${end - 1}/${image.frames.length}`,
          "content-length": end - start,
        });
        response.write(part);
      });
    try {
      await deployOntoFull(4, hang);
    } finally {
      server.misbehave(undefined);
    }
    // Nobody has waited until a transfer counted as stalled, and asked for its rest.
    const claims = [1, 9, 17].map((group) => image.frameStarts[group]);
    expect(starts.length).toBeGreaterThan(0);
    expect(starts.filter((start) => !claims.includes(start))).toEqual([]);
  });

  test("the whole output's shape", async () => {
    const loop = await makeLoop();
    const { output } = await apply(loop, await plan(loop));
    const { bytesFetched, bytesWritten, bytesSkipped, bytesZeroed, sizeBytes } = output as DeployOutput;
    expect(bytesFetched).toBe(image.frames.length);
    expect(bytesWritten + bytesSkipped + bytesZeroed).toBe(sizeBytes);
  });

  describe.skipIf(spawnSync("blkdiscard", ["--version"]).status !== 0)("long runs of zeroes", () => {
    const runOfZeroes = Array.from({ length: 12 }, (_, k) => 5 + k);
    let holey: TestImage;
    beforeAll(async () => {
      holey = await makeImage({ sizeBytes: 20 * mib + 777, zeroGroups: [2, ...runOfZeroes] });
    });
    const deployOn = async (at: ExecutorHost, sources: RunOptions["sources"]) => {
      const loop = await makeLoop();
      if (at !== host)
        await at.writePolicy(`allowDisks = ["loop:${loop.backing}"]\nunsigned = ["image.deploy"]\n`);
      const options = { ca: server.ca, sources: sources ?? [] };
      const planned = resultOf((await runToEnd(at, command("plan", loop, {}, holey), options)).last);
      const { fingerprint } = planned.output as DeployPlanOutput;
      const { last, log } = await runToEnd(at, command("apply", loop, { fingerprint }, holey), options);
      return { result: resultOf(last), log, bytes: await bytesOf(loop) };
    };

    test("are zeroed by the device", async () => {
      await using own = await serveImage(holey);
      const { result, log, bytes } = await deployOn(host, [own.source]);
      expect(result).toMatchObject({ outcome: "succeeded", output: { bytesZeroed: 13 * mib } });
      expect(log).not.toContain("runs of zeroes are written");
      expect(Buffer.compare(bytes.subarray(0, holey.bytes.length), holey.bytes)).toBe(0);
    });

    test("are written where blkdiscard fails, and the log says so", async () => {
      await using own = await serveImage(holey);
      await using other = await openExecutorHost([{ source: "/bin/false", target: "/usr/sbin/blkdiscard" }]);
      const { result, log, bytes } = await deployOn(other, [own.source]);
      expect(result).toMatchObject({ outcome: "succeeded", output: { bytesZeroed: 13 * mib } });
      expect(log).toContain("runs of zeroes are written: blkdiscard failed");
      expect(Buffer.compare(bytes.subarray(0, holey.bytes.length), holey.bytes)).toBe(0);
    });

    test("that the manifest only claims are found before anything is written", async () => {
      const groups = Uint8Array.from(holey.manifest.groups);
      groups.set(groups.subarray(0, 32), 9 * 32);
      const root = mergeGroups(groups, groups.length / 32);
      const manifest = { ...holey.manifest, groups, root };
      const reference = { root: hex(root), sizeBytes: manifest.sizeBytes };
      const lying = { ...holey, manifest, manifestBytes: encodeManifest(manifest), reference };
      const before = holey;
      holey = lying;
      try {
        await using own = await serveImage(lying);
        const { result, bytes } = await deployOn(host, [own.source]);
        expect(result).toMatchObject({
          outcome: "failed",
          error: { code: "image.bad-manifest", details: { group: 9 } },
        });
        expect(result.error?.details).not.toHaveProperty("left");
        // What lay on the disk lies there still.
        expect(bytes.every((byte) => byte === 0xee)).toBe(true);
      } finally {
        holey = before;
      }
    });
  });
});
