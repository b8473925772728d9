// Deploys that are killed, cut off and asked for twice: the same command ends with the right disk, by one writer at a
// time, and with one result.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Command, DeployArguments, DeployPlanOutput } from "../../protocol/commands.ts";
import { holdsImage, openMachine } from "../contract/machine.ts";
import { createLots } from "../contract/mutations.ts";
import { eventually, hasProgram, killIfAlive, openDirectory } from "../contract/programs.ts";
import {
  deployed,
  faultsOfFinished,
  faultsOfUnfinished,
  follow,
  type Host,
  journalOf,
  onLoop,
  openHost,
  planned,
  runCommand,
  settled,
  strangeGroups,
} from "../provisioning/deploys.ts";
import {
  attachLoop,
  type LoopDisk,
  lackForLoops,
  openLoopDisk,
  writersOf,
} from "../provisioning/loop-disk.ts";
import { type Mirror, mirrorAuthority, openMirror } from "../provisioning/mirror.ts";
import { judge } from "../provisioning/power-cut.ts";
import { makeSystem } from "../provisioning/systems.ts";
import { budgetSeconds, seed, timeoutMs } from "../support/budget.ts";
import { type RunOptions, resultOf, runRequest } from "../support/executor-host.ts";
import type { TestImage } from "../support/test-image.ts";

const mib = 1 << 20;
const lack = lackForLoops();
if (lack !== undefined) console.warn(`skipped: ${lack}`);

const imageBytes = 23 * mib + 321;
const diskBytes = 26 * mib;
/** Whatever the budget: fewer would show nothing. */
const killsLeast = 4;
const snapshotsMost = 32;
/** So that there is time to be killed in. */
const limits = { bytesPerSecondMax: 32 * mib };

