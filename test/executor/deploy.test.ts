// image.deploy and image.verify by real executor processes, over TLS, onto file-backed disks: no root needed.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { chmod, open, readFile } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDisk } from "../../agent/devices/direct-file.ts";
import type { FileDisk } from "../../agent/devices/disks.ts";
import { fingerprintOf } from "../../agent/devices/fingerprint.ts";
import { createGroupKernel } from "../../assembly/index.ts";
import type { Command, DeployOutput, VerifyOutput } from "../../protocol/commands.ts";
import type { Disk as ListedDisk } from "../../protocol/disks.ts";
import { encodeManifest, groupBytes } from "../../protocol/manifest.ts";
import { type DeployStage, deployOf, holdsImage, openDeployStage, planOf } from "../support/deploy-stage.ts";
import {
  attach,
  declared,
  type ExecutorHost,
  mintId,
  progressOf,
  type RunOptions,
  resultOf,
  runRequest,
  runToEnd,
  sha256Of,
} from "../support/executor-host.ts";
import { holdAfter, type ImageServer, serveImage } from "../support/image-server.ts";
import { imageOf, makeImage, type TestImage } from "../support/test-image.ts";

const mib = 1 << 20;
const diskBytes = 40 * mib;
/** 33 groups, the last one short and no multiple of a sector; some of zeroes. */
const imageBytes = 32 * mib + 12_345;

let stage: DeployStage;
let host: ExecutorHost;
let image: TestImage;
let server: ImageServer;
let offer: RunOptions;
beforeAll(async () => {
  stage = await openDeployStage({ sizeBytes: imageBytes, zeroGroups: [5, 6, 20] });
  ({ host, image, server, offer } = stage);
});
afterAll(() => stage?.[Symbol.asyncDispose]());

let made = 0;
/** A disk full of old bytes, the only one that the policy allows. */
async function makeDisk(sizeBytes = diskBytes): Promise<FileDisk> {
  const disk = await host.makeOldDisk(`disk${made++}`, sizeBytes);
  await host.allowFiles(disk);
  return disk;
}

const verifyOf = (disk: FileDisk) => ({ ...deployOf(image, disk, "apply"), kind: "image.verify" }) as Command;
const plan = (disk: FileDisk, of = image, options = offer) =>
  planOf({ host, offer: options }, deployOf(of, disk, "plan"));
/** With the fingerprint that a plan would give, made here: half as many processes to start. */
async function applyCommand(disk: FileDisk, of = image): Promise<Command> {
  const { windows } = await createGroupKernel();
  await using file = await openDisk({ path: disk.path, kind: "file", access: "read", window: windows[0]! });
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  const { path: backing, sizeBytes } = disk;
  const facts = {
    serial: null,
    wwn: null,
    backing,
    model: null,
    sizeBytes,
    logicalSectorBytes: 512,
    physicalSectorBytes: 4096,
    diskSequence: 0,
  };
  const fingerprint = await fingerprintOf(facts as ListedDisk, file, bootId, windows[0]!);
  return deployOf(of, disk, "apply", { fingerprint });
}
const holds = (disk: FileDisk, of = image) => holdsImage(disk, of);
const head = (disk: FileDisk) => readFileSync(disk.path).subarray(0, 512).toString("latin1");

/** Waits until the journal says that some groups are good. */
async function untilJournalled(id: string, groups: number): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    try {
      using database = new DatabaseSync(`${host.stateDirectory}/journal.db`, { readOnly: true });
      const row = database.prepare("SELECT value FROM notes WHERE operation = ? AND name = 'good'").get(id);
      const good = (row?.value ?? new Uint8Array(8)) as Uint8Array;
      const bits = good
        .subarray(8)
        .reduce((sum, byte) => sum + byte.toString(2).replaceAll("0", "").length, 0);
      if (bits >= groups) return;
    } catch {
      // The journal may be busy.
    }
  }
  throw new Error("the journal shows no good groups");
}

