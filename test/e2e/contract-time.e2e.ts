// Wall clocks that are a day off or jump by one, and state that is set back to an old copy: nothing runs twice, nothing is
// lost, and what cannot be so is said.
import { execFileSync } from "node:child_process";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { CommandView } from "../../protocol/api.ts";
import { type Machine, openMachine } from "../contract/machine.ts";
import { eventually, openDirectory } from "../contract/programs.ts";
import { clockFrom, clocksCanBeWrong } from "../contract/wrong-clock.ts";

if (!clocksCanBeWrong) console.warn("skipped: clocks that are wrong need faketime");

const daySeconds = 86_400;
async function ping(machine: Machine): Promise<CommandView> {
  return machine.ended((await machine.submit({ kind: "agent.ping", mode: "apply", arguments: {} })).id);
}

async function noteStart(machine: Machine, name: string): Promise<CommandView> {
  const limits = { startWithinSeconds: 60, runForSeconds: 60, stallAfterSeconds: 60 };
  return machine.ended((await machine.submit({ ...machine.noteStart(name), limits })).id);
}

async function atWork(machine: Machine, name: string): Promise<void> {
  expect(await ping(machine)).toMatchObject({ state: "succeeded" });
  expect(await noteStart(machine, name)).toMatchObject({ state: "succeeded", runs: 1 });
  expect(machine.startsOf(name)).toBe(1);
}

/** Silence is looked for at each heartbeat, and is two and a half of them: more than a busy machine's disk takes to sync. */
const heartbeatSeconds = 3;

async function opened(directory: string): Promise<Machine> {
  const machine = await openMachine({ directory, heartbeatSeconds });
  if (typeof machine === "string") throw new Error(machine);
  return machine;
}

describe.skipIf(!clocksCanBeWrong)("a wall clock", () => {
  test.concurrent("of the host that is a day off and jumps back and forth changes nothing", async () => {
    await using directory = await openDirectory("clock");
    await using machine = await opened(directory.path);
    const clock = join(directory.path, "host-clock");
    const connections = () => machine.host.agent.log().split("connected to the controller").length - 1;
    await atWork(machine, "right");
    await machine.host.agent[Symbol.asyncDispose]();
    writeFileSync(clock, `-${daySeconds}`);
    machine.startAgent(clockFrom(clock));
    await eventually(180_000, async () => {
      const { clockOffsetMs } = await machine.controller.api.host(machine.id);
      return clockOffsetMs !== null && Math.abs(clockOffsetMs - daySeconds * 1000) < 60_000;
    });
    await atWork(machine, "behind");
    const before = connections();
    for (const offset of [`+${daySeconds}`, `-${daySeconds}`]) {
      writeFileSync(clock, offset);
      await sleep(heartbeatSeconds * 1000 + 1000);
      await atWork(machine, `at${offset}`);
    }
    // Neither end took the jump for silence.
    expect(connections()).toBe(before);
    expect((await machine.controller.api.host(machine.id)).telemetry.gaps).toBeLessThanOrEqual(1);
  });

  test.concurrent("of the controller that jumps by a day changes nothing", async () => {
    await using directory = await openDirectory("clock");
    await using machine = await opened(directory.path);
    const clock = join(directory.path, "controller-clock");
    writeFileSync(clock, "+0");
    await machine.controller.kill("SIGTERM");
    await machine.controller.start(clockFrom(clock));
    await atWork(machine, "right");
    const connections = () => machine.host.agent.log().split("connected to the controller").length - 1;
    const before = connections();
    for (const offset of [`+${daySeconds}`, `-${daySeconds}`]) {
      writeFileSync(clock, offset);
      await sleep(heartbeatSeconds * 1000 + 1000);
      await atWork(machine, `at${offset}`);
    }
    expect(connections()).toBe(before);
  });
});

describe("state set back to an old copy", () => {
  const copied = (path: string) => `${path}.copy`;
  const keep = (path: string) => void execFileSync("cp", ["-a", path, copied(path)]);
  function setBack(path: string): void {
    // In place: the directory may be a mount's source.
    const aside = `${path}.aside`;
    renameSync(path, aside);
    renameSync(copied(path), path);
    rmSync(aside, { recursive: true });
  }

  test.concurrent("of the agent: nothing runs again, nothing is taken for a repetition", async () => {
    await using directory = await openDirectory("copy");
    await using machine = await opened(directory.path);
    const { agentState } = machine.host.directories;
    await atWork(machine, "before");
    await machine.host.agent[Symbol.asyncDispose]();
    keep(agentState);
    machine.startAgent();
    for (const name of ["first", "second"]) await atWork(machine, name);
    const known = await machine.controller.api.commands({ limit: 100 });
    await machine.host.agent[Symbol.asyncDispose]();
    setBack(agentState);
    machine.startAgent();
    await atWork(machine, "after");
    for (const name of ["before", "first", "second"]) expect(machine.startsOf(name), name).toBe(1);
    for (const { id, state, history } of known)
      expect(await machine.controller.api.command(id)).toMatchObject({ state, history });
    expect(machine.host.agent.log()).not.toContain('"code":4400');
  });

  test.concurrent("of the executor: what it had done is not done again, and the controller says that its audit was cut off", async () => {
    await using directory = await openDirectory("copy");
    await using machine = await opened(directory.path);
    const { executorState } = machine.host.directories;
    await atWork(machine, "before");
    await machine.host.agent[Symbol.asyncDispose]();
    keep(executorState);
    machine.startAgent();
    for (const name of ["first", "second"]) await atWork(machine, name);
    await machine.host.agent[Symbol.asyncDispose]();
    setBack(executorState);
    machine.startAgent();
    await atWork(machine, "after");
    for (const name of ["before", "first", "second"]) expect(machine.startsOf(name), name).toBe(1);
    await eventually(
      180_000,
      async () => JSON.stringify(await machine.controller.api.host(machine.id)).includes("audit.broken"),
      () => machine.controller.program.log().slice(-1500),
    );
  });

  test.concurrent("of the controller, not told so: its hosts refuse what it would number anew, and say why", async () => {
    await using directory = await openDirectory("copy");
    await using machine = await opened(directory.path);
    const state = machine.controller.stateDirectory;
    await atWork(machine, "before");
    await machine.controller.kill("SIGTERM");
    keep(state);
    await machine.controller.start();
    for (const name of ["first", "second"]) await atWork(machine, name);
    await machine.controller.kill("SIGTERM");
    setBack(state);
    await machine.controller.start();
    // The number of "first" again, with other content.
    const fenced = await noteStart(machine, "fenced");
    expect(fenced).toMatchObject({ state: "refused" });
    expect(fenced.result?.error?.code).toMatch(/^command\.(stale-generation|generation-conflict)$/);
    expect(machine.startsOf("fenced")).toBe(0);
    expect(await ping(machine)).toMatchObject({ state: "succeeded" });
    expect(readFileSync(join(directory.path, "starts/first"), "utf8").trim().split("\n")).toHaveLength(1);
  });
});
