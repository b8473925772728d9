// The simulated agent: the product's reducers behind shells without threads. Dials, resumes, sends what waits, follows
// executors, and dies at any moment.
import type { Backoff } from "../../agent/link/backoff.ts";
import type { Credit } from "../../agent/link/credit.ts";
import type { KeptOffer } from "../../agent/link/outbox-rules.ts";
import type { SampleQueue } from "../../agent/link/sample-queue.ts";
import { faultHere } from "../../agent/operations/here.ts";
import {
  type Effect,
  noOperations,
  type OperationsEvent,
  type OperationsState,
} from "../../agent/operations/state.ts";
import { commandKinds, decodeCommand, effectOf, isTerminal } from "../../protocol/commands.ts";
import { limits } from "../../protocol/limits.ts";
import type { SimExecutor } from "./executor.ts";
import type { Host } from "./host.ts";
import type { Program } from "./machine.ts";
import { type AgentWord, type ControllerWord, sizes } from "./messages.ts";
import { Outbox } from "./outbox.ts";
import { abnormal, steadyPath, type Wire } from "./wire.ts";

const sampleMs = 5_000;
const keyFrameEvery = 12;
const handshakeMs = 15_000;
const recordsAtOnce = 64;
const roomPauseMs = 20;

type Happening = OperationsEvent extends infer E
  ? E extends { known: unknown }
    ? Omit<E, "known">
    : E
  : never;

interface Link {
  readonly wire: Wire;
  welcomed: boolean;
  heardAt: number;
  sentRecord: number;
  credit: Credit | undefined;
  heartbeatMs: number;
  reconnectWindowMs: number | undefined;
  readonly since: number;
  pumping: boolean;
}

interface Followed {
  readonly wire: Wire;
  held: boolean;
  /** What the executor has written and the agent has not read: the kernel's buffer. */
  readonly unread: unknown[];
}

export class SimAgent implements Program {
  readonly name: string;
  alive = true;
  readonly #host: Host;
  readonly outbox: Outbox;
  state: OperationsState = noOperations;
  readonly samples: SampleQueue;
  readonly #backoff: Backoff;
  #link: Link | undefined;
  #previousSession: string | undefined;
  #batches = 0;
  #keyWanted = false;
  readonly #followed = new Map<string, Followed>();
  readonly #executors = new Map<string, SimExecutor>();

  constructor(host: Host) {
    this.#host = host;
    this.name = `${host.machine.name}/agent`;
    const { rules, machine } = host;
    machine.runs(this);
    this.outbox = new Outbox({
      ...{ owner: this, store: host.outbox, rules, uid: () => host.world.uid() },
      onDurable: () => this.#pump(),
      onAcknowledged: () => this.#happen({ event: "acknowledged" }),
      onForgotten: (records) => host.observeForgotten(records),
    });
    this.samples = rules.agent.createSampleQueue(host.plan.sampleBytesMax);
    this.#backoff = rules.agent.createBackoff();
    host.note("agent", "starts");
    const operations = this.outbox.openOperations().map((kept) => ({
      ...kept,
      changesState: kept.offer === null || effectOf(decodeCommand(kept.offer.document)) !== "read",
    }));
    this.#happen({ event: "opened", operations });
    this.#after(host.random.between(10, 300), () => this.#dial());
    this.#after(sampleMs, () => this.#sample());
  }

  died(how: "kill" | "power-cut"): void {
    if (how === "kill") {
      this.#link?.wire.close(0, abnormal);
      for (const { wire } of this.#followed.values()) wire.close(0, abnormal);
    } else {
      this.#link?.wire.vanish(0);
    }
    this.#host.agentDied(how);
  }

  /** The connection as a fault sees it. */
  get wire(): Wire | undefined {
    return this.#link?.wire;
  }

  #after(ms: number, work: () => void): void {
    this.#host.machine.world.after(ms, this, work);
  }

  // ---- operations

