// The simulated controller: sessions, offers, records and acknowledgements around the product's rules, over a store that
// commits first and syncs later.

import type { contest as contestRule } from "../../controller/link/contest.ts";
import type { CommandEvent } from "../../controller/rules/reduce.ts";
import { decodeCommand } from "../../protocol/commands.ts";
import { limits } from "../../protocol/limits.ts";
import type { Checker } from "./checker.ts";
import {
  applied,
  type ControllerState,
  connected,
  created,
  offersDue,
  recordTaken,
  samplesTaken,
  withCommand,
} from "./controller-store.ts";
import type { History } from "./history.ts";
import type { Machine, Program } from "./machine.ts";
import { type AgentWord, type ControllerWord, sizes } from "./messages.ts";
import type { WaitingRecord } from "./outbox.ts";
import type { Random } from "./random.ts";
import type { Rules } from "./rules.ts";
import type { Store } from "./store.ts";
import { abnormal, type End, type Path, Wire } from "./wire.ts";

const heartbeatMs = 15_000;
const reconnectWindowMs = 5_000;
const creditBytes = 1 << 20;
const answerMsMax = 5_000;
const retryMs = 1_000;
const ackDelayMs = 50;
const unacknowledgedMax = 64;
const protocolClose = 4400;
const replacedClose = 4002;
const quarantineClose = 4003;

interface Session {
  readonly id: string;
  readonly wire: Wire;
  readonly host: string;
  readonly instance: string;
  readonly bootId: string;
  welcomed: boolean;
  closed: boolean;
  heardAt: number;
  /** Of the next record. */
  place: "first" | "later";
  readonly offered: Map<string, number>;
  readonly cancelled: Set<string>;
  readonly paused: Map<string, boolean>;
  serving: "idle" | "serving" | "again";
  waits: boolean;
  readonly inbox: AgentWord[];
  working: boolean;
  marks: { records: number; samples: number };
  batchesTaken: number;
  unacknowledged: number;
  ackPlanned: boolean;
  probed: ((answered: boolean) => void) | undefined;
  /** Of the newest probe. */
  nonce: number;
}

export interface ControllerParts {
  readonly machine: Machine;
  readonly store: Store<ControllerState>;
  readonly rules: Rules;
  readonly random: Random;
  readonly history: History;
  readonly checker: Checker;
  /** Names of sessions, over all lives of the controller. */
  sessionName(): string;
  died(): void;
}

/** One life of the controller's process. */
export class SimController implements Program {
  readonly name = "controller";
  alive = true;
  readonly #parts: ControllerParts;
  readonly #sessions = new Map<string, Session>();
  readonly #wires = new Set<Session>();
  readonly #turns = new Map<string, (() => void)[]>();

  constructor(parts: ControllerParts) {
    this.#parts = parts;
    parts.machine.runs(this);
    this.#note(`starts, epoch ${this.#state.epoch}`);
    this.#every(1_000, () => this.#watch());
    this.#every(retryMs, () => this.#serveWaiting());
  }

  died(how: "kill" | "power-cut"): void {
    for (const { wire } of this.#wires) {
      if (how === "kill") wire.close(1, abnormal);
      else wire.vanish(1);
    }
    if (how === "kill") this.#parts.died();
  }

