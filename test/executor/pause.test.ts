// Pausing by an operator's word, by real executor processes: it stands still, also in its next life, until it is resumed.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import type { Command } from "../../protocol/commands.ts";
import { deployOf, holdsImage, openDeployStage, planOf } from "../support/deploy-stage.ts";
import { attach, hostId, mintId, progressOf, resultOf, runRequest } from "../support/executor-host.ts";
import { holdAfter } from "../support/image-server.ts";

const mib = 1 << 20;

test("a deploy that is paused stands still beyond its stall limit, survives SIGKILL paused, and goes on to the end", {
  timeout: 120_000,
}, async () => {
  await using stage = await openDeployStage({ sizeBytes: 24 * mib });
  const { host, image, server, offer } = stage;
  const disk = await host.makeDisk("disk", 32 * mib);
  await host.allowFiles(disk);
  const { fingerprint } = await planOf(stage, deployOf(image, disk, "plan"));

  // Frames wait at the source until the operation is paused.
  using still = holdAfter(server, 1);
  const command = deployOf(image, disk, "apply", { fingerprint }, { stallAfterSeconds: 6 });
  const request = runRequest(command, offer);
  const first = host.start(request);
  const follower = await attach(host, command.id);
  follower.link("up");
  await follower.until((event) => event.type === "progress" && event.progress.phase === "write");
  follower.pause(true);
  const told = await follower.until((event) => event.type === "progress" && event.progress.paused === true);
  expect(told).toMatchObject({ progress: { phase: "write", rate: 0, secondsLeft: null } });
  still.release();
  await sleep(8000);
  const before = await readFile(disk.path);
  await sleep(1500);
  expect(Buffer.compare(await readFile(disk.path), before)).toBe(0);
  expect(before.subarray(0, 27).toString()).toBe("BEDPLATE DEPLOY IN PROGRESS");
  expect(first.process.exitCode).toBeNull();

  first.process.kill("SIGKILL");
  await first.ended;
  const second = host.start(request);
  const again = await attach(host, command.id);
  again.link("up");
  // Nobody has told this one.
  await again.until((event) => event.type === "progress" && event.progress.paused === true);
  await sleep(8000);
  expect(Buffer.compare(await readFile(disk.path), before)).toBe(0);
  expect(again.events.some(({ type }) => type === "running")).toBe(true);
  again.pause(false);
  expect(resultOf(await again.last)).toMatchObject({ outcome: "succeeded" });
  expect(progressOf(again.events).at(-1)?.paused).toBeUndefined();
  // Said too late: nothing of it is kept.
  again.pause(true);
  again.close();
  await second.ended;
  expect(await holdsImage(disk, image)).toBe(true);

  using database = new DatabaseSync(join(host.stateDirectory, "journal.db"), { readOnly: true });
  const audited = database
    .prepare("SELECT text FROM audit ORDER BY seq")
    .all()
    .map(({ text }) => JSON.parse(String(text)) as { event: string; detail: { paused?: boolean } })
    .filter(({ event }) => event === "pause");
  expect(audited.map(({ detail }) => detail.paused)).toEqual([true, false]);
  expect(database.prepare("SELECT name FROM notes").all()).toEqual([]);
});

test("paused and then cancelled: it ends where it waits", { timeout: 60_000 }, async () => {
  await using stage = await openDeployStage({ sizeBytes: 24 * mib });
  const { host, image, offer } = stage;
  const disk = await host.makeDisk("disk", 32 * mib);
  await host.allowFiles(disk);
  const command = {
    ...{ id: mintId(), host: hostId, kind: "image.verify", mode: "apply" },
    arguments: {
      ...{ image: image.reference, disk: { file: disk.name } },
      limits: { bytesPerSecondMax: 1 << 20 },
    },
    limits: {},
  } as Command;
  const executor = host.start(runRequest(command, offer));
  const follower = await attach(host, command.id);
  follower.link("up");
  await follower.until((event) => event.type === "progress" && event.progress.done > 0);
  follower.pause(true);
  await follower.until((event) => event.type === "progress" && event.progress.paused === true);
  follower.cancel("enough");
  const began = performance.now();
  expect(resultOf(await follower.last)).toMatchObject({ outcome: "cancelled" });
  expect(performance.now() - began).toBeLessThan(20_000);
  follower.close();
  await executor.ended;
});