describe.skipIf(lack !== undefined)("a deploy", () => {
  let host: Host;
  let image: TestImage;
  let from: Mirror;
  let offer: RunOptions;
  beforeAll(async () => {
    host = await openHost();
    image = await makeSystem({ sizeBytes: imageBytes - (imageBytes % 512), zeroGroups: [4, 17] });
    from = await openMirror(image, { layout: "frames", scheme: "https" });
    offer = { ca: await mirrorAuthority(), sources: [from.source] };
  });
  afterAll(async () => {
    await from?.[Symbol.asyncDispose]();
    await host?.[Symbol.asyncDispose]();
  });

  const plan = (disk: LoopDisk, more: Partial<DeployArguments> = { limits }) =>
    planned(host, { image, disk: onLoop(disk), offer, arguments: more });
  const sumOf = (program: string, disk: LoopDisk) =>
    spawnSync("sh", ["-c", `head -c ${image.bytes.length} ${disk.path} | ${program}`], { encoding: "utf8" })
      .stdout.trim()
      .split(" ")[0];
  /** By programs that are not ours, from the device itself. */
  const requireImage = (disk: LoopDisk) => {
    expect(sumOf("sha256sum", disk)).toBe(createHash("sha256").update(image.bytes).digest("hex"));
    if (hasProgram("b3sum")) expect(sumOf("b3sum", disk)).toBe(image.reference.root);
    expect(faultsOfFinished(disk.bytes(), image.bytes, disk.old)).toEqual([]);
  };

  test(
    "killed again and again: the same command ends right, one writer at a time, with one result",
    async () => {
      console.log(`BEDPLATE_SEED=${seed}`);
      const lots = createLots(seed);
      let kills = 0;
      let deploys = 0;
      const until = performance.now() + budgetSeconds * 1000;
      while (performance.now() < until || kills < killsLeast) {
        const disk = await host.makeDisk({ sizeBytes: diskBytes });
        const command = await plan(disk);
        const request = runRequest(command, offer);
        await using watch = watchWriters(disk);
        let killed = 0;
        for (const most = 4 + lots.below(8); killed < most; ) {
          const executors = [host.executors.start(request)];
          // A second one, as an agent that lost sight of the first would start it.
          if (lots.chance(0.3)) executors.push(host.executors.start(request));
          await Promise.race([sleep(100 + lots.below(1000)), executors[0]!.ended]);
          const alive = executors.filter(({ process }) => process.exitCode === null);
          for (const { process } of alive) process.kill("SIGKILL");
          await Promise.all(executors.map(({ ended }) => ended));
          killed += alive.length;
          await settled(disk);
          if (journalOf(host, command).state === "succeeded") break;
          const left = disk.bytes();
          expect(strangeGroups(left, image.bytes, disk.old)).toEqual([]);
          expect(judge(left, disk.old, image.bytes)).toBeTypeOf("string");
        }
        kills += killed;
        const end = await runCommand(host, command, offer);
        expect(end.result).toMatchObject({ outcome: "succeeded", output: { root: image.reference.root } });
        requireImage(disk);
        expect(watch.seen.most).toBe(1);
        const again = await runCommand(host, command, offer);
        expect(again.result).toEqual(end.result);
        expect(journalOf(host, command).results).toEqual([end.result]);
        deploys++;
      }
      console.log(`${kills} kills in ${deploys} deploys`);
    },
    timeoutMs,
  );

  test(
    "power lost with the journal as it was then: taken up from there, it ends right",
    async () => {
      console.log(`BEDPLATE_SEED=${seed}`);
      const lots = createLots(seed + 1);
      const disk = await host.makeDisk({ sizeBytes: diskBytes });
      const command = await plan(disk);
      const snapshots: { readonly bytes: Buffer; readonly state: string }[] = [];
      const executor = host.executors.start(runRequest(command, offer));
      const follower = await follow(host, command, executor);
      let over = false;
      void follower.last.finally(() => {
        over = true;
      });
      const verdicts: Record<string, number> = {};
      let cuts = 0;
      while (!over) {
        await sleep(lots.below(20));
        // Nothing of it runs while it is copied.
        executor.process.kill("SIGSTOP");
        await settled(disk);
        const bytes = disk.bytes();
        const state = join(host.directory, `state-${cuts++}`);
        cpSync(host.executors.stateDirectory, state, { recursive: true });
        executor.process.kill("SIGCONT");
        const verdict = judge(bytes, disk.old, image.bytes);
        verdicts[String(verdict)] = (verdicts[String(verdict)] ?? 0) + 1;
        expect(verdict).toBeTypeOf("string");
        expect(strangeGroups(bytes, image.bytes, disk.old)).toEqual([]);
        // Those that are kept lie in memory.
        if (snapshots.length === snapshotsMost) {
          const [forgotten] = snapshots.splice(lots.below(snapshotsMost), 1);
          rmSync(forgotten!.state, { recursive: true });
        }
        snapshots.push({ bytes, state });
      }
      follower.close();
      await executor.ended;
      expect(resultOf(await follower.last)).toMatchObject({ outcome: "succeeded" });
      disk[Symbol.dispose]();

      let taken = 0;
      const until = performance.now() + (budgetSeconds / 2) * 1000;
      while ((performance.now() < until || taken === 0) && snapshots.length > 0) {
        const [snapshot] = snapshots.splice(lots.below(snapshots.length), 1);
        // As after a start of the host: the disk has a new number, the journal is what was on the medium.
        await using other = await openHost();
        cpSync(snapshot!.state, other.executors.stateDirectory, { recursive: true });
        writeFileSync(disk.backing, snapshot!.bytes);
        using again = attachLoop(disk);
        await other.allow(again);
        const known = journalOf(other, command).state !== undefined;
        const { result } = await runCommand(other, command, offer);
        // Before the command was accepted it is a new one, for a disk of another number than was planned.
        if (!known) {
          expect(result).toMatchObject({ outcome: "failed", error: { code: "plan.changed" } });
          continue;
        }
        if (result.error?.code === "plan.changed") expect(again.bytes().equals(disk.old)).toBe(true);
        else {
          expect(result).toMatchObject({ outcome: "succeeded" });
          expect(faultsOfFinished(again.bytes(), image.bytes, disk.old)).toEqual([]);
        }
        taken++;
      }
      console.log(`${cuts} power cuts ${JSON.stringify(verdicts)}, ${taken} taken up`);
      expect(taken).toBeGreaterThan(0);
    },
    timeoutMs,
  );

  test("asked for by three executors at once, it runs once, and all are told the same", async () => {
    const disk = await host.makeDisk({ sizeBytes: diskBytes });
    const command = await plan(disk);
    await using watch = watchWriters(disk);
    const ends = await Promise.all([0, 1, 2].map(() => runCommand(host, command, offer)));
    const [first] = ends;
    for (const { result } of ends) expect(result).toEqual(first!.result);
    expect(first!.result.outcome).toBe("succeeded");
    expect(journalOf(host, command)).toMatchObject({ runs: 1, results: [first!.result] });
    expect(watch.seen.most).toBe(1);
    requireImage(disk);
    // The same id for another image.
    const other = {
      ...command,
      arguments: { ...(command.arguments as DeployArguments), limits: {} },
    } as Command;
    const conflict = host.executors.start(runRequest(other, offer));
    expect(await conflict.ended).toBe(3);
    expect(conflict.log()).toContain("command.id-conflict");
    expect(journalOf(host, command)).toMatchObject({ runs: 1, results: [first!.result] });
    requireImage(disk);
  });

  test("cancelled half-way: its journal knows the good groups, and a new command goes on by comparing", async () => {
    const disk = await host.makeDisk({ sizeBytes: diskBytes });
    const command = await plan(disk, { limits: { bytesPerSecondMax: 4 * mib } });
    const executor = host.executors.start(runRequest(command, offer));
    const follower = await follow(host, command, executor);
    await follower.until(
      (event) =>
        event.type === "progress" &&
        event.progress.phase === "write" &&
        event.progress.done >= event.progress.total / 2,
    );
    // What ended needs none of it: the journal forgets the groups then.
    const good = journalOf(host, command).good!.subarray(8);
    follower.cancel("enough");
    const result = resultOf(await follower.last);
    follower.close();
    await executor.ended;
    expect(result).toMatchObject({
      outcome: "cancelled",
      error: { code: "command.cancelled", details: { left: { marker: true } } },
    });
    const left = disk.bytes();
    expect(faultsOfUnfinished(left, image.bytes, disk.old)).toEqual([]);
    const kept = Array.from({ length: 23 }, (_, k) => k + 1).filter(
      (group) => (good[group >> 3]! & (1 << (group & 7))) !== 0,
    );
    expect(kept.length).toBeGreaterThanOrEqual(4);
    for (const group of kept)
      expect(
        left
          .subarray(group * mib, (group + 1) * mib)
          .equals(image.bytes.subarray(group * mib, (group + 1) * mib)),
      ).toBe(true);
    // Asked for again, it is over; a new one finds what is there.
    expect((await runCommand(host, command, offer)).result).toEqual(result);
    const sent = from.sentBytes();
    const next = await deployed(host, { image, disk: onLoop(disk), offer });
    expect(next.result).toMatchObject({ outcome: "succeeded" });
    expect(next.output.bytesSkipped).toBeGreaterThanOrEqual(kept.length * mib);
    expect(from.sentBytes() - sent).toBeLessThan(image.frames.length * 0.7);
    requireImage(disk);
  });
});