  get #state(): ControllerState {
    return this.#parts.store.state;
  }

  #note(what: string, command?: string): void {
    this.#parts.history.note("controller", what, command);
  }

  #after(ms: number, work: () => void): void {
    this.#parts.machine.world.after(ms, this, work);
  }

  #every(ms: number, work: () => void): void {
    this.#after(ms, () => {
      work();
      this.#every(ms, work);
    });
  }

  get #now(): number {
    return this.#parts.machine.monotonic();
  }

  /** Commits, and calls back when it is durable: until then nobody is told. */
  #transact(state: ControllerState, done: () => void): void {
    const { store, rules } = this.#parts;
    if (state !== store.state) store.commit(this, state);
    if (rules.shell.controllerWaitsForSync) store.sync(this, done);
    else this.#after(0, done);
  }

  // ---- the API

  submit(
    document: Uint8Array,
    signaturesWanted: number,
    answer: (status: "created" | "known") => void,
  ): void {
    const command = decodeCommand(document);
    const { rules, machine } = this.#parts;
    const known = this.#state.commands.has(command.id);
    const state = known
      ? this.#state
      : created(rules, this.#state, { command, document, signaturesWanted }, machine.wall());
    this.#transact(state, () => {
      if (!known) this.#note("takes the command", command.id);
      answer(known ? "known" : "created");
      this.#wake(command.host);
    });
  }

  sign(id: string, answer: () => void): void {
    const command = this.#state.commands.get(id);
    if (command === undefined || command.state !== "waiting") return void this.#after(0, answer);
    this.#transact(withCommand(this.#state, { ...command, signatures: 1 }), () => {
      answer();
      this.#wake(command.host);
    });
  }

  ask(id: string, event: CommandEvent, answer: (found: boolean) => void): void {
    const command = this.#state.commands.get(id);
    if (command === undefined) return void this.#after(0, () => answer(false));
    const { rules, machine } = this.#parts;
    this.#transact(applied(rules, this.#state, id, event, machine.wall()), () => {
      const now = this.#state.commands.get(id);
      this.#note(`${event.type}: ${now?.state}`, id);
      if (now !== undefined) this.#parts.checker.told(now);
      answer(true);
      this.#wake(command.host);
    });
  }

  // ---- connections

  accept(agent: End, path: Path): Wire {
    const { machine } = this.#parts;
    const session: Session = {
      id: this.#parts.sessionName(),
      ...{ host: "", instance: "", bootId: "", welcomed: false, closed: false, heardAt: this.#now },
      ...{
        place: "first",
        offered: new Map(),
        ...{ cancelled: new Set(), paused: new Map() },
        serving: "idle",
        waits: false,
        inbox: [],
        working: false,
      },
      ...{ marks: { records: 0, samples: 0 }, batchesTaken: 0, unacknowledged: 0, ackPlanned: false },
      probed: undefined,
      nonce: 0,
      wire: new Wire(machine.world, path, [
        agent,
        {
          process: this,
          onMessage: (message) => this.#heard(session, message as AgentWord),
          onClose: () => this.#ended(session),
        },
      ]),
    };
    this.#wires.add(session);
    return session.wire;
  }

  #send(session: Session, word: ControllerWord, bytes: number = sizes.small): void {
    session.wire.send(1, word, bytes);
  }

  #close(session: Session, code: number, why: string): void {
    if (session.closed) return;
    this.#note(`closes the session of host-${session.host[0]}: ${why}`);
    session.wire.close(1, code);
    this.#ended(session);
  }

  /** A fault: this side forgets the connection, and the other one is not told. */
  forget(host: string): void {
    const session = this.#sessions.get(host);
    if (session === undefined) return;
    session.wire.vanish(1);
    this.#ended(session);
  }

  #ended(session: Session): void {
    session.closed = true;
    session.inbox.length = 0;
    session.probed?.(false);
    this.#wires.delete(session);
    if (this.#sessions.get(session.host) === session) this.#sessions.delete(session.host);
  }

  #heard(session: Session, word: AgentWord): void {
    if (session.closed) return;
    session.heardAt = this.#now;
    switch (word.t) {
      case "hello":
        Object.assign(session, { host: word.host, instance: word.instance, bootId: word.bootId });
        this.#admit(session, word.previousSession);
        break;
      case "proof":
        // A late answer to an earlier question is no answer to this one.
        if (word.nonce === session.nonce) session.probed?.(true);
        break;
      default:
        session.inbox.push(word);
        this.#work(session);
    }
  }

  #alive(session: Session): boolean {
    return !session.closed && this.#now - session.heardAt < 2.5 * heartbeatMs;
  }

  // One after the other for each host, as duplicates.ts does it.
  #admit(session: Session, previousSession: string | undefined): void {
    const turns = this.#turns.get(session.host);
    const mine = () => this.#judge(session, previousSession, () => this.#nextTurn(session.host));
    if (turns !== undefined) {
      turns.push(mine);
      return;
    }
    this.#turns.set(session.host, []);
    mine();
  }

  #nextTurn(host: string): void {
    const next = this.#turns.get(host)?.shift();
    if (next === undefined) this.#turns.delete(host);
    else next();
  }

  #judge(session: Session, previousSession: string | undefined, settled: () => void): void {
    const { rules } = this.#parts;
    const present = this.#sessions.get(session.host);
    const attach = () => {
      if (!session.closed) this.#attach(session);
      settled();
    };
    if (present === undefined) return void attach();
    const contenderOf = ({ id, instance, bootId }: Session) => ({ session: id, instance, bootId });
    const verdict: ReturnType<typeof contestRule> = rules.controller.contest(
      { ...contenderOf(present), alive: this.#alive(present) },
      { ...contenderOf(session), previousSession },
    );
    if (verdict === "supersede") return void attach();
    this.#note(`probes host-${session.host[0]}: two connections`);
    const answers: { present?: boolean; newcomer?: boolean } = {};
    const answered = (who: "present" | "newcomer") => (value: boolean) => {
      answers[who] ??= value;
      if (answers.present === undefined || answers.newcomer === undefined) return;
      present.probed = undefined;
      session.probed = undefined;
      switch (rules.controller.verdictOf({ present: answers.present, newcomer: answers.newcomer })) {
        case "newcomer":
          return attach();
        case "present":
          this.#close(session, 4000, "it does not answer");
          return settled();
        case "both":
          this.#parts.checker.quarantined(session.host);
          this.#close(session, quarantineClose, "two machines have its key");
          return settled();
      }
    };
    for (const [who, each] of [
      ["present", present],
      ["newcomer", session],
    ] as const) {
      const answer = answered(who);
      let done = false;
      each.probed = (value) => {
        if (done) return;
        done = true;
        this.#after(0, () => answer(value));
      };
      this.#after(answerMsMax, () => each.probed?.(false));
      if (each.closed) each.probed(false);
      else {
        each.nonce += 1;
        this.#send(each, { t: "probe", nonce: each.nonce });
      }
    }
  }

  #attach(session: Session): void {
    const before = this.#sessions.get(session.host);
    this.#sessions.set(session.host, session);
    if (before !== undefined) this.#close(before, replacedClose, "a newer connection took over");
    this.#transact(connected(this.#state, session.host, session.instance), () => {
      if (session.closed) return;
      const row = this.#state.hosts.get(session.host)!;
      const { records, samples } = row.outboxes.get(session.instance)!;
      session.marks = { records, samples };
      session.batchesTaken = samples;
      session.welcomed = true;
      this.#send(session, {
        t: "welcome",
        session: session.id,
        epoch: this.#state.epoch,
        ...{ records, samples, heartbeatMs, reconnectWindowMs, creditBytes },
      });
      this.#serve(session);
    });
  }

  #watch(): void {
    for (const session of this.#sessions.values())
      if (!this.#alive(session)) this.#close(session, 4000, "nothing was heard of it");
    const { rules, machine } = this.#parts;
    let state = this.#state;
    for (const { id, state: now, notAfter, signatures, signaturesWanted } of state.commands.values()) {
      if (now !== "waiting" || notAfter === null || notAfter >= machine.wall()) continue;
      const missing = Math.max(0, signaturesWanted - signatures);
      state = applied(rules, state, id, { type: "expire", missing }, machine.wall());
    }
    if (state !== this.#state) this.#transact(state, () => {});
  }

  // ---- offers

  #wake(host: string): void {
    const session = this.#sessions.get(host);
    if (session !== undefined) this.#serve(session);
  }

  #serveWaiting(): void {
    for (const session of this.#sessions.values()) if (session.waits) this.#serve(session);
  }

  #serve(session: Session): void {
    if (session.serving !== "idle") {
      session.serving = "again";
      return;
    }
    if (session.closed || !session.welcomed) return;
    session.waits = session.wire.buffered(1) >= limits.socketBufferBytesMax;
    if (session.waits) return;
    session.serving = "serving";
    const { rules, machine } = this.#parts;
    const { state, steps, rest } = offersDue(
      rules,
      this.#state,
      session.host,
      session,
      this.#now,
      machine.wall(),
    );
    const { epoch } = state;
    const offers = steps.map(({ step, id }) => ({ step, command: state.commands.get(id)! }));
    this.#transact(state, () => {
      const again = session.serving === "again";
      session.serving = "idle";
      for (const { step, command } of offers) {
        if (step === "pause" || step === "resume") {
          const paused = step === "pause";
          session.paused.set(command.id, paused);
          this.#send(session, { t: "pause", command: command.id, paused });
          continue;
        }
        if (step !== "offer") {
          session.cancelled.add(command.id);
          this.#send(session, { t: "cancel", command: command.id });
          continue;
        }
        session.offered.set(command.id, this.#now);
        this.#note(`offers generation ${command.generation} of epoch ${epoch}`, command.id);
        const { document, generation } = command;
        const offer = { document, signatures: [], generation: generation ?? 0, epoch, sources: [] };
        this.#send(session, { t: "offer", offer }, document.length);
      }
      session.waits ||= rest === "in-flight";
      if (again || rest === "next-round") this.#serve(session);
    });
  }

  // ---- what agents tell

  // One message at a time, in order; records that came together wait for one sync together.
  #work(session: Session): void {
    if (session.working || session.closed) return;
    const first = session.inbox.shift();
    if (first === undefined) return;
    if (first.t === "heartbeat") {
      this.#send(session, { t: "heartbeat" });
      return void this.#work(session);
    }
    session.working = true;
    const done = () => {
      session.working = false;
      this.#acknowledgeSoon(session);
      this.#work(session);
    };
    if (first.t === "batch") return void this.#batch(session, first.seq, done);
    if (first.t !== "record") return;
    const records: WaitingRecord[] = [first];
    while (session.inbox[0]?.t === "record")
      records.push(session.inbox.shift() as WaitingRecord & { t: "record" });
    this.#records(session, records, done);
  }

  #batch(session: Session, seq: number, done: () => void): void {
    if (seq <= session.batchesTaken) return void this.#after(0, done);
    session.batchesTaken = seq;
    this.#transact(samplesTaken(this.#state, session, seq), () => {
      session.marks.samples = Math.max(session.marks.samples, seq);
      done();
    });
  }

  #records(session: Session, records: readonly WaitingRecord[], done: () => void): void {
    const { rules, machine, checker } = this.#parts;
    let state = this.#state;
    let mark = session.marks.records;
    for (const record of records) {
      const taken = recordTaken(rules, state, session, record, session.place, machine.wall());
      session.place = "later";
      if (taken.status === "hole") {
        checker.hole(session.host, record, taken.mark);
        this.#transact(state, () => {});
        return void this.#close(
          session,
          protocolClose,
          `record ${record.seq} came, ${taken.mark + 1} did not`,
        );
      }
      state = taken.state;
      mark = taken.mark;
    }
    this.#transact(state, () => {
      for (const { body } of records) {
        const command = "command" in body ? this.#state.commands.get(body.command) : undefined;
        if (command !== undefined) checker.told(command);
        if (body.type !== "result" && body.type !== "refused") continue;
        session.offered.delete(body.command);
        session.cancelled.delete(body.command);
        session.paused.delete(body.command);
      }
      session.marks.records = mark;
      session.unacknowledged += records.length;
      done();
    });
  }

  #acknowledgeSoon(session: Session): void {
    if (session.ackPlanned) return;
    session.ackPlanned = true;
    this.#after(session.unacknowledged >= unacknowledgedMax ? 0 : ackDelayMs, () => {
      session.ackPlanned = false;
      session.unacknowledged = 0;
      this.#send(session, { t: "ack", ...session.marks });
    });
  }
}