test("plan changes nothing; apply brings the image onto the disk, the tail is cleared, the read-back root is the image's", async () => {
  const disk = await makeDisk();
  const before = await sha256Of(disk.path);
  const planned = await plan(disk);
  expect(planned).toMatchObject({
    allowed: true,
    image: image.reference,
    bytesToFetchMax: image.frames.length,
  });
  expect(planned.guards.map(({ guard }) => guard)).toEqual([
    "protected",
    "allowed",
    "own-root",
    "mounted",
    "swap",
    "held",
    "remote",
    "member",
    "shared-storage",
    "table",
    "read-only",
    "size",
    "sector-size",
  ]);
  expect(await sha256Of(disk.path)).toBe(before);

  const { last, events } = await runToEnd(
    host,
    deployOf(image, disk, "apply", { fingerprint: planned.fingerprint }),
    offer,
  );
  const { outcome, output } = resultOf(last);
  expect(outcome).toBe("succeeded");
  const out = output as DeployOutput;
  expect(out).toMatchObject({
    root: image.reference.root,
    sizeBytes: imageBytes,
    groups: 33,
    bytesFetched: image.frames.length,
    bytesSkipped: 0,
    bytesZeroed: 3 * mib,
    bytesWritten: imageBytes - 3 * mib,
    resumed: { times: 0, groupsKept: 0, groupsRechecked: 0, groupsRewritten: 0 },
    readback: { root: image.reference.root },
    disk: { path: disk.path, backing: disk.path },
  });
  expect(await holds(disk)).toBe(true);
  const bytes = await readFile(disk.path);
  // The padding of the last sector, the untouched middle, and the disk's last MiB.
  expect(bytes.subarray(imageBytes, Math.ceil(imageBytes / 512) * 512).every((byte) => byte === 0)).toBe(
    true,
  );
  expect(bytes[Math.ceil(imageBytes / 512) * 512]).toBe(0xee);
  expect(bytes.subarray(diskBytes - mib).every((byte) => byte === 0)).toBe(true);
  expect(progressOf(events).map(({ phase }) => phase)).toEqual(
    expect.arrayContaining(["write", "verify", "seal"]),
  );
});

test("what is right already is neither fetched nor written; verify says so, and names what is wrong", async () => {
  const disk = await makeDisk();
  await runToEnd(host, await applyCommand(disk), offer);
  const sent = server.sentBytes();
  {
    await using file = await open(disk.path, "r+");
    await file.write(new Uint8Array([1, 2, 3]), 0, 3, 9 * mib + 77);
    await file.write(new Uint8Array([1]), 0, 1, 20 * mib);
  }
  const wrong = resultOf((await runToEnd(host, verifyOf(disk), offer)).last);
  expect(wrong).toMatchObject({ outcome: "failed", error: { code: "disk.readback-mismatch" } });
  expect(wrong.output as VerifyOutput).toMatchObject({
    matches: false,
    wrongGroups: [9, 20],
    wrongGroupCount: 2,
    groups: 33,
    expectedRoot: image.reference.root,
  });

  const second = resultOf((await runToEnd(host, await applyCommand(disk), offer)).last)
    .output as DeployOutput;
  // The first group was replaced by the marker; group 9 had to be fetched, group 20 to be zeroed.
  const fetched = image.manifest.frameBytes[0]! + image.manifest.frameBytes[9]!;
  expect(second).toMatchObject({
    bytesFetched: fetched,
    bytesWritten: 2 * mib,
    bytesZeroed: mib,
    bytesSkipped: imageBytes - 3 * mib,
  });
  expect(server.sentBytes() - sent).toBe(fetched);
  const right = resultOf((await runToEnd(host, verifyOf(disk), offer)).last);
  expect(right).toMatchObject({
    outcome: "succeeded",
    output: { matches: true, root: image.reference.root, wrongGroupCount: 0 },
  });
});

