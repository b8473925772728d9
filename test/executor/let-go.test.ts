// A deploy whose executor was killed while something that it had started still holds the disk: waited for, not given up.
import { spawn, spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { deployOf, holdsImage, openDeployStage, planOf } from "../support/deploy-stage.ts";
import { attach, resultOf, runRequest } from "../support/executor-host.ts";
import { holdAfter } from "../support/image-server.ts";

const mib = 1 << 20;

test("the next run waits until it is let go of", { timeout: 90_000 }, async () => {
  await using stage = await openDeployStage({ sizeBytes: 6 * mib });
  const { host, image, server, offer } = stage;
  const disk = await host.makeDisk("disk", 8 * mib);
  await host.allowFiles(disk);
  const { fingerprint } = await planOf(stage, deployOf(image, disk, "plan"));

  const still = holdAfter(server, 1);
  const command = deployOf(image, disk, "apply", { fingerprint });
  const request = runRequest(command, offer);
  const first = host.start(request);
  const follower = await attach(host, command.id);
  await follower.until((event) => event.type === "progress" && event.progress.phase === "write");
  first.process.kill("SIGKILL");
  await first.ended;
  still.release();

  const holder = spawn("flock", ["--exclusive", disk.path, "sleep", "60"], { detached: true });
  try {
    await expect
      .poll(() => spawnSync("flock", ["--exclusive", "--nonblock", disk.path, "true"]).status, {
        timeout: 10_000,
      })
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
  expect(await holdsImage(disk, image)).toBe(true);
});
