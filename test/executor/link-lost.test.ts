// A lost link, by real executor processes: nobody says for thirty seconds of theirs that it is up, which pass in three.
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { Command } from "../../protocol/commands.ts";
import { deployOf, holdsImage, openDeployStage, planOf } from "../support/deploy-stage.ts";
import {
  attach,
  hostId,
  hurried,
  mintId,
  openExecutorHost,
  resultOf,
  runRequest,
} from "../support/executor-host.ts";
import { holdAfter } from "../support/image-server.ts";

const mib = 1 << 20;
const patienceMs = 120_000;

describe.concurrent("nobody says that the link is up", () => {
  test("pause: a deploy stops writing between two groups, does not count as stalled, and goes on when the link is back", {
    timeout: patienceMs,
  }, async () => {
    await using stage = await openDeployStage({ sizeBytes: 24 * mib + 5 });
    const { host, image, server, offer } = stage;
    const disk = await host.makeDisk("disk", 32 * mib);
    await host.allowFiles(disk);
    const { fingerprint } = await planOf(stage, deployOf(image, disk, "plan"));

    // Frames wait at the source until the operation is paused.
    using still = holdAfter(server, 1);
    const limits = { onLinkLost: "pause", stallAfterSeconds: 33 } as const;
    const command = deployOf(image, disk, "apply", { fingerprint }, limits);
    const executor = host.start(runRequest(command, offer), [], hurried);
    const follower = await attach(host, command.id);
    follower.link("down");
    await follower.until((event) => event.type === "progress" && event.progress.paused === true);
    const before = await readFile(disk.path);
    expect(still.count()).toBeGreaterThan(0);
    still.release();
    // Longer than the stall limit, counted from when it last moved.
    await sleep(600);
    expect(Buffer.compare(await readFile(disk.path), before)).toBe(0);
    expect(before.subarray(0, 27).toString()).toBe("BEDPLATE DEPLOY IN PROGRESS");
    follower.link("up");
    const began = performance.now();
    expect(resultOf(await follower.last)).toMatchObject({ outcome: "succeeded" });
    expect(performance.now() - began).toBeLessThan(60_000);
    expect(await holdsImage(disk, image)).toBe(true);
    follower.close();
    await executor.ended;
  });

  test("abort: a program is ended with its group, for a link that is down and for nobody who says anything", {
    timeout: patienceMs,
  }, async () => {
    await using host = await openExecutorHost();
    await host.writePolicy(
      'unsigned = ["host.exec"]\n[kinds."host.exec"]\nargv = [["/bin/sh", "**"]]\nshell = true\n',
    );
    const command = {
      id: mintId(),
      host: hostId,
      kind: "host.exec",
      mode: "apply",
      arguments: { argv: ["/bin/sh", "-c", "echo here; sleep 300 & wait"] },
      limits: { onLinkLost: "abort" },
    } as Command;
    const executor = host.start(runRequest(command), [], hurried);
    const follower = await attach(host, command.id, 0, { afterOutput: 0 });
    follower.link("up");
    await follower.until((event) => event.type === "output");
    await sleep(300);
    const began = performance.now();
    follower.link("down");
    expect(resultOf(await follower.last)).toMatchObject({
      outcome: "cancelled",
      error: { code: "command.link-lost" },
      output: { signal: "SIGTERM", tail: { text: "here\n" } },
    });
    expect(performance.now() - began).toBeGreaterThan(2900);
    follower.close();
    await executor.ended;
  });
});
