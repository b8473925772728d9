// One simulated host: its machine, its files, its executors' sockets and lane, its way to the controller, and what a checker
// is told of it.
import type { OutboxChange } from "../../agent/link/outbox-rules.ts";
import type { Effect } from "../../protocol/commands.ts";
import type { SimAgent } from "./agent.ts";
import { SimAgent as Agent } from "./agent.ts";
import type { Checker } from "./checker.ts";
import { SimExecutor, type SimRequest } from "./executor.ts";
import type { History } from "./history.ts";
import { emptyJournal, type JournalState } from "./journal.ts";
import { Machine } from "./machine.ts";
import { emptyOutbox, type OutboxState, type WaitingRecord } from "./outbox.ts";
import type { Plan, PlannedCommand } from "./plan.ts";
import type { Random } from "./random.ts";
import type { Rules } from "./rules.ts";
import { Store } from "./store.ts";
import type { End, Path, Wire } from "./wire.ts";
import type { World } from "./world.ts";

/** What a host sees of the controller. */
export interface ControllerDoor {
  reachable(): boolean;
  accept(agent: End, path: Path): Wire;
}

export interface HostParts {
  readonly index: number;
  readonly world: World & { uid(): number };
  readonly random: Random;
  readonly history: History;
  readonly rules: Rules;
  readonly plan: Plan;
  readonly checker: Checker;
  readonly controller: ControllerDoor;
}

const supervisorMs = { low: 500, high: 3_000 } as const;

export class Host {
  readonly id: string;
  readonly machine: Machine;
  readonly world: World & { uid(): number };
  readonly random: Random;
  readonly rules: Rules;
  readonly plan: Plan;
  readonly controller: ControllerDoor;
  readonly outbox: Store<OutboxState>;
  readonly journal: Store<JournalState>;
  readonly instance: string;
  /** Who listens for an operation. */
  readonly sockets = new Map<string, SimExecutor>();
  lane: SimExecutor | undefined;
  agent: SimAgent | undefined;
  agentStarts = 0;
  /** Its agent says again what the controller has, as an agent may. */
  repeats = false;
  readonly executors = new Set<SimExecutor>();
  readonly #spools = new Map<string, { bytes: number; from: number }>();
  readonly #checker: Checker;
  #partitions = 0;
  #copy: OutboxState | undefined;
  readonly #wires = new Set<Wire>();

