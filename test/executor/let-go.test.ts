// A deploy whose executor was killed while something that it had started still holds the disk: waited for, not given up.
import { spawn, spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import type { Command, DeployPlanOutput } from "../../protocol/commands.ts";
import {
  attach,
  hostId,
  mintId,
  openExecutorHost,
  resultOf,
  runRequest,
  runToEnd,
} from "../support/executor-host.ts";
import { pastTheFirst, serveImage } from "../support/image-server.ts";
import { makeImage } from "../support/test-image.ts";

const mib = 1 << 20;

test("the next run waits until it is let go of", { timeout: 90_000 }, async () => {
  await using host = await openExecutorHost();
  const image = await makeImage({ sizeBytes: 6 * mib });
  await using server = await serveImage(image);
  const offer = { sources: [server.source], ca: server.ca };
  const path = await host.makeFile("disk", 8 * mib);
  await host.allowFiles({ name: "disk", path, sizeBytes: 8 * mib });
  const deploy = (mode: "plan" | "apply", more: object) =>
    ({
      ...{ id: mintId(), host: hostId, kind: "image.deploy", mode, limits: {} },
      arguments: { image: image.reference, disk: { file: "disk" }, ...more },
    }) as Command;
  const { fingerprint } = resultOf((await runToEnd(host, deploy("plan", {}), offer)).last)
    .output as DeployPlanOutput;

  server.misbehave(pastTheFirst(() => {}));
  const command = deploy("apply", { fingerprint });
  const request = runRequest(command, offer);
  const first = host.start(request);
  const follower = await attach(host, command.id);
  await follower.until((event) => event.type === "progress" && event.progress.phase === "write");
  first.process.kill("SIGKILL");
  await first.ended;
  server.misbehave(undefined);

  const holder = spawn("flock", ["--exclusive", path, "sleep", "60"], { detached: true });
  try {
    await expect
      .poll(() => spawnSync("flock", ["--exclusive", "--nonblock", path, "true"]).status, { timeout: 10_000 })
      .toBe(1);
    const second = host.start(request);
    const again = await attach(host, command.id);
    setTimeout(() => process.kill(-holder.pid!, "SIGKILL"), 3000);
    expect(resultOf(await again.last)).toMatchObject({ outcome: "succeeded" });
    again.close();
    await second.ended;
  } finally {
    holder.kill();
  }
  expect(Buffer.compare((await readFile(path)).subarray(0, image.bytes.length), image.bytes)).toBe(0);
});
