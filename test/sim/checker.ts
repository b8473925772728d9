// What must hold of a run's history, whatever the faults: told of what happens as it happens, asked for its verdict at the end.

import { operationLimits } from "../../agent/operations/state.ts";
import { type Effect, isTerminal, type OperationState } from "../../protocol/commands.ts";
import { limits } from "../../protocol/limits.ts";
import type { ControllerState, HostRow, KeptCommand } from "./controller-store.ts";
import type { JournalState } from "./journal.ts";
import type { OutboxState, WaitingRecord } from "./outbox.ts";
import type { Plan } from "./plan.ts";

/** The promises, each with the name that a finding has. */
export const promises = {
  "once-starts-once": "An operation that must not be repeated starts at most once.",
  "nothing-after-its-end": "Nothing runs of which it was said that it would not.",
  "generations-rise":
    "The generations that an executor accepts rise, within an epoch and from one to the next.",
  "stale-is-the-exception":
    "No command is refused as stale while its controller does what the contract says.",
  "records-once-in-order": "No record is applied twice, or before one that came before it.",
  "no-record-lost": "What an agent told is applied, or said to be lost.",
  "intent-kept": "A command that was taken is there, whatever happens.",
  "all-end": "When all works again, every operation ends, and everybody knows.",
  "ends-agree": "What the controller says of an operation's end is what the host's journal says.",
  "queues-bounded": "What waits in memory and on disk has its bound.",
  "samples-accounted": "Every batch of readings is stored once or in a gap.",
  "output-whole": "What a program printed arrives without a hole.",
  "nobody-quarantined": "A broken link alone makes nobody a copy.",
} as const;

export interface Finding {
  readonly promise: keyof typeof promises | "no-assertion-fails";
  readonly what: string;
  readonly commands: readonly string[];
  readonly at: number;
}

interface Queues {
  readonly host: string;
  readonly recordBytes: number;
  readonly outputBytes: number;
  readonly sampleBytes: number;
  readonly open: number;
  readonly waiting: number;
  readonly unread: number;
  readonly sendBuffer: number;
}

/** What a host and the controller hold when all has come to rest. */
export interface Rest {
  readonly controller: ControllerState;
  readonly hosts: readonly {
    readonly id: string;
    readonly outbox: OutboxState;
    readonly journal: JournalState;
    readonly openInAgent: number;
    readonly waitingInAgent: number;
    readonly agentStarts: number;
  }[];
}

const staleCodes: readonly string[] = [
  "command.stale-generation",
  "command.stale-epoch",
  "command.generation-conflict",
  "command.generation-jump",
  "command.id-conflict",
];

/** More than the window by one piece at most. */
const outputBytesMax = operationLimits.outputBytesMax + 48 * 1024;
const unreadMax = 16;

export class Checker {
  readonly findings: Finding[] = [];
  readonly #plan: Plan;
  readonly #now: () => number;
  readonly #starts = new Map<string, number>();
  readonly #generations = new Map<string, { epoch: number; generation: number; id: string }>();
  /** Commands of which somebody was told that they did not and will not run. */
  readonly #promisedNot = new Map<string, number>();
  readonly #acknowledgedToCaller = new Set<string>();
  readonly #sent = new Map<string, Set<number>>();
  /** How commands ended, as this life of the controller's data says. */
  readonly #ended = new Map<string, OperationState>();
  readonly #askedAgain = new Set<string>();
  readonly #printed = new Map<string, number>();
  readonly #setBack = new Map<string, number>();
  readonly #timesSetBack = new Map<string, number>();
  #controllerSetBackAt: number | undefined;
  #backup: ControllerState | undefined;
  /** What of the backup is not what it was when the controller was set back to it. */
  #uncertain = new Set<string>();

  constructor(plan: Plan, now: () => number) {
    this.#plan = plan;
    this.#now = now;
  }

  #found(promise: Finding["promise"], what: string, ...commands: string[]): void {
    if (this.findings.length < 20) this.findings.push({ promise, what, commands, at: this.#now() });
  }

  get #sound(): boolean {
    return this.#plan.kind === "sound";
  }