describe("bytes that are not the image's never reach the disk", () => {
  const flipIn = (group: number) => (bytes: Uint8Array, start: number) => {
    const at = image.frameStarts[group]! + 100 - start;
    if (at < 0 || at >= bytes.length) return bytes;
    const copy = Uint8Array.from(bytes);
    copy[at]! ^= 4;
    return copy;
  };

  test("one flipped bit: image.corrupt with group, offset and digests; that group's bytes stay, the marker is on the disk", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    const flip = flipIn(13);
    server.misbehave(({ start, end }, _, serve) => serve(flip(image.frames.subarray(start, end), start)));
    try {
      const result = resultOf((await runToEnd(host, apply, offer)).last);
      expect(result.outcome).toBe("failed");
      expect(result.error).toMatchObject({
        code: "image.corrupt",
        details: {
          group: 13,
          offset: 13 * groupBytes,
          length: groupBytes,
          source: server.url,
          left: { marker: true, path: disk.path },
        },
      });
      expect(result.error?.message).toContain("Group 13");
      expect(result.error?.details?.expected).toBe(
        Buffer.from(image.manifest.groups.subarray(13 * 32, 14 * 32)).toString("hex"),
      );
    } finally {
      server.misbehave(undefined);
    }
    const bytes = await readFile(disk.path);
    expect(bytes.subarray(13 * mib, 14 * mib).every((byte) => byte === 0xee)).toBe(true);
    expect(head(disk)).toContain(`operation ${apply.id}`);
    expect(bytes.subarray(512, mib).every((byte) => byte === 0)).toBe(true);
  });

  test("a manifest that calls a group zeroes when its digest says otherwise: nothing is written at all", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    const [start, end] = [image.frameStarts[13]!, image.frameStarts[14]!];
    const frameBytes = Uint32Array.from(image.manifest.frameBytes);
    frameBytes[13] = 0;
    await using liar = await serveImage({
      ...image,
      manifestBytes: encodeManifest({ ...image.manifest, frameBytes }),
      frames: Buffer.concat([image.frames.subarray(0, start), image.frames.subarray(end)]),
    });
    const { error } = resultOf((await runToEnd(host, apply, { ...offer, sources: [liar.source] })).last);
    expect(error).toMatchObject({ code: "image.bad-manifest", details: { group: 13 } });
    expect((await readFile(disk.path)).every((byte) => byte === 0xee)).toBe(true);
  });

  test("a manifest that lies of the sectors that the image is for: its own first MiB tells, before anything is written", async () => {
    const disk = await makeDisk();
    const bytes = Uint8Array.from(image.bytes.subarray(0, 3 * mib));
    bytes.set(Buffer.from("EFI PART"), 4096);
    const other = await imageOf(bytes, 512);
    await using liar = await serveImage(other);
    const apply = await applyCommand(disk, other);
    const { error } = resultOf((await runToEnd(host, apply, { ...offer, sources: [liar.source] })).last);
    expect(error).toMatchObject({ code: "disk.sector-size", message: expect.stringContaining("4096") });
    expect((await readFile(disk.path)).every((byte) => byte === 0xee)).toBe(true);
  });

  test("another source has it right: the deploy succeeds", async () => {
    const disk = await makeDisk();
    await using other = await serveImage(image);
    const apply = await applyCommand(disk);
    const flip = flipIn(13);
    server.misbehave(({ start, end }, _, serve) => serve(flip(image.frames.subarray(start, end), start)));
    try {
      const both = { ...offer, sources: [server.source, other.source] };
      expect(resultOf((await runToEnd(host, apply, both)).last)).toMatchObject({ outcome: "succeeded" });
    } finally {
      server.misbehave(undefined);
    }
    expect(other.sentBytes()).toBeGreaterThan(0);
    expect(await holds(disk)).toBe(true);
  });

  test("a manifest of another image, or one that does not add up, touches nothing", async () => {
    const disk = await makeDisk();
    const before = await sha256Of(disk.path);
    const apply = await applyCommand(disk);
    const other = await makeImage({ sizeBytes: imageBytes });
    await using wrong = await serveImage(other);
    expect(resultOf((await runToEnd(host, apply, { ...offer, sources: [wrong.source] })).last)).toMatchObject(
      { outcome: "failed", error: { code: "image.digest-mismatch" } },
    );
    const groups = Uint8Array.from(image.manifest.groups);
    groups[40]! ^= 1;
    await using broken = await serveImage({
      ...image,
      manifestBytes: encodeManifest({ ...image.manifest, groups }),
    });
    const again = { ...apply, id: mintId() } as Command;
    expect(
      resultOf((await runToEnd(host, again, { ...offer, sources: [broken.source] })).last),
    ).toMatchObject({ outcome: "failed", error: { code: "image.bad-manifest" } });
    expect(await sha256Of(disk.path)).toBe(before);
  });
});

