// A stream of commands while agent, executors and controller are killed at moments drawn by lot; and what must be true
// of its history afterwards.
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import type { CommandView } from "../../protocol/api.ts";
import { isTerminal } from "../../protocol/commands.ts";
import type { Machine } from "./machine.ts";
import type { Lots } from "./mutations.ts";
import { eventually, killIfAlive } from "./programs.ts";

export interface Storm {
  /** Every command that the controller said it has. */
  readonly commands: readonly string[];
  /** By command, under which name its program noted its start. */
  readonly starts: ReadonlyMap<string, string>;
  readonly kills: Readonly<Record<"agent" | "executor" | "controller", number>>;
}

const startWithinSeconds = 300;
/** However long it takes: without them nothing is shown. */
const killsLeast = 3;

export async function ride(machine: Machine, seconds: number, lots: Lots): Promise<Storm> {
  const until = performance.now() + seconds * 1000;
  const calm = new AbortController();
  const commands: string[] = [];
  const starts = new Map<string, string>();
  const kills = { agent: 0, executor: 0, controller: 0 };
  const over = () =>
    performance.now() > until && kills.agent + kills.executor + kills.controller >= killsLeast;
  const pause = (ms: number) => sleep(ms, undefined, { signal: calm.signal }).catch(() => {});

  const small = async () => {
    const open = new Set<string>();
    for (let k = 0; !over(); k++) {
      // More than eight that wait for the lane are refused, as they should be.
      if (open.size < 5 && lots.chance(0.4)) {
        const name = `start-${k}`;
        const { id } = await machine.submit({ ...machine.noteStart(name), limits: { startWithinSeconds } });
        starts.set(id, name);
        commands.push(id);
        open.add(id);
        void machine.ended(id, 300_000).then(
          () => open.delete(id),
          () => {},
        );
      } else {
        const kind = lots.chance(0.7) ? "agent.ping" : "host.inventory";
        commands.push((await machine.submit({ kind, mode: "apply", arguments: {} })).id);
      }
      await pause(100 + lots.below(300));
    }
  };
  const deploys = async () => {
    while (!over()) {
      const image = lots.pick(machine.images);
      const target = { image, disk: { file: lots.pick(machine.disks).name } };
      const plan = await machine.submit({ kind: "image.deploy", mode: "plan", arguments: target } as never);
      commands.push(plan.id);
      const planned = await machine.ended(plan.id);
      const { fingerprint } = (planned.result?.output ?? {}) as { fingerprint?: unknown };
      // A plan is a read: its executor may have died too often, and then there is none.
      if (fingerprint === undefined) continue;
      const apply = { kind: "image.deploy", mode: "apply", arguments: { ...target, fingerprint } };
      const { id } = await machine.submit({ ...apply, limits: { startWithinSeconds } } as never);
      commands.push(id);
      await machine.ended(id);
    }
  };
  const killing = async () => {
    while (!over()) {
      await pause(200 + lots.below(1000));
      const who = lots.pick(["agent", "agent", "executor", "executor", "executor", "controller"] as const);
      if (who === "executor") {
        const [victim] = machine.executors();
        if (victim === undefined) continue;
        killIfAlive(victim);
      } else if (who === "agent") {
        machine.host.agent.kill("SIGKILL");
        await machine.host.agent.ended;
        await pause(lots.below(200));
        machine.startAgent();
      } else {
        await machine.controller.kill("SIGKILL");
        await pause(lots.below(200));
        await machine.controller.start();
      }
      kills[who] += 1;
    }
  };
  try {
    await Promise.all([small(), deploys(), killing()]);
  } finally {
    calm.abort();
  }
  return { commands, starts, kills };
}

/** What the history says that cannot be. Agent and controller must have stopped. */
export function faultsOf(machine: Machine, storm: Storm, views: readonly CommandView[]): string[] {
  const faults: string[] = [];
  const fault = (view: CommandView, what: string) =>
    faults.push(
      `${view.kind} ${view.mode} ${view.id}: ${what}; ${view.history.map(({ state }) => state).join(" ")}`,
    );
  using journal = new DatabaseSync(join(machine.host.directories.executorState, "journal.db"), reading);
  const journalled = journal.prepare("select state, runs from operations where id = ?");
  for (const view of views) {
    if (!isTerminal(view.state)) fault(view, "it has not ended");
    const states = view.history.map(({ state }) => state);
    const steps = states.filter((state) => state !== "running");
    if (new Set(steps).size !== steps.length) fault(view, "a state comes twice");
    if (view.result?.error?.code === "internal") fault(view, JSON.stringify(view.result.error));
    const row = journalled.get(view.id);
    const inExecutor = view.kind !== "agent.ping" && view.kind !== "agent.logs";
    if (inExecutor && row === undefined && view.state !== "refused")
      fault(view, "the journal does not know it");
    if (row !== undefined && row.state !== view.state) fault(view, `the journal says ${row.state}`);
    if (row !== undefined && Number(row.runs) !== view.runs) fault(view, `the journal says ${row.runs} runs`);
    const name = storm.starts.get(view.id);
    if (name === undefined) continue;
    const started = machine.startsOf(name);
    if (started > 1) fault(view, `it was started ${started} times`);
    if (view.state === "succeeded" && started !== 1) fault(view, `it succeeded with ${started} starts`);
    if (view.state === "refused" && started !== 0) fault(view, "it was refused and started");
  }
  faults.push(...recordFaults(machine));
  return faults;
}

/** Until the agent knows that the controller has all its records: a command's end is seen before it is acknowledged. */
export async function acknowledged(machine: Machine): Promise<void> {
  await eventually(
    60_000,
    () => {
      using outbox = outboxOf(machine);
      return waitingIn(outbox) === 0;
    },
    () => `records wait on the host: ${machine.host.agent.log().slice(-1500)}`,
  );
}

/** Its writer may be at work: it is waited for. */
const reading = { readOnly: true, timeout: 5000 } as const;

function outboxOf(machine: Machine): DatabaseSync {
  return new DatabaseSync(join(machine.host.directories.agentState, "agent.db"), reading);
}

function waitingIn(outbox: DatabaseSync): number {
  return Number(outbox.prepare("select count(*) as count from records").get()!.count);
}

/** All that the agent numbered is with the controller, and nothing waits. */
function recordFaults(machine: Machine): string[] {
  using outbox = outboxOf(machine);
  using store = new DatabaseSync(join(machine.controller.stateDirectory, "controller.db"), reading);
  const waiting = waitingIn(outbox);
  const numbered = Number(
    outbox.prepare("select seq from sqlite_sequence where name = 'records'").get()?.seq ?? 0,
  );
  const stored = Number(
    store.prepare("select max(records) as seq from outboxes where host = ?").get(machine.id)!.seq,
  );
  return [
    ...(waiting === 0 ? [] : [`${waiting} records still wait on the host`]),
    ...(numbered === stored ? [] : [`the host numbered ${numbered} records, the controller has ${stored}`]),
  ];
}
