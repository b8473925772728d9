// image.deploy onto several disks by real executor processes: all or none before the first byte, each for itself after it.
import { spawnSync } from "node:child_process";
import { mkdir, open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { FileDisk } from "../../agent/devices/disks.ts";
import type { Command, DeployOutput, DeploysOutput, Result } from "../../protocol/commands.ts";
import type { Plan } from "../../protocol/plans.ts";
import { type DeployStage, deployOf, holdsImage, openDeployStage, planOf } from "../support/deploy-stage.ts";
import {
  attach,
  declared,
  type ExecutorHost,
  isRoot,
  mintId,
  policyOf,
  progressOf,
  type RunOptions,
  resultOf,
  runRequest,
  runToEnd,
  sha256Of,
} from "../support/executor-host.ts";
import { type Holding, holdAfter, type ImageServer, type Misbehaviour } from "../support/image-server.ts";
import type { TestImage } from "../support/test-image.ts";

const mib = 1 << 20;
const diskBytes = 14 * mib;

let stage: DeployStage;
let host: ExecutorHost;
let image: TestImage;
let server: ImageServer;
let offer: RunOptions;
let made = 0;
beforeAll(async () => {
  stage = await openDeployStage({ sizeBytes: 12 * mib + 345, zeroGroups: [5] });
  ({ host, image, server, offer } = stage);
});
afterAll(() => stage?.[Symbol.asyncDispose]());

const makeDisk = (sizeBytes = diskBytes) => host.makeOldDisk(`many${made++}`, sizeBytes);

/** Three disks, all allowed. */
async function makeDisks(): Promise<[FileDisk, FileDisk, FileDisk]> {
  const disks: [FileDisk, FileDisk, FileDisk] = [await makeDisk(), await makeDisk(), await makeDisk()];
  await host.allowFiles(...disks);
  return disks;
}

const planCommand = ([first, ...others]: readonly { readonly name: string }[]) =>
  deployOf(image, first!, "plan", { also: others.map(({ name }) => ({ disk: { file: name } })) });
const planFor = (disks: readonly { readonly name: string }[]) => planOf(stage, planCommand(disks));

/** What the plan's own arguments say. */
async function applyOf(disks: readonly { readonly name: string }[]): Promise<Command> {
  const { artefact } = await planFor(disks);
  const plan = JSON.parse(artefact!.text) as Plan;
  return { ...planCommand(disks), id: mintId(), mode: "apply", arguments: plan.arguments } as Command;
}

const run = async (command: Command, options = offer): Promise<Result> =>
  resultOf((await runToEnd(host, command, options)).last);
const holds = (disk: FileDisk) => holdsImage(disk, image);
const hashesOf = (disks: readonly FileDisk[]) => Promise.all(disks.map(({ path }) => sha256Of(path)));

/** Bytes of group `group`, the `times`-th time that it is asked for, have a bit flipped. */
function flipAt(group: number, times: readonly number[]): Misbehaviour {
  let asked = 0;
  return ({ start, end }, _, serve) => {
    const at = image.frameStarts[group]! + 100 - start;
    if (at < 0 || at >= end - start) return serve();
    asked++;
    const bytes = Uint8Array.from(image.frames.subarray(start, end));
    if (times.includes(asked)) bytes[at]! ^= 4;
    serve(bytes);
  };
}

async function while_<T>(how: Misbehaviour, work: () => Promise<T>): Promise<T> {
  server.misbehave(how);
  try {
    return await work();
  } finally {
    server.misbehave(undefined);
  }
}

test("the plan shows every disk, and says of each finding which one it is about; apply brings the image onto all", async () => {
  const disks = await makeDisks();
  const before = await hashesOf(disks);
  const plan = await planFor(disks);
  expect(await hashesOf(disks)).toEqual(before);
  expect(plan).toMatchObject({
    allowed: true,
    disk: { path: disks[0].path },
    also: [{ disk: { path: disks[1].path } }, { disk: { path: disks[2].path } }],
  });
  expect(plan.guards.filter(({ guard }) => guard === "mounted").map(({ disk }) => disk)).toEqual(
    disks.map(({ path }) => path),
  );
  const signed = JSON.parse(plan.artefact!.text) as Plan;
  expect(signed.arguments).toMatchObject({
    fingerprint: plan.fingerprint,
    also: plan.also!.map(({ fingerprint }, index) => ({
      disk: { file: disks[index + 1]!.name },
      fingerprint,
    })),
  });
  expect(signed.facts.also).toMatchObject([
    { disk: { path: disks[1].path } },
    { disk: { path: disks[2].path } },
  ]);

  const apply = {
    ...planCommand(disks),
    id: mintId(),
    mode: "apply",
    arguments: signed.arguments,
  } as Command;
  const { last, events } = await runToEnd(host, apply, offer);
  const result = resultOf(last);
  expect(result).toMatchObject({
    outcome: "succeeded",
    output: {
      disk: { path: disks[0].path },
      readback: { root: image.reference.root },
      outcome: "succeeded",
      also: disks.slice(1).map(({ path }) => ({
        disk: { path },
        outcome: "succeeded",
        output: { readback: { root: image.reference.root } },
      })),
    },
  });
  for (const disk of disks) expect(await holds(disk)).toBe(true);
  // The first group once for all of them.
  const { bytesFetched, also } = result.output as DeploysOutput;
  const [first = 0, ...others] = image.manifest.frameBytes;
  const rest = others.reduce((sum, bytes) => sum + bytes, 0);
  expect([bytesFetched, ...also.map(({ output }) => output?.bytesFetched)]).toEqual([
    first + rest,
    rest,
    rest,
  ]);
  const told = progressOf(events).filter(({ phase }) => phase === "verify");
  expect(new Set(told.map(({ at }) => at?.name))).toEqual(new Set(disks.map(({ path }) => path)));
  // All of it counts.
  expect(told.at(-1)).toMatchObject({ at: { number: 3, of: 3 }, total: 3 * (image.bytes.length - mib) });
  const { audited } = await auditOf(apply.id);
  expect(audited.find(({ event }) => event === "accepted")?.detail.disks).toEqual(
    disks.map(({ name }) => `file=${name}`),
  );
  expect(audited.filter(({ detail }) => detail.step === "seal").map(({ detail }) => detail.at)).toEqual(
    disks.map(({ path }) => path),
  );
});

async function auditOf(id: string) {
  const { DatabaseSync } = await import("node:sqlite");
  using database = new DatabaseSync(join(host.stateDirectory, "journal.db"), { readOnly: true });
  const audited = database
    .prepare("SELECT text FROM audit ORDER BY seq")
    .all()
    .map(
      ({ text }) =>
        JSON.parse(String(text)) as {
          command: string | null;
          event: string;
          detail: { disks?: string[]; step?: string; at?: string };
        },
    )
    .filter(({ command }) => command === id);
  return { audited };
}

describe("before the first byte one refusal refuses all", () => {
  const refused = async (
    disks: readonly FileDisk[],
    apply: Command,
    expected: { readonly code: string; readonly says: string },
  ) => {
    const before = await hashesOf(disks);
    const result = await run(apply);
    expect(result).toMatchObject({ outcome: "failed", error: { code: expected.code } });
    expect(result.error?.message).toContain(expected.says);
    expect(await hashesOf(disks)).toEqual(before);
  };

  test("one is not allowed any more", async () => {
    const disks = await makeDisks();
    const apply = await applyOf(disks);
    await host.writePolicy(`${policyOf([disks[0], disks[1]])}\n${declared(disks[2])}`);
    await refused(disks, apply, { code: "disk.not-allowed", says: `file=${disks[2].name}` });
  });

  test("the last one changed since the plan", async () => {
    const disks = await makeDisks();
    const apply = await applyOf(disks);
    {
      await using file = await open(disks[2].path, "r+");
      await file.write(new Uint8Array([1]), 0, 1, 4711);
    }
    await refused(disks, apply, { code: "plan.changed", says: "No disk of this command was touched" });
  });

  test("the last one is in use by another program", async () => {
    const disks = await makeDisks();
    const apply = await applyOf(disks);
    const { spawn } = await import("node:child_process");
    const holder = spawn("flock", ["--exclusive", disks[2].path, "sleep", "60"], { detached: true });
    try {
      await expect
        .poll(() => spawnSync("flock", ["--exclusive", "--nonblock", disks[2].path, "true"]).status, {
          timeout: 10_000,
        })
        .toBe(1);
      await refused(disks, apply, { code: "disk.held", says: disks[2].name });
    } finally {
      process.kill(-holder.pid!, "SIGKILL");
    }
  });

  test("one is too small: the plan says of which one, too", async () => {
    const [first, second] = await makeDisks();
    const small = await makeDisk(4 * mib);
    const disks = [first, second, small];
    await host.allowFiles(...disks);
    const plan = await planFor(disks);
    expect(plan.allowed).toBe(false);
    expect(plan.guards.filter(({ ok }) => !ok)).toMatchObject([{ guard: "size", disk: small.path }]);
    await refused(disks, await applyOf(disks), { code: "disk.too-small", says: small.name });
  });

  test("one disk named twice, by whatever names it", async () => {
    const disks = await makeDisks();
    const twice = planCommand([disks[0], disks[1], disks[0]]);
    expect(await run(twice)).toMatchObject({ outcome: "failed", error: { code: "deploy.same-disk" } });
  });

  test("more disks than the policy has left for today", async () => {
    const disks = await makeDisks();
    const apply = await applyOf(disks);
    const { DatabaseSync } = await import("node:sqlite");
    const count = () => {
      using database = new DatabaseSync(join(host.stateDirectory, "journal.db"), { readOnly: true });
      const rows = database
        .prepare(
          "SELECT document FROM operations WHERE kind = 'image.deploy' AND effect <> 'read' AND state <> 'refused'",
        )
        .all();
      return rows.reduce((sum, { document }) => {
        const { arguments: given } = JSON.parse(Buffer.from(document as Uint8Array).toString()) as Command;
        return sum + 1 + ("also" in given ? (given.also?.length ?? 0) : 0);
      }, 0);
    };
    const text = await readFile(host.policyFile, "utf8");
    await host.writePolicy(`destructivePerDay = ${count() + 2}\n${text}`);
    const { last } = await runToEnd(host, apply, offer);
    expect(last).toMatchObject({
      type: "refused",
      error: { code: "policy.too-many", details: { disks: 3, accepted: count() } },
    });
    await host.writePolicy(`destructivePerDay = ${count() + 3}\n${text}`);
    expect(await run({ ...apply, id: mintId() } as Command)).toMatchObject({ outcome: "succeeded" });
  });
});

describe("after it each is for itself", () => {
  test("the source's bytes are bad for the second one, once: it is tried again after the others, and all are right", async () => {
    const disks = await makeDisks();
    const apply = await applyOf(disks);
    const { last, log } = await while_(flipAt(7, [2]), () => runToEnd(host, apply, offer));
    expect(resultOf(last)).toMatchObject({ outcome: "succeeded" });
    expect(log).toContain("It is tried again after the others.");
    for (const disk of disks) expect(await holds(disk)).toBe(true);
    const { audited } = await auditOf(apply.id);
    expect(audited.filter(({ detail }) => detail.step === "seal").map(({ detail }) => detail.at)).toEqual(
      [disks[0], disks[2], disks[1]].map(({ path }) => path),
    );
  });

  test("the last one, too, is tried once more", async () => {
    const disks = await makeDisks();
    expect(await while_(flipAt(7, [3]), async () => run(await applyOf(disks)))).toMatchObject({
      outcome: "succeeded",
    });
    expect(await holds(disks[2])).toBe(true);
  });

  test("bad at the second try as well: the others hold the image, and the result says which", async () => {
    const disks = await makeDisks();
    const result = await while_(flipAt(7, [1, 4]), async () => run(await applyOf(disks)));
    expect(result).toMatchObject({
      outcome: "failed",
      error: { code: "deploy.partly" },
      output: {
        disk: { path: disks[0].path },
        outcome: "failed",
        error: { code: "image.corrupt", details: { group: 7, left: { marker: true } } },
        also: [{ outcome: "succeeded" }, { outcome: "succeeded" }],
      },
    });
    expect(result.error?.message).toContain("2 of 3 disks hold the image");
    expect(await Promise.all(disks.map(holds))).toEqual([false, true, true]);
    expect((await readFile(disks[0].path)).subarray(0, 64).toString("latin1")).toContain(
      "BEDPLATE DEPLOY IN PROGRESS",
    );
  });

  test("bad for all of them: the failure's own code, and each disk's marker is its own", async () => {
    const disks = await makeDisks();
    const command = await applyOf(disks);
    const result = await while_(flipAt(7, [1, 2, 3, 4, 5, 6]), async () => run(command));
    const markers = disks.map(async ({ path }) => (await readFile(path)).toString("latin1", 0, 512));
    const lines = (await Promise.all(markers)).map((text) => text.split("\n")[1]);
    expect(lines).toEqual(["", " disk 2", " disk 3"].map((which) => `operation ${command.id}${which}`));
    expect(result).toMatchObject({ outcome: "failed", error: { code: "image.corrupt" } });
    expect((result.output as DeploysOutput).also.map(({ outcome }) => outcome)).toEqual(["failed", "failed"]);
  });

  test.skipIf(!isRoot)("the disk itself takes nothing more: disk.io for it alone", async () => {
    const disks = await makeDisks();
    const at = join(host.directory, "small");
    await mkdir(at);
    expect(spawnSync("mount", ["-t", "tmpfs", "-o", "size=8m", "tmpfs", at]).status).toBe(0);
    try {
      const path = join(at, "full");
      {
        await using file = await open(path, "wx", 0o600);
        await file.truncate(diskBytes);
      }
      const full = { name: "full", path, sizeBytes: diskBytes };
      const all = [disks[0], full, disks[2]];
      await host.allowFiles(...all);
      expect(await run(await applyOf(all))).toMatchObject({
        outcome: "failed",
        error: { code: "deploy.partly" },
        output: { outcome: "succeeded", also: [{ error: { code: "disk.io" } }, { outcome: "succeeded" }] },
      });
      expect([await holds(disks[0]), await holds(disks[2])]).toEqual([true, true]);
    } finally {
      spawnSync("umount", [at]);
    }
  });
});

describe("cut off and stopped", () => {
  const reached = (still: Holding) => expect.poll(still.count, { timeout: 20_000 }).toBeGreaterThan(0);
  /** Requests for frames that one disk takes. */
  const requestsEach = async () => {
    const [disk] = await makeDisks();
    const before = server.requests().filter((each) => each.includes("/frames")).length;
    await run(await applyOf([disk, (await makeDisksBeside(disk))[1]]));
    // The first group's is for both.
    return (server.requests().filter((each) => each.includes("/frames")).length - before + 1) / 2;
  };
  const makeDisksBeside = async (disk: FileDisk): Promise<[FileDisk, FileDisk]> => {
    const other = await makeDisk();
    await host.allowFiles(disk, other);
    return [disk, other];
  };

  test("SIGKILL while the second one is written: resumed, the first is left alone, and every root is right", async () => {
    const each = await requestsEach();
    const disks = await makeDisks();
    const apply = await applyOf(disks);
    const still = holdAfter(server, each + 1);
    const request = runRequest(apply, offer);
    const first = host.start(request);
    try {
      await reached(still);
      expect(await holds(disks[0])).toBe(true);
      first.process.kill("SIGKILL");
      await first.ended;
    } finally {
      still.release();
    }
    // What is finished may be in use by now: a change of it would otherwise be plan.changed.
    {
      await using file = await open(disks[0].path, "r+");
      await file.write(new Uint8Array([7]), 0, 1, diskBytes - 5);
    }
    const second = host.start(request);
    const follower = await attach(host, apply.id);
    const result = resultOf(await follower.last);
    follower.close();
    await second.ended;
    expect(result).toMatchObject({
      outcome: "succeeded",
      output: {
        resumed: { times: 0 },
        also: [{ output: { resumed: { times: 1 } } }, { outcome: "succeeded" }],
      },
    });
    const output = result.output as DeploysOutput;
    const roots = [output.readback?.root, ...output.also.map((disk) => disk.output?.readback.root)];
    expect(roots).toEqual([image.reference.root, image.reference.root, image.reference.root]);
    for (const disk of disks) expect(await holds(disk)).toBe(true);
  });

  test("a cancel while the second one is written: the first stays, the third is untouched, and all of it is told", async () => {
    const each = await requestsEach();
    const disks = await makeDisks();
    const apply = await applyOf(disks);
    const [, , untouched] = await hashesOf(disks);
    const still = holdAfter(server, each + 1);
    const executor = host.start(runRequest(apply, offer));
    try {
      const follower = await attach(host, apply.id);
      await reached(still);
      follower.cancel("enough");
      const result = resultOf(await follower.last);
      follower.close();
      expect(result).toMatchObject({
        outcome: "cancelled",
        error: { code: "command.cancelled" },
        output: {
          outcome: "succeeded",
          also: [
            {
              disk: { path: disks[1].path },
              outcome: "cancelled",
              error: { details: { left: { marker: true } } },
            },
            { disk: { path: disks[2].path }, outcome: "untouched" },
          ],
        },
      });
      expect(result.error?.message).toContain("1 of 3 disks holds the image");
    } finally {
      still.release();
      await executor.ended;
    }
    expect(await holds(disks[0])).toBe(true);
    expect(await sha256Of(disks[2].path)).toBe(untouched);
  });

  test("a source that is gone when it is resumed: what holds the image already is told all the same", async () => {
    const each = await requestsEach();
    const disks = await makeDisks();
    const apply = await applyOf(disks);
    const still = holdAfter(server, each + 1);
    const first = host.start(runRequest(apply, offer));
    try {
      await reached(still);
      first.process.kill("SIGKILL");
      await first.ended;
    } finally {
      still.release();
    }
    const nowhere = { ...offer, sources: [{ ...server.source, url: `${server.url}/gone` }] };
    const result = resultOf((await runToEnd(host, apply, nowhere)).last);
    expect(result).toMatchObject({
      outcome: "failed",
      error: { code: "deploy.partly" },
      output: {
        ...{ disk: { path: disks[0].path }, outcome: "succeeded" },
        also: [
          { outcome: "failed", error: { code: "image.fetch-failed" } },
          { outcome: "failed", error: { code: "image.fetch-failed" } },
        ],
      },
    });
  });

  test("one that is gone when it is resumed fails alone", async () => {
    const each = await requestsEach();
    const disks = await makeDisks();
    const apply = await applyOf(disks);
    const still = holdAfter(server, each + 1);
    const request = runRequest(apply, offer);
    const first = host.start(request);
    try {
      await reached(still);
      first.process.kill("SIGKILL");
      await first.ended;
    } finally {
      still.release();
    }
    const { rm } = await import("node:fs/promises");
    await rm(disks[1].path);
    const result = resultOf((await runToEnd(host, apply, offer)).last);
    expect(result).toMatchObject({
      outcome: "failed",
      error: { code: "deploy.partly" },
      output: {
        outcome: "succeeded",
        also: [{ outcome: "failed", error: { code: "disk.not-found" } }, { outcome: "succeeded" }],
      },
    });
    expect((result.output as DeploysOutput & DeployOutput).disk.path).toBe(disks[0].path);
    expect(await holds(disks[2])).toBe(true);
  });
});