describe("transfers that break", () => {
  test("closed half-way again and again: resumed by range, at the frame that was not whole", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    const before = server.requests().length;
    const sent = server.sentBytes();
    let cut = 0;
    server.misbehave(({ start, end }, response, serve) => {
      if (end - start < 2 * mib || cut >= 4) return serve();
      cut++;
      const half = Math.floor((end - start) / 2);
      response.writeHead(206, {
        "content-range": `bytes ${start}-${end - 1}/${image.frames.length}`,
        "content-length": end - start,
      });
      response.write(image.frames.subarray(start, start + half), () => response.destroy());
    });
    let result: ReturnType<typeof resultOf>;
    try {
      result = resultOf((await runToEnd(host, apply, offer)).last);
    } finally {
      server.misbehave(undefined);
    }
    expect(result).toMatchObject({ outcome: "succeeded" });
    expect(cut).toBe(4);
    expect(await holds(disk)).toBe(true);
    const starts = server
      .requests()
      .slice(before)
      .flatMap((request) => /bytes=(\d+)-/.exec(request)?.[1] ?? [])
      .map(Number);
    // Every request begins at a frame, and those that resume do not begin where their stretch did.
    expect(starts.every((start) => image.frameStarts.includes(start))).toBe(true);
    expect(server.sentBytes() - sent).toBeLessThan(image.frames.length);
    const { bytesFetched } = result.output as DeployOutput;
    expect(bytesFetched).toBeLessThan(image.frames.length + 4 * mib);
  });

  test.each([
    ["the whole file for a range", "image.fetch-failed", (status: number) => status, 200],
    ["a redirect", "source.refused", (status: number) => status, 302],
    ["not found", "image.fetch-failed", (status: number) => status, 404],
  ])("%s is refused at once, before anything is written: %s", async (_, code, __, status) => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    server.misbehave(
      (___, response) =>
        void response
          .writeHead(status, { location: "https://127.0.0.1:1/" })
          .end(image.frames.subarray(0, 1000)),
    );
    try {
      const started = performance.now();
      const result = resultOf((await runToEnd(host, apply, offer)).last);
      expect(result).toMatchObject({ outcome: "failed", error: { code } });
      expect(performance.now() - started).toBeLessThan(40_000);
    } finally {
      server.misbehave(undefined);
    }
    expect((await readFile(disk.path)).every((byte) => byte === 0xee)).toBe(true);
  });

  test("link-local addresses, foreign authorities, tokens in clear: refused before anything is touched", async () => {
    const disk = await makeDisk();
    const before = await sha256Of(disk.path);
    const tryWith = async (options: RunOptions) =>
      resultOf((await runToEnd(host, deployOf(image, disk, "plan"), options)).last).error?.code;
    expect(await tryWith({ ...offer, sources: [{ url: "https://169.254.169.254/latest" }] })).toBe(
      "source.refused",
    );
    expect(await tryWith({ ...offer, sources: [{ url: "https://[fe80::1]/image" }] })).toBe("source.refused");
    expect(
      await tryWith({ ...offer, sources: [{ url: "http://127.0.0.1:9/image", bearer: "secret" }] }),
    ).toBe("source.refused");
    const { openAuthority } = await import("../../controller/authority/authority.ts");
    const other = await openAuthority(`${host.directory}/other-ca`, [], {
      bytes: (count: number) => new Uint8Array(count).fill(7),
    } as never).catch(() => undefined);
    if (other !== undefined) expect(await tryWith({ ...offer, ca: other.caPem })).toBe("image.fetch-failed");
    expect(await tryWith({ ...offer, sources: [] })).toBe("image.fetch-failed");
    expect(await sha256Of(disk.path)).toBe(before);
  });
});

/** SIGKILL to its executor when the journal has groups and the source gives no more. */
async function killHalfWay(apply: Command): Promise<void> {
  using _still = holdAfter(server, 2);
  const first = host.start(runRequest(apply, offer));
  await untilJournalled(apply.id, 8);
  first.process.kill("SIGKILL");
  await first.ended;
}