  #happen(happening: Happening): void {
    const { machine, rules, plan } = this.#host;
    const event = (
      happening.event === "offer" || happening.event === "cancel" || happening.event === "done-here"
        ? { ...happening, known: this.outbox.operation(happening.id) }
        : happening
    ) as OperationsEvent;
    if (event.event === "offer" && event.known !== undefined && isTerminal(event.known.state))
      this.#host.observeAskedAgain(event.id);
    const facts = {
      monotonicMs: machine.monotonic(),
      unixMs: machine.wall(),
      recordBytes: this.outbox.recordBytes * plan.pressure,
      outputBytes: this.outbox.outputBytes,
    };
    const step = rules.agent.reduceOperations(this.state, event, facts);
    if (step.changes.length > 0) this.outbox.commit(step.changes, machine.wall());
    this.state = step.state;
    this.#host.observeChanges(step.changes);
    for (const effect of step.effects) this.#perform(effect);
    if (step.changes.length > 0) this.#pump();
  }

  #perform(effect: Effect): void {
    const { id } = effect;
    switch (effect.effect) {
      case "attach":
        this.#after(1, () => this.#attach(effect));
        break;
      case "start":
        this.outbox.synced(() => this.#start(effect));
        break;
      case "send":
        this.#followed.get(id)?.wire.send(0, effect.request, sizes.small);
        break;
      case "detach": {
        const entry = this.#followed.get(id);
        this.#followed.delete(id);
        this.#executors.delete(id);
        entry?.wire.close(0, abnormal);
        break;
      }
      case "hold": {
        const entry = this.#followed.get(id);
        if (entry !== undefined) entry.held = true;
        break;
      }
      case "read-on": {
        const entry = this.#followed.get(id);
        if (entry === undefined) break;
        entry.held = false;
        this.#after(0, () => this.#read(id, entry));
        break;
      }
      case "pause":
        this.#after(effect.ms, () => this.#happen({ event: "paused", id }));
        break;
      case "run-here":
        this.#after(this.#host.random.between(1, 200), () => this.#runHere(effect));
        break;
      case "log":
        this.#host.note("agent", effect.message, id);
        break;
    }
  }

  #attach({ id, afterSeq, afterOutput }: Extract<Effect, { effect: "attach" }>): void {
    const listener = this.#host.sockets.get(id);
    if (listener === undefined || !listener.alive) {
      const ended = this.#executors.get(id)?.alive === false;
      this.#happen({ event: "absent", id, ended, trouble: "nobody listens" });
      return;
    }
    const entry: Followed = {
      held: false,
      unread: [],
      wire: listener.accept(
        {
          process: this,
          onMessage: (message) => {
            entry.unread.push(message);
            this.#read(id, entry);
          },
          onClose: () => {
            entry.unread.push("closed");
            this.#read(id, entry);
          },
        },
        steadyPath(this.#host.random, 0, 2),
      ),
    };
    this.#followed.set(id, entry);
    entry.wire.send(0, { attach: { afterSeq, ...(afterOutput === undefined ? {} : { afterOutput }) } }, 100);
    this.#happen({ event: "attached", id });
  }

  #read(id: string, entry: Followed): void {
    while (!entry.held && entry.unread.length > 0 && this.#followed.get(id) === entry) {
      const word = entry.unread.shift();
      if (word === "closed") {
        this.#followed.delete(id);
        this.#happen({ event: "lost", id, trouble: "its executor is gone" });
      } else {
        // Read: there is room in the kernel again.
        this.#host.sockets.get(id)?.drained(entry.wire);
        this.#happen({ event: "said", id, said: word as never });
      }
    }
  }

  /** The most that waits to be read from one executor. */
  get unreadMax(): number {
    return Math.max(0, ...[...this.#followed.values()].map(({ unread }) => unread.length));
  }

  #start({ id, request }: Extract<Effect, { effect: "start" }>): void {
    if (this.#host.random.chance(0.01)) {
      this.#happen({ event: "not-started", id, trouble: "no process can be made" });
      return;
    }
    const offer = this.outbox.operation(id)?.offer;
    const executor =
      request === "follow"
        ? this.#host.startExecutor({ request, command: id })
        : this.#host.startExecutor({
            ...{ request: "run", onlyKnown: request === "ask", host: this.#host.id },
            ...offer!,
          });
    this.#executors.set(id, executor);
    this.#happen({ event: "started", id });
  }

  #runHere({ id, offer }: Extract<Effect, { effect: "run-here" }>): void {
    const at = this.#host.machine.wall();
    const fault = faultHere(decodeCommand(offer.document), { host: this.#host.id, unixMs: at });
    const times = { startedAt: at, endedAt: at };
    const result =
      fault === undefined
        ? ({ outcome: "succeeded", ...times } as const)
        : ({ outcome: "failed", ...times, error: { code: fault.code, message: fault.message } } as const);
    this.#happen({ event: "done-here", id, offer, result });
  }

  // ---- link

  #dial(): void {
    const { controller, network } = this.#host;
    if (!network.open() || !controller.reachable()) {
      this.#redial({ code: abnormal, reconnectWindowMs: undefined, ours: false }, 3_000);
      return;
    }
    const link: Link = {
      wire: this.#host.dial({
        process: this,
        onMessage: (message) => this.#heard(link, message as ControllerWord),
        onClose: (code) => this.#closed(link, code, false),
      }),
      welcomed: false,
      heardAt: this.#host.machine.monotonic(),
      sentRecord: 0,
      credit: undefined,
      heartbeatMs: 0,
      reconnectWindowMs: undefined,
      since: this.#host.machine.monotonic(),
      pumping: false,
    };
    this.#link = link;
    this.#send(link, {
      t: "hello",
      host: this.#host.id,
      instance: this.#host.instance,
      bootId: this.#host.machine.bootId,
      previousSession: this.#previousSession,
    });
    this.#after(handshakeMs, () => {
      if (this.#link === link && !link.welcomed) this.#close(link, 4000);
    });
  }

  #redial(ended: Parameters<Host["rules"]["agent"]["redialMs"]>[0], alreadyMs = 0): void {
    const { random, rules } = this.#host;
    const ms = rules.agent.redialMs(ended, this.#backoff, () => random.fraction());
    this.#after(alreadyMs + ms, () => this.#dial());
  }

  #send(link: Link, message: AgentWord, bytes: number = sizes.small): void {
    link.wire.send(0, message, bytes);
  }

  #heard(link: Link, message: ControllerWord): void {
    if (this.#link !== link) return;
    link.heardAt = this.#host.machine.monotonic();
    switch (message.t) {
      case "welcome": {
        link.welcomed = true;
        link.heartbeatMs = message.heartbeatMs;
        link.reconnectWindowMs = message.reconnectWindowMs;
        link.credit = this.#host.rules.agent.createCredit(message.creditBytes);
        this.#previousSession = message.session;
        this.#host.note("agent", `connected: records ${message.records}, epoch ${message.epoch}`);
        const again = this.#host.repeats ? this.outbox.upTo(message.records) : [];
        this.outbox.resume(message.records);
        link.sentRecord = message.records;
        for (const record of again) this.#send(link, { t: "record", ...record }, record.bytes);
        this.samples.resume(message.samples);
        this.#happen({ event: "link", link: "up" });
        this.#beat(link);
        this.#pump();
        break;
      }
      case "heartbeat":
        break;
      case "ack":
        link.credit?.acknowledged("record", message.records);
        link.credit?.acknowledged("sample", message.samples);
        this.outbox.acknowledge(message.records);
        this.samples.acknowledge(message.samples);
        this.#pump();
        break;
      case "offer": {
        const command = decodeCommand(message.offer.document);
        this.#host.note("agent", `is offered generation ${message.offer.generation}`, command.id);
        this.#happen({
          event: "offer",
          id: command.id,
          runs: commandKinds[command.kind].runs,
          changesState: effectOf(command) !== "read",
          offer: message.offer as KeptOffer,
        });
        break;
      }
      case "cancel":
        this.#host.note("agent", "is told to cancel", message.command);
        this.#happen({ event: "cancel", id: message.command });
        break;
      case "pause":
        this.#host.note("agent", `is told to ${message.paused ? "pause" : "resume"}`, message.command);
        this.#happen({ event: "pausing", id: message.command, paused: message.paused });
        break;
      case "probe":
        this.#send(link, { t: "proof", nonce: message.nonce });
        break;
    }
  }

  #beat(link: Link): void {
    if (this.#link !== link) return;
    const { machine } = this.#host;
    if (machine.monotonic() - link.heardAt > 2.5 * link.heartbeatMs) {
      this.#close(link, 4000);
      return;
    }
    this.#send(link, {
      t: "heartbeat",
      operations: [...this.state.open.values()].filter(({ state }) => !isTerminal(state)).length,
    });
    this.#after(link.heartbeatMs, () => this.#beat(link));
  }

  #close(link: Link, code: number): void {
    link.wire.close(0, code);
    this.#closed(link, code, true);
  }

  /** Faults: this side forgets the connection, and the other one is not told. */
  forget(): void {
    const link = this.#link;
    if (link === undefined) return;
    link.wire.vanish(0);
    this.#closed(link, abnormal, false);
  }

  #closed(link: Link, code: number, ours: boolean): void {
    if (this.#link !== link) return;
    this.#link = undefined;
    this.#keyWanted = true;
    this.#backoff.sessionEnded(this.#host.machine.monotonic() - link.since);
    this.#host.note("agent", `is disconnected (${code})`);
    if (link.welcomed) this.#happen({ event: "link", link: "down" });
    this.#redial({ code, reconnectWindowMs: link.reconnectWindowMs, ours });
  }

  #pump(): void {
    const link = this.#link;
    if (link === undefined || !link.welcomed || link.pumping) return;
    const gaps = this.samples.takeGaps();
    for (const gap of gaps) {
      this.outbox.commit([{ change: "record", body: { type: "gap", ...gap } }], this.#host.machine.wall());
      this.#host.observeGap(gap);
    }
    if (gaps.length > 0) {
      link.pumping = true;
      this.outbox.synced(() => {
        link.pumping = false;
        this.#pump();
      });
      return;
    }
    const { credit } = link;
    const room = () => link.wire.buffered(0) < limits.socketBufferBytesMax / 2;
    while (room()) {
      const [record] = this.outbox.after(link.sentRecord, recordsAtOnce);
      if (record === undefined || !credit!.allows("record", record.bytes)) break;
      credit!.sent("record", record.seq, record.bytes);
      this.#host.observeTold(record);
      this.#send(link, { t: "record", ...record }, record.bytes);
      link.sentRecord = record.seq;
    }
    for (let batch = this.samples.peek(); batch !== undefined && room(); batch = this.samples.peek()) {
      if (!credit!.allows("sample", batch.data.length)) break;
      this.samples.take();
      credit!.sent("sample", batch.seq, batch.data.length);
      this.#send(link, { t: "batch", seq: batch.seq, key: batch.key }, batch.data.length);
    }
    if (room()) return;
    link.pumping = true;
    this.#after(roomPauseMs, () => {
      link.pumping = false;
      this.#pump();
    });
  }

  #sample(): void {
    const key = this.#keyWanted || this.#batches % keyFrameEvery === 0;
    this.#keyWanted = false;
    this.#batches += 1;
    const bytes = this.#host.random.between(100, 1_000);
    this.samples.add({ at: this.#host.machine.wall(), key, dictionary: 1, data: new Uint8Array(bytes) });
    this.#host.observeQueues(this);
    this.#pump();
    this.#after(sampleMs, () => this.#sample());
  }
}
