// Crashes at each sync of a journal, and disks that fail or are full: strace injects them, a small tmpfs runs out.
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { ExecutorRequest } from "../../agent/door/contract.ts";
import type { Command } from "../../protocol/commands.ts";
import { type Machine, openMachine } from "../contract/machine.ts";
import { createLots } from "../contract/mutations.ts";
import { builtExecutor, hasProgram, openDirectory } from "../contract/programs.ts";
import { acknowledged, faultsOf } from "../contract/storm.ts";
import { runCommand } from "../provisioning/deploys.ts";
import { budgetSeconds, seed, timeoutMs } from "../support/budget.ts";
import { type ExecutorHost, hostId, mintId, openExecutorHost, runRequest } from "../support/executor-host.ts";

const root = process.geteuid?.() === 0;
const traces = spawnSync("strace", ["-f", "-o", "/dev/null", "true"]).status === 0;
if (!traces) console.warn("skipped: crashes at a sync need strace, which is not here or may not trace");
const mounts =
  root && hasProgram("mount", "umount") && spawnSync("unshare", ["--mount", "true"]).status === 0;
if (!mounts) console.warn("skipped: full disks need root that may mount");

/** No operation of these syncs more often: beyond its last one it runs whole. */
const syncsMost = 14;
/** Does `what` at the k-th sync of any of the program's threads. */
const atSync = (k: number, what: string) => [
  ...["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"],
  ...["-e", `inject=fsync,fdatasync:${what}:when=${k}`],
];

describe.skipIf(!traces)("an executor that is killed at its k-th sync", () => {
  const exec = (program: string, name: string): Command => ({
    ...{ id: mintId(), host: hostId, kind: "host.exec", mode: "apply", limits: {} },
    arguments: { argv: [program, name] },
  });

  async function noteStarts(host: ExecutorHost) {
    const starts = join(host.directory, "starts");
    mkdirSync(starts);
    const program = join(host.directory, "note-start");
    writeFileSync(program, `#!/bin/sh\necho "$$" >> ${starts}/"$1"\n`);
    chmodSync(program, 0o755);
    await host.writePolicy(`unsigned = ["host.exec"]\n[kinds."host.exec"]\nargv = [["${program}", "*"]]\n`);
    const count = (name: string) =>
      existsSync(join(starts, name)) ? readFileSync(join(starts, name), "utf8").trim().split("\n").length : 0;
    return { program, count };
  }

  test(
    "starts a program once or never, and says which",
    async () => {
      await using host = await openExecutorHost([], builtExecutor);
      const { program, count } = await noteStarts(host);
      const ends: string[] = [];
      const left = Array.from({ length: syncsMost }, (_, k) => k + 1);
      const lots = createLots(seed);
      const until = performance.now() + budgetSeconds * 1000;
      const killed = () => ends.some((end) => end.startsWith("killed"));
      while (left.length > 0 && (performance.now() < until || !killed())) {
        const [k = 0] = left.splice(lots.below(left.length), 1);
        const name = `crash-${k}`;
        const command = exec(program, name);
        const request = runRequest(command);
        const first = host.start(request, atSync(k, "signal=SIGKILL"));
        const crashed = (await first.ended) !== 0;
        // As the agent does: the very same request again. After a run without a crash it is answered from the journal.
        const { outcome } = await resultOfAnother(host, command, request);
        ends.push(`${crashed ? "killed at" : "whole before"} ${k}: ${outcome}, ${count(name)} starts`);
        expect(count(name), ends.at(-1)).toBeLessThanOrEqual(1);
        expect(["succeeded", "indeterminate"], ends.at(-1)).toContain(outcome);
        if (outcome === "succeeded") expect(count(name), ends.at(-1)).toBe(1);
      }
      console.log(`BEDPLATE_SEED=${seed}\n${ends.join("\n")}`);
      expect(killed()).toBe(true);
    },
    timeoutMs,
  );

  test("answers for a disk that fails at that sync, and works again after it", async () => {
    await using host = await openExecutorHost([], builtExecutor);
    const { program, count } = await noteStarts(host);
    for (const [k, what] of [
      [3, "error=EIO"],
      [5, "error=ENOSPC"],
    ] as const) {
      const name = `failing-${k}`;
      const command = exec(program, name);
      const request = runRequest(command);
      await host.start(request, atSync(k, what)).ended;
      const { outcome } = await resultOfAnother(host, command, request);
      expect(count(name)).toBeLessThanOrEqual(1);
      expect(["succeeded", "failed", "indeterminate"]).toContain(outcome);
    }
  });
});

async function resultOfAnother(host: ExecutorHost, command: Command, request: ExecutorRequest) {
  const offer = { generation: request.request === "run" ? request.generation : 1 };
  return (await runCommand({ executors: host }, command, offer)).result;
}

/** Pings and programs, by their ids with the names that those note. */
async function work(machine: Machine, count: number, name: string): Promise<Map<string, string>> {
  const starts = new Map<string, string>();
  const ids: string[] = [];
  for (let k = 0; k < count; k++) {
    ids.push((await machine.submit({ kind: "agent.ping", mode: "apply", arguments: {} })).id);
    const exec = await machine.submit({
      ...machine.noteStart(`${name}-${k}`),
      limits: { startWithinSeconds: 300 },
    });
    starts.set(exec.id, `${name}-${k}`);
  }
  return new Map([...ids.map((id) => [id, ""] as const), ...starts]);
}

