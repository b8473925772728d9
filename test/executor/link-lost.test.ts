// A lost link, by real executor processes: nobody says for thirty seconds of theirs that it is up, which pass in three.
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { Command, DeployPlanOutput } from "../../protocol/commands.ts";
import {
  attach,
  hostId,
  hurried,
  mintId,
  openExecutorHost,
  resultOf,
  runRequest,
  runToEnd,
} from "../support/executor-host.ts";
import { pastTheFirst, serveImage } from "../support/image-server.ts";
import { makeImage } from "../support/test-image.ts";

const mib = 1 << 20;
const patienceMs = 120_000;

describe.concurrent("nobody says that the link is up", () => {
  test("pause: a deploy stops writing between two groups, does not count as stalled, and goes on when the link is back", {
    timeout: patienceMs,
  }, async () => {
    await using host = await openExecutorHost();
    const image = await makeImage({ sizeBytes: 24 * mib + 5 });
    await using server = await serveImage(image);
    const offer = { sources: [server.source], ca: server.ca };
    const path = await host.makeFile("disk", 32 * mib);
    await host.allowFiles({ name: "disk", path, sizeBytes: 32 * mib });
    const deploy = (mode: "plan" | "apply", more: object, limits: Command["limits"] = {}) =>
      ({
        id: mintId(),
        host: hostId,
        kind: "image.deploy",
        mode,
        arguments: { image: image.reference, disk: { file: "disk" }, ...more },
        limits,
      }) as Command;
    const planned = resultOf((await runToEnd(host, deploy("plan", {}), offer)).last)
      .output as DeployPlanOutput;

    // Frames wait at the source until the operation is paused.
    const held: (() => void)[] = [];
    server.misbehave(pastTheFirst((serve) => void held.push(serve)));
    const command = deploy(
      "apply",
      { fingerprint: planned.fingerprint },
      { onLinkLost: "pause", stallAfterSeconds: 33 },
    );
    const executor = host.start(runRequest(command, offer), [], hurried);
    const follower = await attach(host, command.id);
    follower.link("down");
    await follower.until((event) => event.type === "progress" && event.progress.paused === true);
    const before = await readFile(path);
    expect(held.length).toBeGreaterThan(0);
    server.misbehave(undefined);
    for (const serve of held) serve();
    // Longer than the stall limit, counted from when it last moved.
    await sleep(600);
    expect(Buffer.compare(await readFile(path), before)).toBe(0);
    expect(before.subarray(0, 27).toString()).toBe("BEDPLATE DEPLOY IN PROGRESS");
    follower.link("up");
    const began = performance.now();
    expect(resultOf(await follower.last)).toMatchObject({ outcome: "succeeded" });
    expect(performance.now() - began).toBeLessThan(60_000);
    expect(Buffer.compare((await readFile(path)).subarray(0, image.bytes.length), image.bytes)).toBe(0);
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