describe("cut off and taken up again", () => {
  test("SIGKILL half-way: the same request resumes, keeps what the journal has, and writes no group twice", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    await killHalfWay(apply);
    expect(head(disk)).toContain(apply.id);
    expect(await holds(disk)).toBe(false);
    const { last, events } = await runToEnd(host, apply, offer);
    expect(events.filter(({ type }) => type === "running")).toMatchObject([{ run: 1 }, { run: 2 }]);
    const out = resultOf(last).output as DeployOutput;
    expect(out.resumed.times).toBe(1);
    expect(out.resumed.groupsKept).toBeGreaterThanOrEqual(8);
    expect(
      out.bytesWritten + out.bytesZeroed + out.bytesSkipped + out.resumed.groupsKept * mib,
    ).toBeGreaterThanOrEqual(imageBytes - mib);
    expect(out.bytesFetched).toBeLessThan(image.frames.length - 4 * (mib / 2));
    expect(await holds(disk)).toBe(true);
  });

  test("SIGKILL half-way, and the disk is not allowed any more: refused, and it is told what it was left with", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    await killHalfWay(apply);
    const policy = await readFile(host.policyFile, "utf8");
    await host.writePolicy(policy.replace(/^allowDisks = .*$/m, "allowDisks = []"));
    const before = await sha256Of(disk.path);
    const { last } = await runToEnd(host, apply, offer);
    const { error } = resultOf(last);
    expect(error).toMatchObject({
      code: "disk.not-allowed",
      details: { left: { path: disk.path, begun: true } },
    });
    expect(error!.message).toContain("is not touched any further. An earlier run");
    expect(await sha256Of(disk.path)).toBe(before);
    expect(head(disk)).toContain(apply.id);
  });

  test("SIGTERM: it stops by itself, not at an end, and is resumed", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    {
      using _still = holdAfter(server, 2);
      const first = host.start(runRequest(apply, offer));
      await untilJournalled(apply.id, 8);
      first.process.kill("SIGTERM");
      expect(await first.ended).toBe(4);
    }
    const { last } = await runToEnd(host, apply, offer);
    expect(resultOf(last)).toMatchObject({ outcome: "succeeded", output: { resumed: { times: 1 } } });
    expect(await holds(disk)).toBe(true);
  });

  test("another disk in its place, or a marker that is gone: plan.changed, and nothing more is written", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    {
      using _still = holdAfter(server, 2);
      const first = host.start(runRequest(apply, offer));
      await untilJournalled(apply.id, 4);
      first.process.kill("SIGKILL");
      await first.ended;
    }
    {
      await using file = await open(disk.path, "r+");
      await file.write(Buffer.from("somebody else's disk"), 0, 20, 0);
    }
    const before = await sha256Of(disk.path);
    expect(resultOf((await runToEnd(host, apply, offer)).last)).toMatchObject({
      outcome: "failed",
      error: { code: "plan.changed" },
    });
    expect(await sha256Of(disk.path)).toBe(before);
  });

  test("while one deploy runs, another is refused and told which; reads go on", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    using still = holdAfter(server, 1);
    const first = host.start(runRequest(apply, offer));
    const follower = await attach(host, apply.id);
    await follower.until((event) => event.type === "running");
    const other = { ...apply, id: mintId() } as Command;
    expect((await runToEnd(host, other, offer)).last).toMatchObject({
      type: "refused",
      error: { code: "executor.lane-busy", details: { running: apply.id } },
    });
    const meanwhile = await plan(disk);
    expect(meanwhile.guards.filter(({ ok }) => !ok)).toMatchObject([
      { guard: "held", finding: expect.stringContaining(`(${first.process.pid})`) },
    ]);
    // The very request again starts no second one either: its executor lives.
    expect(await host.start(runRequest(apply, offer)).ended).toBe(0);
    expect(first.process.exitCode).toBeNull();
    still.release();
    expect(resultOf(await follower.last)).toMatchObject({
      outcome: "succeeded",
      output: { resumed: { times: 0 } },
    });
    follower.close();
    await first.ended;
  });
});

