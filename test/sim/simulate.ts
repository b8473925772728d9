// One run of the world: the plan carried out, all faults over, everything at rest, and what the checker says of it.
import { ask, setPause, sign } from "./caller.ts";
import { Checker, type Finding } from "./checker.ts";
import { firstControllerState } from "./controller-store.ts";
import { createHistory, type Happened } from "./history.ts";
import { Host } from "./host.ts";
import { ControllerHouse } from "./house.ts";
import { type Fault, type Plan, restMs, troubleMs } from "./plan.ts";
import { createRandom } from "./random.ts";
import type { Rules } from "./rules.ts";
import { World } from "./world.ts";

export interface Run {
  readonly findings: readonly Finding[];
  readonly history: readonly Happened[];
  readonly happened: number;
  readonly endedAt: number;
}

const lookMs = 20_000;

export function simulate(plan: Plan, rules: Rules, keepHistory: boolean): Run {
  let uids = 0;
  const world = Object.assign(new World(), { uid: () => ++uids });
  const history = createHistory(() => world.now, keepHistory);
  const checker = new Checker(plan, () => world.now);
  const random = (stream: string) => createRandom(plan.seed, stream);
  const ids = Array.from({ length: plan.hosts }, (_, index) => String(index).repeat(64));
  const house = new ControllerHouse({
    ...{ world, history, checker, rules, random: random("controller") },
    first: firstControllerState(ids),
  });
  const hosts = ids.map(
    (_, index) =>
      new Host({
        ...{ index, world, history, checker, rules, plan, controller: house },
        random: random(`host-${index}`),
      }),
  );
  house.start();
  for (const host of hosts) host.startAgent();
  const callers = { world, history, checker, house, random: random("caller") };
  for (const command of plan.commands) ask(command, ids[command.host]!, callers);
  for (const fault of plan.faults)
    world.after(fault.at, undefined, () => {
      history.note("fault", describe(fault));
      strike(fault, hosts, house);
    });
  world.run(troubleMs);
  for (const machine of [house.machine, ...hosts.map(({ machine }) => machine)]) {
    machine.disarm();
    machine.setClock();
  }
  history.note("fault", "no more of them");
  for (const { id, signedAfterMs } of plan.commands) if (signedAfterMs !== undefined) sign(id, callers);
  // A controller that was set back may believe again that it is paused.
  for (const { id, pause } of plan.commands) if (pause !== undefined) setPause(id, false, callers);
  do world.run(world.now + lookMs);
  while (world.now < troubleMs + restMs && !isAtRest(hosts, house));
  checker.atRest({
    controller: house.store.state,
    hosts: hosts.map((host) => ({
      id: host.id,
      outbox: host.outbox.state,
      journal: host.journal.state,
      openInAgent: host.agent?.state.open.size ?? 0,
      agentStarts: host.agentStarts,
      waitingInAgent: host.agent?.state.waiting.length ?? 0,
    })),
  });
  return {
    findings: checker.findings,
    history: history.entries,
    happened: world.happened,
    endedAt: world.now,
  };
}

function isAtRest(hosts: readonly Host[], house: ControllerHouse): boolean {
  const { commands } = house.store.state;
  return (
    [...commands.values()].every(({ result }) => result !== null) &&
    hosts.every(
      ({ agent, executors, outbox }) =>
        agent !== undefined &&
        agent.wire !== undefined &&
        agent.state.open.size === 0 &&
        executors.size === 0 &&
        outbox.state.records.length === 0,
    )
  );
}

function strike(fault: Fault, hosts: readonly Host[], house: ControllerHouse): void {
  switch (fault.fault) {
    case "partition":
      return void hosts[fault.host]!.partition(fault.ms);
    case "half-open":
      if (fault.forgets === "agent") hosts[fault.host]!.agent?.forget();
      else house.controller?.forget(hosts[fault.host]!.id);
      return;
    case "reset":
      return void hosts[fault.host]!.agent?.wire?.reset();
    case "kill": {
      const host = hosts[fault.host]!;
      const { agent, machine, executors } = host;
      if (fault.what === "agent" && agent !== undefined) machine.kill(agent);
      if (fault.what === "executors") for (const executor of [...executors]) machine.kill(executor);
      return;
    }
    case "power-cut":
      return void hosts[fault.host]!.machine.cutPower();
    case "clock":
      return void hosts[fault.host]!.machine.moveClock(fault.ms);
    case "copy-state":
      return void hosts[fault.host]!.copyState();
    case "set-state-back":
      return void hosts[fault.host]!.setStateBack();
    case "lose-state":
      return void hosts[fault.host]!.loseState();
    case "repeat":
      hosts[fault.host]!.repeats = true;
      return;
    case "kill-controller":
      return void house.kill();
    case "cut-controller":
      return void house.machine.cutPower();
    case "back-up":
      return void house.backUp();
    case "restore":
      return void house.restore("raise");
    case "set-controller-back":
      return void house.restore("same");
    case "old-controller-returns":
      return void house.bringBack();
    case "die-at-write": {
      const machine = fault.host === "controller" ? house.machine : hosts[fault.host]!.machine;
      return void machine.trap(fault);
    }
  }
}

function describe(fault: Fault): string {
  const { at: _, fault: name, ...rest } = fault;
  return `${name} ${JSON.stringify(rest)}`;
}
