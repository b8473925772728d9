// A pause on the real thing: agent, executor and controller are killed while a deploy is paused, and it still waits.
import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { expect, test } from "vitest";
import type { CommandView } from "../../protocol/api.ts";
import type { DeployPlanOutput } from "../../protocol/commands.ts";
import { holdsImage, openMachine } from "../contract/machine.ts";
import { eventually, killIfAlive, openDirectory } from "../contract/programs.ts";

test("paused, it waits through the death of executor, agent and controller, until it is resumed", {
  timeout: 900_000,
}, async ({ skip }) => {
  await using directory = await openDirectory("pause");
  const opened = await openMachine({ directory: directory.path, images: 1, imageMib: 16 });
  if (typeof opened === "string") return skip(opened);
  await using machine = opened;
  const { api } = machine.controller;
  const [disk] = machine.disks;
  const target = {
    ...{ image: machine.images[0], disk: { file: disk!.name } },
    // Slow enough that it can be paused on a busy machine, too.
    limits: { bytesPerSecondMax: 1 << 20 },
  };
  const plan = await machine.submit({ kind: "image.deploy", mode: "plan", arguments: target } as never);
  const { fingerprint } = (await machine.ended(plan.id)).result!.output as DeployPlanOutput;
  const apply = { kind: "image.deploy", mode: "apply", arguments: { ...target, fingerprint } };
  const { id } = await machine.submit(apply as never);
  const until = (what: string, fits: (view: CommandView) => boolean) =>
    eventually(
      180_000,
      async () => {
        const view = await machine.controller.api.command(id).catch(() => undefined);
        return view !== undefined && fits(view) ? view : undefined;
      },
      () => `${what}: ${machine.host.agent.log().slice(-1500)}`,
    );
  await until("it writes", ({ progress }) => progress?.phase === "write" && progress.done > 0);
  await api.pause(id);
  const waits = ({ progress }: CommandView) => progress?.paused === true;
  await until("it waits", waits);
  const before = readFileSync(disk!.path);

  const killed = machine.executors();
  expect(killed.length).toBeGreaterThan(0);
  for (const pid of killed) killIfAlive(pid);
  machine.host.agent.kill("SIGKILL");
  await machine.host.agent.ended;
  await machine.controller.kill("SIGKILL");
  await machine.controller.start();
  machine.startAgent();
  // The progress is the new executor's: the controller has forgotten that of the one before.
  const again = await until("it waits in its next life", waits);
  expect(machine.executors().filter((pid) => killed.includes(pid))).toEqual([]);
  expect(again).toMatchObject({ state: "running", pausedAt: expect.any(Number) });
  expect(again.reason).toMatch(/^An operator paused it/);
  await pause(3000);
  expect(readFileSync(disk!.path).equals(before)).toBe(true);

  await machine.controller.api.resume(id);
  const ended = await machine.ended(id);
  expect(ended.result?.error).toBeUndefined();
  expect(ended).toMatchObject({ state: "succeeded", pausedAt: null });
  expect(holdsImage(disk!.path, directory.path, 0)).toBe(true);
});