/** Starts again whoever ended by itself, as systemd would. */
function nurse(machine: Machine): AsyncDisposable {
  const stop = new AbortController();
  const nursing = (async () => {
    while (!stop.signal.aborted) {
      if (!machine.host.agent.alive) machine.startAgent();
      if (!machine.controller.program.alive) await machine.controller.start([]).catch(() => {});
      await sleep(100);
    }
  })();
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await nursing;
    },
  };
}

async function allEnd(machine: Machine, commands: ReadonlyMap<string, string>) {
  const views = [];
  for (const id of commands.keys()) views.push(await machine.ended(id));
  return views;
}

async function stopAndCheck(machine: Machine, commands: ReadonlyMap<string, string>) {
  const views = await (async () => {
    // What is injected may come as late as that.
    await using _nurse = nurse(machine);
    const ended = await allEnd(machine, commands);
    await acknowledged(machine);
    return ended;
  })();
  await machine.host.agent[Symbol.asyncDispose]();
  await machine.controller.kill("SIGTERM");
  const starts = new Map([...commands].filter(([, name]) => name !== ""));
  const kills = { agent: 0, executor: 0, controller: 0 };
  expect(faultsOf(machine, { commands: [...commands.keys()], starts, kills }, views)).toEqual([]);
  return views;
}

test.skipIf(!traces)(
  "agent and controller, killed at a sync or told that it failed, lose nothing",
  async ({ skip }) => {
    await using directory = await openDirectory("sync");
    const opened = await openMachine({ directory: directory.path });
    if (typeof opened === "string") return skip(opened);
    await using machine = opened;
    const commands = new Map<string, string>();
    const until = performance.now() + budgetSeconds * 1000;
    for (let k = 1; performance.now() < until; k++) {
      const what = k % 3 === 0 ? "error=EIO" : "signal=SIGKILL";
      const name = `sync-${k}`;
      if (k % 2 === 0) {
        await machine.host.agent[Symbol.asyncDispose]();
        machine.startAgent(atSync(1 + (k >> 1), what));
      } else {
        await machine.controller.kill("SIGKILL");
        // It may not live to say that it listens.
        await machine.controller.start(atSync(6 + (k >> 1), what)).catch(() => {});
      }
      await using _nurse = nurse(machine);
      for (const [id, started] of await work(machine, 2, name)) commands.set(id, started);
      await allEnd(machine, commands);
    }
    console.log(`${commands.size} commands`);
    const views = await stopAndCheck(machine, commands);
    expect(views.filter(({ kind, state }) => kind === "agent.ping" && state !== "succeeded")).toEqual([]);
  },
  timeoutMs,
);

describe.skipIf(!mounts).concurrent("a full disk", () => {
  /** Fills what is left of a file system; gives it back when disposed. */
  function fill(path: string): Disposable {
    const file = join(path, "filler");
    // Somebody may give up a file meanwhile.
    for (let tries = 0; statfsSync(path).bavail > 0; tries++) {
      if (tries > 500) throw new Error(`${path} does not become full`);
      spawnSync("dd", ["if=/dev/zero", `of=${file}`, "bs=4096", "oflag=append", "conv=notrunc"]);
    }
    return { [Symbol.dispose]: () => rmSync(file) };
  }

  test.each([
    ["the agent's", "machine/agent"],
    ["the executor's", "machine/var"],
    ["the controller's", "controller"],
  ])("%s: what cannot be kept is not promised, and all goes on when there is room", async (_whose, part) => {
    await using directory = await openDirectory("full");
    const path = join(directory.path, part);
    mkdirSync(path, { recursive: true });
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", path]);
    using _mount = { [Symbol.dispose]: () => void execFileSync("umount", ["--lazy", path]) };
    const opened = await openMachine({ directory: directory.path });
    if (typeof opened === "string") throw new Error(opened);
    await using machine = opened;
    const commands = await work(machine, 2, "before");
    await allEnd(machine, commands);
    {
      await using _nurse = nurse(machine);
      let working: ReturnType<typeof work>;
      {
        using _filler = fill(path);
        working = work(machine, 3, "while");
        await Promise.race([working, sleep(4000)]);
      }
      for (const [id, name] of await working) commands.set(id, name);
      for (const [id, name] of await work(machine, 2, "after")) commands.set(id, name);
      await allEnd(machine, commands);
    }
    const views = await stopAndCheck(machine, commands);
    const outcomes = views.map(({ kind, state, result }) => `${kind} ${state} ${result?.error?.code ?? ""}`);
    const counted = Object.entries(Object.groupBy(outcomes, (outcome) => outcome));
    console.log(
      part,
      JSON.stringify(Object.fromEntries(counted.map(([what, each]) => [what, each!.length]))),
    );
    // What was asked for when there was room again came to its end.
    expect(outcomes.slice(-4).every((outcome) => outcome.includes("succeeded"))).toBe(true);
  });
});
