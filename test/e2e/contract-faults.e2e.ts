// Faults on the real thing: processes killed at any moment, disks that fail or are full, clocks that jump, state set back.
import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, expect, test } from "vitest";
import { holdsImage, type Machine, openMachine } from "../contract/machine.ts";
import { createLots } from "../contract/mutations.ts";
import { builtProgram, type Directory, node, openDirectory } from "../contract/programs.ts";
import { acknowledged, faultsOf, ride } from "../contract/storm.ts";
import { budgetSeconds, seed, timeoutMs } from "../support/budget.ts";

let directory: Directory;
let machine: Machine | string;
beforeAll(async () => {
  directory = await openDirectory("faults");
  machine = await openMachine({ directory: directory.path, images: 2 });
});
afterAll(async () => {
  if (typeof machine === "object") await machine[Symbol.asyncDispose]();
  await directory?.[Symbol.asyncDispose]();
});

test("killed at any moment, nothing is lost, repeated or started twice", { timeout: timeoutMs }, async ({
  skip,
}) => {
  if (typeof machine === "string") return skip(machine);
  const storm = await ride(machine, budgetSeconds, createLots(seed));
  const views = [];
  for (const id of storm.commands) views.push(await machine.ended(id));
  const outcomes = Object.groupBy(views, ({ kind, state, result }) =>
    [kind, state, ...(result?.error === undefined ? [] : [result.error.code])].join(" "),
  );
  const counted = Object.fromEntries(Object.entries(outcomes).map(([key, each]) => [key, each!.length]));
  console.log(`BEDPLATE_SEED=${seed}\nkilled ${JSON.stringify(storm.kills)}; ${JSON.stringify(counted)}`);

  // The last word of each disk: what was deployed there last, whole.
  for (const disk of machine.disks) {
    const last = views.findLast(
      ({ kind, mode, state, arguments: asked }) =>
        kind === "image.deploy" &&
        mode === "apply" &&
        state === "succeeded" &&
        (asked.disk as { file?: string }).file === disk.name,
    );
    if (last === undefined) continue;
    const root = (last.arguments.image as { root: string }).root;
    const number = machine.images.findIndex((image) => image.root === root);
    expect(holdsImage(disk.path, directory.path, number), `${disk.name} holds image ${number}`).toBe(true);
  }
  const alarms = (await machine.controller.api.host(machine.id)).reason;
  expect(alarms).toBeNull();
  await acknowledged(machine);
  await machine.host.agent[Symbol.asyncDispose]();
  await machine.controller.kill("SIGTERM");
  expect(faultsOf(machine, storm, views)).toEqual([]);
  const verify = machine.host.wrap([node, builtProgram, "audit", "verify"]);
  const verified = spawnSync(verify[0]!, verify.slice(1), { encoding: "utf8" });
  expect(verified.status, verified.stdout + verified.stderr).toBe(0);
});