  // ---- as it happens

  callerTold(id: string): void {
    this.#acknowledgedToCaller.add(id);
  }

  accepted(offer: {
    readonly host: string;
    readonly id: string;
    readonly epoch: number;
    readonly generation: number;
    readonly effect: Effect;
  }): void {
    const { host, id, epoch, generation, effect } = offer;
    if (effect === "read") return;
    const last = this.#generations.get(host);
    if (last !== undefined && (epoch < last.epoch || (epoch === last.epoch && generation <= last.generation)))
      this.#found(
        "generations-rise",
        `generation ${generation} of epoch ${epoch} was accepted after ${last.generation} of ${last.epoch}`,
        last.id,
        id,
      );
    this.#generations.set(host, { epoch, generation, id });
  }

  started({
    host,
    id,
    effect,
  }: {
    readonly host: string;
    readonly id: string;
    readonly effect: Effect;
  }): void {
    const starts = (this.#starts.get(id) ?? 0) + 1;
    this.#starts.set(id, starts);
    if (effect === "once" && starts > 1) this.#found("once-starts-once", `it started ${starts} times`, id);
    const promisedAt = this.#promisedNot.get(id);
    // A read does no harm, and is begun again by an agent that was set back.
    if (promisedAt === undefined || (effect === "read" && this.#setBack.has(host))) return;
    // Both ends have forgotten it: nobody is left who could know.
    const bothSetBack =
      (this.#setBack.get(host) ?? -1) > promisedAt && (this.#controllerSetBackAt ?? -1) > promisedAt;
    if (!bothSetBack)
      this.#found("nothing-after-its-end", "it runs, and was said to be cancelled or refused", id);
  }

  /** What the controller says of a command now, from its disk. */
  told({ id, state, result }: KeptCommand): void {
    const before = this.#ended.get(id);
    if (before !== undefined && before !== state)
      this.#found("ends-agree", `it was said to be ${before}, and is ${state} now`, id);
    if (!isTerminal(state)) return;
    this.#ended.set(id, state);
    const never =
      state === "cancelled" ||
      state === "refused" ||
      (state === "failed" && result?.error?.code === "command.expired");
    // A controller that was set back to before it took the command cannot know better.
    if (!never || this.#uncertain.has(id) || this.#promisedNot.has(id)) return;
    this.#promisedNot.set(id, this.#now());
  }

  /** A controller asks for what has ended: it has lost it, or asked before it heard, and hears it again. */
  askedAgain(id: string): void {
    this.#askedAgain.add(id);
  }

  /** All that a program printed, when it had ended. */
  printed(id: string, bytes: number): void {
    this.#printed.set(id, bytes);
  }

  sent(host: string, { uid }: WaitingRecord): void {
    const sent = this.#sent.get(host) ?? new Set();
    this.#sent.set(host, sent.add(uid));
  }

  /** The agent keeps these no longer. */
  forgotten(host: string, records: readonly WaitingRecord[]): void {
    const never = records.filter(({ uid }) => this.#sent.get(host)?.has(uid) !== true);
    // One that was set back twice, to numbers that its lives between have used, cannot know.
    if (never.length > 0 && this.#sound && (this.#timesSetBack.get(host) ?? 0) < 2)
      this.#found(
        "no-record-lost",
        `host-${host[0]}: record #${never[0]!.uid} was never sent, and is dropped`,
      );
  }

  hole(host: string, { seq }: WaitingRecord, mark: number): void {
    if (this.#sound) this.#found("no-record-lost", `host-${host[0]}: record ${seq} came after ${mark}`);
  }

  queues(queues: Queues): void {
    const { host, recordBytes, outputBytes, sampleBytes, open, waiting, unread, sendBuffer } = queues;
    const bound = (name: string, value: number, max: number) => {
      if (value > max) this.#found("queues-bounded", `host-${host[0]}: ${name} is ${value}, beyond ${max}`);
    };
    bound(
      "the outbox",
      recordBytes,
      operationLimits.refusalBytesMax + operationLimits.openMax * limits.resultBytesMax,
    );
    bound("output in the outbox", outputBytes, outputBytesMax);
    bound("the queue of samples", sampleBytes, this.#plan.sampleBytesMax);
    bound("open operations", open, operationLimits.openMax);
    bound("waiting offers", waiting, operationLimits.waitingMax);
    bound("what was read ahead", unread, unreadMax);
    bound("the send buffer", sendBuffer, limits.socketBufferBytesMax + limits.frameBytesMax);
  }

  quarantined(host: string): void {
    this.#found("nobody-quarantined", `host-${host[0]} is quarantined`);
  }

  refused(_refusal: { readonly host: string; readonly id: string; readonly code: string }): void {}

  stateSetBack(host: string): void {
    this.#setBack.set(host, this.#now());
    this.#timesSetBack.set(host, (this.#timesSetBack.get(host) ?? 0) + 1);
  }

  /** Its data is replaced by an older state. */
  controllerSetBack(before: ControllerState, after: ControllerState): void {
    this.#controllerSetBackAt = this.#now();
    this.#ended.clear();
    this.#backup = after;
    for (const { id } of before.commands.values()) if (!after.commands.has(id)) this.#uncertain.add(id);
    // Nobody but the controller knew that these would not run.
    for (const id of this.#uncertain) this.#promisedNot.delete(id);
    for (const { id, state } of after.commands.values())
      if (state === "waiting") this.#promisedNot.delete(id);
  }

  // ---- at the end

  atRest(rest: Rest): void {
    for (const { id, applied } of [...rest.controller.hosts].map(([id, row]) => ({ id, ...row })))
      this.#recordsInOrder(id, applied);
    for (const id of this.#acknowledgedToCaller) {
      const lost = this.#controllerSetBackAt !== undefined && this.#backup?.commands.has(id) !== true;
      if (!rest.controller.commands.has(id) && !lost)
        this.#found("intent-kept", "it is not known any more", id);
    }
    // From here on only what holds where everybody keeps to the contract.
    if (!this.#sound) return;
    for (const host of rest.hosts) this.#hostAtRest(rest.controller, host);
    for (const command of rest.controller.commands.values()) {
      if (!isTerminal(command.state)) this.#found("all-end", `it is still ${command.state}`, command.id);
      const code = command.result?.error?.code ?? "";
      // One that is cancelled may be passed by others, and then be too late in either way.
      if (command.state === "refused" && staleCodes.includes(code) && command.cancelRequestedAt === null)
        this.#found("stale-is-the-exception", `it was refused: ${code}`, command.id);
    }
  }

  #recordsInOrder(host: string, applied: HostRow["applied"]): void {
    const setBack = this.#setBack.has(host);
    const said = new Set<string>();
    let after: HostRow["applied"] = null;
    for (let record = applied; record !== null; record = record.previous) {
      const name = `host-${host[0]}: record #${record.uid}`;
      // An agent that was set back tells twice what it cannot know was heard.
      if (after !== null && record.uid >= after.uid && !setBack)
        this.#found("records-once-in-order", `${name} is applied before #${after.uid}`);
      if (after !== null && record.instance === after.instance && after.seq !== record.seq + 1 + after.lost)
        this.#found("no-record-lost", `${name} has number ${record.seq}, the next one ${after.seq}`);
      const again = record.says !== undefined && said.has(record.says);
      if (again && !setBack && !this.#askedAgain.has(commandOf(record.says!)))
        this.#found("records-once-in-order", `${name} says again: ${record.says}`);
      if (record.says !== undefined) said.add(record.says);
      after = record;
    }
  }

  #hostAtRest(controller: ControllerState, host: Rest["hosts"][number]): void {
    const { id, outbox, journal } = host;
    const row = controller.hosts.get(id)!;
    const setBack = this.#setBack.has(id);
    const name = `host-${id[0]}`;
    if (host.openInAgent > 0 || host.waitingInAgent > 0)
      this.#found(
        "all-end",
        `${name}: the agent still has ${host.openInAgent} open operations`,
        ...openIn(outbox),
      );
    if (outbox.records.length > 0) this.#found("all-end", `${name}: ${outbox.records.length} records wait`);
    const orphansAllowed = setBack && this.#controllerSetBackAt !== undefined;
    for (const operation of journal.operations.values())
      if (!isTerminal(operation.state) && !orphansAllowed)
        this.#found("all-end", `${name}: the journal has it as ${operation.state}`, operation.id);
    for (const command of controller.commands.values()) if (command.host === id) this.#agree(command, host);
    if (setBack || this.#controllerSetBackAt !== undefined) return;
    if (row.lost > 0) this.#found("no-record-lost", `${name}: ${row.lost} records are said to be lost`);
    const applied = new Set<number>();
    for (let record = row.applied; record !== null; record = record.previous) applied.add(record.uid);
    const missing = [...(this.#sent.get(id) ?? [])].filter((uid) => !applied.has(uid));
    if (missing.length > 0)
      this.#found("no-record-lost", `${name}: records #${missing.join(", #")} were sent and are gone`);
    this.#samples(name, row, host.agentStarts);
  }

  #agree(command: KeptCommand, { journal }: Rest["hosts"][number]): void {
    const known = journal.operations.get(command.id);
    const { id, state, result } = command;
    if (!isTerminal(state) || this.#uncertain.has(id)) return;
    // The agent gave up on its executors: it says what it knows, which is less.
    const gaveUp = result?.error?.code === "executor.failed";
    // A read may be begun again by an agent that was set back.
    const again = !command.changesState && this.#setBack.has(command.host);
    if (known !== undefined && isTerminal(known.state) && known.state !== state && !gaveUp && !again)
      this.#found("ends-agree", `the controller says ${state}, the journal ${known.state}`, id);
    const started = (this.#starts.get(id) ?? 0) > 0;
    if (started && known === undefined) this.#found("ends-agree", "it ran and is in no journal", id);
    if (state === "succeeded" && known === undefined && command.changesState)
      this.#found("ends-agree", "it is said to have succeeded, and is in no journal", id);
    this.#output(command);
  }

  #output({ id, state, pieces, outputEnd }: KeptCommand): void {
    const printed = this.#printed.get(id) ?? 0;
    if (state !== "succeeded" || this.#controllerSetBackAt !== undefined) return;
    if (this.#plan.faults.some(({ fault }) => fault === "power-cut" || fault === "die-at-write")) return;
    if (outputEnd !== printed) this.#found("output-whole", `${outputEnd} of ${printed} bytes arrived`, id);
    for (let i = 1; i < pieces.length; i++)
      if (pieces[i - 1]!.offset + pieces[i - 1]!.bytes !== pieces[i]!.offset)
        this.#found("output-whole", `there is a hole before byte ${pieces[i]!.offset}`, id);
  }

  #samples(name: string, { batches, gaps, outboxes }: HostRow, agentStarts: number): void {
    const mark = Math.max(0, ...[...outboxes.values()].map(({ samples }) => samples));
    const times = new Uint8Array(mark + 1);
    for (const seq of batches) times[seq]! += 1;
    const twice = times.findIndex((count) => count > 1);
    if (twice >= 0) this.#found("samples-accounted", `${name}: batch ${twice} is stored more than once`);
    // An agent that starts goes on from what is stored: a number that its former life told as dropped may come again.
    const most = Math.max(1, agentStarts);
    for (const { from, to } of gaps) for (let seq = from; seq <= Math.min(to, mark); seq++) times[seq]! += 1;
    for (let seq = 1; seq <= mark; seq++) {
      const count = times[seq]!;
      if (count > 0 && count <= most) continue;
      const what = count === 0 ? "is missing, and in no gap" : "is in a gap too";
      return void this.#found("samples-accounted", `${name}: batch ${seq} ${what}`);
    }
  }
}

function commandOf(says: string): string {
  return says.slice(says.lastIndexOf(" ") + 1);
}

function openIn({ operations }: OutboxState): string[] {
  return [...operations.values()].filter(({ state }) => !isTerminal(state)).map(({ id }) => id);
}