describe.skipIf(lack !== undefined)("a deploy through controller and agent", () => {
  test(
    "both agent and executor killed at random: it ends right, told once",
    async ({ skip }) => {
      console.log(`BEDPLATE_SEED=${seed}`);
      const lots = createLots(seed + 2);
      await using directory = await openDirectory("provisioning");
      const opened = await openMachine({ directory: directory.path, images: 1, imageMib: 24 });
      if (typeof opened === "string") return skip(opened);
      await using machine = opened;
      using disk = openLoopDisk({ backing: join(directory.path, "loop.img"), sizeBytes: 28 * mib });
      const { policyFile } = machine.host.directories;
      writeFileSync(policyFile, `allowDisks = ["loop:${disk.backing}"]\nunsigned = ["image.deploy"]\n`);
      const [image] = machine.images;
      const target = { image, disk: { loop: disk.backing } };
      const plan = await machine.submit({ kind: "image.deploy", mode: "plan", arguments: target } as never);
      const { fingerprint } = (await machine.ended(plan.id)).result!.output as DeployPlanOutput;
      const slow = { bytesPerSecondMax: 8 * mib };
      const apply = {
        ...{ kind: "image.deploy", mode: "apply" },
        arguments: { ...target, fingerprint, limits: slow },
      };
      const { id } = await machine.submit(apply as never);
      const kills = { agent: 0, executor: 0 };
      await using watch = watchWriters(disk);
      const ending = machine.ended(id, 600_000);
      let over = false;
      void ending.finally(() => {
        over = true;
      });
      await eventually(180_000, () => over || machine.executors().length > 0);
      const until = performance.now() + (budgetSeconds / 2) * 1000;
      const enough = () => performance.now() >= until && kills.agent + kills.executor > 0;
      while (!over && !enough()) {
        await sleep(200 + lots.below(900));
        if (lots.chance(0.5)) {
          machine.host.agent.kill("SIGKILL");
          await machine.host.agent.ended;
          machine.startAgent();
          kills.agent++;
        } else {
          const victims = machine.executors();
          for (const victim of victims) killIfAlive(victim);
          kills.executor += victims.length;
        }
      }
      const view = await ending;
      console.log(`killed: ${JSON.stringify(kills)}; ${view.runs} runs`);
      expect(view).toMatchObject({ state: "succeeded", result: { output: { root: image!.root } } });
      expect(view.history.filter(({ state }) => state === "succeeded").length).toBe(1);
      expect(holdsImage(disk.backing, directory.path, 0)).toBe(true);
      expect(watch.seen.most).toBe(1);
      expect(kills.agent + kills.executor).toBeGreaterThan(0);
    },
    timeoutMs,
  );
});

/** Notices a second writer, at any moment until it is disposed of. */
function watchWriters(disk: LoopDisk) {
  const stop = new AbortController();
  const seen = { most: 0, looks: 0 };
  const watching = (async () => {
    while (!stop.signal.aborted) {
      seen.most = Math.max(seen.most, writersOf(disk.path).length);
      seen.looks++;
      await sleep(25);
    }
  })();
  return {
    seen,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await watching;
    },
  };
}