describe("stopped on purpose", () => {
  test("cancel: within a moment, with the marker left and said so; the disk then takes another deploy", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    {
      using _still = holdAfter(server, 1);
      const executor = host.start(runRequest(apply, offer));
      const follower = await attach(host, apply.id);
      await untilJournalled(apply.id, 1);
      const asked = performance.now();
      follower.cancel("changed my mind");
      expect(await follower.until((event) => event.type === "cancel")).toMatchObject({
        answer: "cancelling",
      });
      const result = resultOf(await follower.last);
      // Not when its source gives up, or its limits end it.
      expect(performance.now() - asked).toBeLessThan(8000);
      expect(result).toMatchObject({
        outcome: "cancelled",
        error: { code: "command.cancelled", details: { left: { marker: true } } },
      });
      expect(result.error?.message).toContain("changed my mind");
      expect(result.error?.message).toContain("boots nothing");
      follower.close();
      expect(await executor.ended).toBe(0);
    }
    expect(head(disk)).toContain("BEDPLATE DEPLOY IN PROGRESS");
    expect(resultOf((await runToEnd(host, await applyCommand(disk), offer)).last)).toMatchObject({
      outcome: "succeeded",
    });
  });

  test.each([
    ["nothing moves", { stallAfterSeconds: 1 }, "command.stalled"],
    ["it takes too long", { runForSeconds: 1 }, "command.timed-out"],
  ])("%s: timed out", async (_, limits, code) => {
    const disk = await makeDisk();
    const apply = { ...(await applyCommand(disk)), limits } as Command;
    using _still = holdAfter(server, 0);
    expect(resultOf((await runToEnd(host, apply, offer)).last)).toMatchObject({
      outcome: "timed-out",
      error: { code },
    });
  });
});

describe("guards, by the process: each refuses with its own code, and the disk is as before", () => {
  const refused = async (disk: FileDisk, of = image, options = offer) => {
    const before = await sha256Of(disk.path);
    const planned = await plan(disk, of, options);
    expect(planned.allowed).toBe(false);
    const apply = deployOf(of, disk, "apply", { fingerprint: planned.fingerprint });
    const { last } = await runToEnd(host, apply, options);
    expect(await sha256Of(disk.path)).toBe(before);
    const error = last.type === "refused" ? last.error : resultOf(last).error;
    return {
      code: error?.code,
      details: error?.details,
      failing: planned.guards.filter(({ ok }) => !ok).map(({ code }) => code),
    };
  };

  test("declared but not allowed", async () => {
    const disk = await makeDisk();
    await host.writePolicy(`unsigned = ["image.deploy"]\n${declared(disk)}`);
    expect(await refused(disk)).toMatchObject({ code: "disk.not-allowed", failing: ["disk.not-allowed"] });
  });

  test("too small", async () => {
    const disk = await makeDisk(16 * mib);
    expect(await refused(disk)).toMatchObject({ code: "disk.too-small", failing: ["disk.too-small"] });
  });

  test("an image for sectors of another size", async () => {
    const disk = await makeDisk();
    const of4k = await makeImage({ sizeBytes: 4 * mib, sectorBytes: 4096 });
    await using served = await serveImage(of4k);
    expect(await refused(disk, of4k, { ...offer, sources: [served.source] })).toMatchObject({
      code: "disk.sector-size",
    });
  });

  test("read-only, and too small as well: both are told", async () => {
    const disk = await makeDisk(16 * mib);
    await chmod(disk.path, 0o400);
    expect(await refused(disk)).toMatchObject({
      code: "disk.read-only",
      failing: ["disk.read-only", "disk.too-small"],
    });
  });

  test("a selector that matches nothing, and a file of another size than declared: the candidates are told", async () => {
    const disk = await makeDisk();
    const other = resultOf((await runToEnd(host, deployOf(image, { name: "none" }, "plan"), offer)).last);
    expect(other).toMatchObject({ outcome: "failed", error: { code: "disk.not-found" } });
    const candidates = other.error?.details?.candidates as { fileDisk: string; path: string }[];
    expect(candidates).toContainEqual(expect.objectContaining({ fileDisk: disk.name, path: disk.path }));
    await host.allowFiles({ ...disk, sizeBytes: disk.sizeBytes - mib });
    const wrongSize = resultOf((await runToEnd(host, deployOf(image, disk, "plan"), offer)).last);
    expect(wrongSize).toMatchObject({ error: { code: "disk.not-found" } });
    expect(JSON.stringify(wrongSize.error?.details)).toContain("the policy gives the file disk");
  });

  test("a disk that changed since its plan: plan.changed names the field", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    {
      await using file = await open(disk.path, "r+");
      await file.write(new Uint8Array([1]), 0, 1, disk.sizeBytes - 5);
    }
    const before = await sha256Of(disk.path);
    const result = resultOf((await runToEnd(host, apply, offer)).last);
    expect(result).toMatchObject({
      outcome: "failed",
      error: { code: "plan.changed", details: { changed: [{ field: "edges" }] } },
    });
    expect(await sha256Of(disk.path)).toBe(before);
  });
});