  constructor(parts: HostParts) {
    const name = `host-${parts.index}`;
    this.id = String(parts.index).repeat(64);
    this.instance = `instance-${parts.index}`;
    this.world = parts.world;
    this.random = parts.random;
    this.rules = parts.rules;
    this.plan = parts.plan;
    this.controller = parts.controller;
    this.#checker = parts.checker;
    this.machine = new Machine({ ...parts, name });
    this.outbox = new Store<OutboxState>(this.machine, "outbox", emptyOutbox(parts.rules));
    this.journal = new Store<JournalState>(this.machine, "journal", emptyJournal);
    this.machine.holds(this.outbox);
    this.machine.holds(this.journal);
    this.machine.onBoot = () => this.startAgent();
    this.machine.onStop = (how) => {
      this.sockets.clear();
      this.lane = undefined;
      // What was printed lately is not on the disk.
      if (how === "in-order") return;
      for (const spool of this.#spools.values()) spool.bytes = this.random.between(spool.from, spool.bytes);
    };
  }

  get network() {
    const open = () => this.#partitions === 0 && this.machine.up;
    return {
      open,
      path: {
        open,
        latencyMs: () =>
          this.random.chance(0.01) ? this.random.between(60, 3_000) : this.random.between(1, 60),
      },
    };
  }

  note(who: string, what: string, command?: string): void {
    this.machine.history.note(`${this.machine.name}/${who}`, what, command);
  }

  /** A connection to the controller. */
  dial(agent: End): Wire {
    const wire = this.controller.accept(agent, this.network.path);
    this.#wires.add(wire);
    return wire;
  }

  startAgent(): void {
    if (this.agent?.alive || !this.machine.up) return;
    this.agentStarts += 1;
    this.agent = new Agent(this);
  }

  /** The supervisor starts it again; where power is gone, the boot does. */
  agentDied(how: "kill" | "power-cut"): void {
    this.agent = undefined;
    if (how === "power-cut") return;
    const ms = this.random.between(supervisorMs.low, supervisorMs.high);
    this.world.after(ms, undefined, () => this.startAgent());
  }

  startExecutor(request: SimRequest): SimExecutor {
    const executor = new SimExecutor(this, request);
    this.executors.add(executor);
    return executor;
  }

  executorDied(executor: SimExecutor): void {
    this.executors.delete(executor);
    if (this.lane === executor) this.lane = undefined;
    for (const [id, listener] of this.sockets) if (listener === executor) this.sockets.delete(id);
  }

  spool(id: string): { bytes: number; from: number } {
    return this.#spools.get(id) ?? { bytes: 0, from: 0 };
  }

  print(id: string, bytes: number): void {
    const spool = this.spool(id);
    this.#spools.set(id, spool);
    spool.bytes += bytes;
  }

  planned(id: string): PlannedCommand {
    return this.plan.commands.find((command) => command.id === id)!;
  }

  // ---- faults

  partition(ms: number): void {
    this.#partitions += 1;
    this.world.after(ms, undefined, () => {
      this.#partitions -= 1;
      if (this.#partitions > 0) return;
      for (const wire of this.#wires) wire.heal();
      // What is closed on both sides is of no use any more.
      for (const wire of this.#wires) if (wire.isClosed(0) && wire.isClosed(1)) this.#wires.delete(wire);
    });
  }

  copyState(): void {
    this.#copy = this.outbox.state;
  }

  /** Somebody puts an old copy of the agent's state directory in place. */
  setStateBack(): void {
    if (this.#copy === undefined) return;
    if (this.agent !== undefined) this.machine.kill(this.agent);
    this.outbox.replace(this.#copy);
    this.#checker.stateSetBack(this.id);
  }

  /** The agent's database is gone; its keys are not. */
  loseState(): void {
    if (this.agent !== undefined) this.machine.kill(this.agent);
    this.outbox.replace(emptyOutbox(this.rules));
    this.#checker.stateSetBack(this.id);
  }

  // ---- what the checker is told

  observeAccepted(
    id: string,
    offer: { readonly epoch: number; readonly generation: number },
    effect: Effect,
  ): void {
    this.#checker.accepted({ host: this.id, id, epoch: offer.epoch, generation: offer.generation, effect });
  }

  observeRefused(id: string, code: string): void {
    this.#checker.refused({ host: this.id, id, code });
  }

  observeStart(id: string, effect: Effect): void {
    this.note("executor", `starts the work (${effect})`, id);
    this.#checker.started({ host: this.id, id, effect });
  }

  observeChanges(changes: readonly OutboxChange[]): void {
    for (const change of changes) {
      if (change.change === "record" && "command" in change.body && change.body.type !== "output")
        this.note("agent", `records ${describe(change.body)}`, change.body.command);
    }
  }

  observeEnd(id: string): void {
    this.#checker.printed(id, this.spool(id).bytes);
  }

  observeAskedAgain(id: string): void {
    this.#checker.askedAgain(id);
  }

  observeForgotten(records: readonly WaitingRecord[]): void {
    this.#checker.forgotten(this.id, records);
  }

  observeTold(record: WaitingRecord): void {
    this.#checker.sent(this.id, record);
  }

  observeGap(gap: { readonly from: number; readonly to: number }): void {
    this.note("agent", `records a gap from ${gap.from} to ${gap.to}`);
  }

  observeQueues(agent: SimAgent): void {
    this.#checker.queues({
      host: this.id,
      recordBytes: agent.outbox.recordBytes,
      outputBytes: agent.outbox.outputBytes,
      sampleBytes: agent.samples.bytes,
      open: agent.state.open.size,
      waiting: agent.state.waiting.length,
      unread: agent.unreadMax,
      sendBuffer: agent.wire?.buffered(0) ?? 0,
    });
  }
}

function describe(body: WaitingRecord["body"]): string {
  switch (body.type) {
    case "result":
      return `result ${body.result.outcome}${body.result.error === undefined ? "" : ` (${body.result.error.code})`}`;
    case "refused":
      return `refused (${body.error.code})`;
    case "cancel":
      return `cancel ${body.answer}`;
    default:
      return body.type;
  }
}