test("an image of one short group", async () => {
  const disk = await makeDisk(2 * mib);
  const small = await makeImage({ sizeBytes: 5000 });
  await using served = await serveImage(small);
  const options = { ...offer, sources: [served.source] };
  const result = resultOf((await runToEnd(host, await applyCommand(disk, small), options)).last);
  expect(result).toMatchObject({
    outcome: "succeeded",
    output: { groups: 1, readback: { root: small.reference.root } },
  });
  expect(await holds(disk, small)).toBe(true);
  expect((await readFile(disk.path)).subarray(5000).every((byte) => byte === 0)).toBe(true);
});

const strace = spawnSync("strace", ["-o", "/dev/null", "true"]).status === 0;
describe.skipIf(!strace)("a disk that fails, by injected faults", () => {
  const deployUnder = async (inject: string) => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    const trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", disk.path, "-e", `inject=${inject}`];
    const executor = host.start(runRequest(apply, offer), trace);
    const follower = await attach(host, apply.id);
    const result = resultOf(await follower.last);
    follower.close();
    await executor.ended;
    return { disk, result };
  };

  test.each([
    ["a write", "pwrite64:error=EIO:when=3", "EIO"],
    // Counted by thread: those before the first write are fewer.
    ["a read", "pread64:error=EIO:when=12", "EIO"],
    // After a failed sync the kernel may have dropped what it could not write: never believed, never tried again.
    ["a sync", "fdatasync:error=EIO:when=1", "EIO"],
  ])("%s: disk.io, and the disk boots nothing", async (_, inject, errno) => {
    const { disk, result } = await deployUnder(inject);
    expect(result).toMatchObject({
      outcome: "failed",
      error: { code: "disk.io", details: { errno, path: disk.path } },
    });
    expect(head(disk)).toContain("BEDPLATE DEPLOY IN PROGRESS");
  });

  test("a cancel while the first MiB is being written comes too late, and is told why", async () => {
    const disk = await makeDisk();
    const apply = await applyCommand(disk);
    const slow = [
      "strace",
      "-f",
      "-qq",
      "-o",
      "/dev/null",
      "-P",
      disk.path,
      "-e",
      "inject=fsync:delay_enter=700ms",
    ];
    const executor = host.start(runRequest(apply, offer), slow);
    const follower = await attach(host, apply.id);
    await follower.until((event) => event.type === "progress" && event.progress.phase === "seal");
    await new Promise((resolve) => setTimeout(resolve, 300));
    follower.cancel("no, wait");
    expect(await follower.until((event) => event.type === "cancel")).toMatchObject({
      answer: "too-late",
      reason: expect.stringContaining("first MiB"),
    });
    expect(resultOf(await follower.last)).toMatchObject({ outcome: "succeeded" });
    follower.close();
    await executor.ended;
    expect(await holds(disk)).toBe(true);
  });

  test("a write that is said to be done and is not: found by the read-back, and mended", async () => {
    const { disk, result } = await deployUnder("pwrite64:retval=1048576:when=4");
    expect(result).toMatchObject({ outcome: "succeeded" });
    expect((result.output as DeployOutput).resumed.groupsRewritten).toBeGreaterThan(0);
    expect(await holds(disk)).toBe(true);
  });
});
