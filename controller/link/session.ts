// One authenticated agent: its records, readings, heartbeats and progress come in, acknowledgements, offers and cancels go out.
import type { CloseName } from "../../protocol/codes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import { type AgentMessage, type ControllerMessage, subprotocol } from "../../protocol/messages.ts";
import type { SigningKey } from "../../protocol/ssh-sign.ts";
import type { Authority } from "../authority/authority.ts";
import type { Log } from "../machine/log.ts";
import type { Clock, Random } from "../machine/system.ts";
import type { StoredHost } from "../store/host-store.ts";
import type { Store } from "../store/store.ts";
import {
  type BatchMessage,
  type DictionaryMessage,
  type LiveTelemetry,
  Readings,
} from "../telemetry/live.ts";
import { knownProgress, type ProgressBoard } from "../telemetry/progress.ts";
import type { LateWriter } from "../telemetry/writer.ts";
import type { Channel, Received } from "./channel.ts";
import type { Contender } from "./contest.ts";
import type { LinkMeters } from "./meters.ts";
import { Probe } from "./probe.ts";
import { RecordIntake, type RecordMessage } from "./record-intake.ts";
import { Voucher } from "./voucher.ts";

export type WelcomeMessage = Extract<ControllerMessage, { t: "welcome" }>;

export interface SessionParts {
  readonly store: Store;
  readonly writer: LateWriter;
  readonly live: LiveTelemetry;
  readonly progress: ProgressBoard;
  readonly meters: LinkMeters;
  readonly auditKey: SigningKey;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface SessionIdentity {
  readonly id: string;
  readonly host: Pick<StoredHost, "id" | "linkKey" | "authority">;
  readonly instance: string;
  readonly bootId: string;
  /** How the agent reached us, see `Session.authority`. */
  readonly authority: string;
  readonly heartbeatMs: number;
}

/** Messages and bytes that may wait to be handled before the socket is no longer read. */
const inbox = { messagesMax: 64, bytesMax: limits.frameBytesMax } as const;
/** An acknowledgement goes out after so many messages, or after `ackDelayMs`. */
const unacknowledgedMax = 64;
const ackDelayMs = 50;
/** How long a peer may leave more than the socket's buffer unread. */
const slowConsumerMs = 30_000;
const deadAfterIntervals = 2.5;

export class Session {
  readonly id: string;
  readonly host: string;
  readonly instance: string;
  /** Host and port as the agent dialled us: how this controller is reached from there. */
  readonly authority: string;
  /** The open commands that this session was offered, with the moment of each (monotonic), and told to cancel. */
  readonly offered = new Map<string, number>();
  readonly cancelled = new Set<string>();
  /** Of those that were ever paused: what it was told last. */
  readonly paused = new Map<string, boolean>();
  readonly contender: Contender;
  /** Where it comes from. */
  readonly address: string;
  readonly heartbeatMs: number;
  readonly #channel: Channel;
  readonly #parts: SessionParts;
  readonly #probe: Probe;
  readonly #voucher: Voucher;
  readonly #intake: RecordIntake;
  /** What the agent is known to have confirmed, see `StoredHost.authority`. */
  #authorityKnown: string;
  readonly #authorityTold = new Map<string, PromiseWithResolvers<void>>();
  #welcomeSent: WelcomeMessage | undefined;
  readonly #readings = new Readings();
  readonly #queue: Received[] = [];
  #queueBytes = 0;
  #working = false;
  /** The highest record and batch that are stored. */
  #marks = { records: 0, samples: 0 };
  /** The highest batch handed to the writer. */
  #batchesTaken = 0;
  #dictionaryNumber = 0;
  #unacknowledged = 0;
  #ackTimer: Disposable | undefined;
  #slowSinceMs: number | undefined;

  constructor(channel: Channel, identity: SessionIdentity, parts: SessionParts) {
    const { host } = identity;
    this.#channel = channel;
    this.#parts = parts;
    this.id = identity.id;
    this.host = host.id;
    this.instance = identity.instance;
    this.contender = { session: identity.id, instance: identity.instance, bootId: identity.bootId };
    this.authority = identity.authority;
    this.address = channel.address;
    this.heartbeatMs = identity.heartbeatMs;
    this.#authorityKnown = host.authority;
    this.#probe = new Probe(channel, { linkKey: host.linkKey, clock: parts.clock, random: parts.random });
    this.#voucher = new Voucher({ host: host.id, linkKey: host.linkKey, auditKey: parts.auditKey });
    this.#intake = new RecordIntake({
      ...{ host: host.id, instance: identity.instance, voucher: this.#voucher },
      ...{ records: parts.store.records, clock: parts.clock, log: parts.log },
    });
    // Before its welcome an agent has nothing to say but the answer to a probe.
    channel.deliver((received) => this.#enqueue(received));
  }

  /** Heard lately, by the heartbeat's measure. */
  get alive(): boolean {
    return !this.#channel.closing && this.#channel.silentMs < deadAfterIntervals * this.heartbeatMs;
  }

  get closing(): boolean {
    return this.#channel.closing;
  }

  /** Whether more may be sent now without piling up. */
  get writable(): boolean {
    return (
      this.#welcomeSent !== undefined &&
      !this.#channel.closing &&
      this.#channel.bufferedBytes < limits.socketBufferBytesMax
    );
  }

  /**
   * Begins the session: from now on messages come and go.
   * @param attestationKey as stored now; the session before may have told another since this one proved itself
   */
  welcome(message: WelcomeMessage, attestationKey: string | undefined): void {
    this.#voucher.attestationKey = attestationKey;
    this.#marks = { records: message.records, samples: message.samples };
    this.#batchesTaken = message.samples;
    this.#channel.trust();
    this.#channel.send(message);
    this.#welcomeSent = message;
  }

  /** Tells the agent what is different from its welcome: it is said again, whole. */
  changed(more: Pick<WelcomeMessage, "standing">): void {
    const said = this.#welcomeSent;
    if (said === undefined || (more.standing ?? said.standing) === said.standing) return;
    this.#welcomeSent = { ...said, ...more };
    this.#channel.send({ ...this.#welcomeSent, ...this.#marks, at: this.#parts.clock.now() });
  }

  /** Asks for a fresh proof of the key. Whether it came in time. */
  probe(): Promise<boolean> {
    return this.#probe.ask();
  }

  /** Tells the agent which authorities to trust from now on; resolves when it is noted that the agent does, or at its end. */
  async tellAuthority({ trustedPem, caSha256 }: Authority): Promise<void> {
    if (this.#welcomeSent === undefined || this.send({ t: "authority", ca: trustedPem }) === "closed") return;
    if (this.#authorityKnown === caSha256) return;
    const told = this.#authorityTold.get(caSha256) ?? Promise.withResolvers<void>();
    this.#authorityTold.set(caSha256, told);
    await told.promise;
  }

  /** Resolves when the connection has ended. */
  async run(): Promise<void> {
    using _watch = this.#parts.clock.every(Math.min(1000, this.heartbeatMs / 2), () => this.#watch());
    await this.#channel.ended;
    this.#ackTimer?.[Symbol.dispose]();
    this.#queue.length = 0;
    for (const { resolve } of this.#authorityTold.values()) resolve();
  }

  send(message: ControllerMessage, sent?: () => void): "sent" | "closed" {
    return this.#channel.send(message, sent);
  }

  close(name: CloseName, reason: string, reconnectWindowMs?: number): void {
    this.#channel.close(name, reason, reconnectWindowMs);
  }

  #enqueue(received: Received): void {
    const { message } = received;
    // Past the queue: whoever has much to be stored must not seem to be gone.
    if (message.t === "proof")
      return void this.#probe.answered(message).catch((error) => this.#channel.fail(error));
    if (this.#welcomeSent === undefined)
      throw new BedplateError("message.unexpected", `A message "${message.t}" came before the welcome.`);
    this.#queue.push(received);
    this.#queueBytes += received.bytes.length;
    if (this.#queue.length >= inbox.messagesMax || this.#queueBytes >= inbox.bytesMax) this.#channel.pause();
    if (!this.#working) void this.#work();
  }

  // One message at a time, in order. Never rejects.
  async #work(): Promise<void> {
    this.#working = true;
    // What came in the same piece of the stream is all in the queue before the first of it is handled.
    await Promise.resolve();
    try {
      for (let next = this.#next(); next !== undefined && !this.#channel.closing; next = this.#next()) {
        const records = [next.message];
        while (next.message.t === "record" && this.#queue[0]?.message.t === "record")
          records.push(this.#next()!.message);
        // Records that came together wait for one sync of the disk together.
        if (next.message.t === "record") await this.#records(records.filter((each) => each.t === "record"));
        else await this.#handle(next);
      }
    } catch (error) {
      this.#channel.fail(error);
    } finally {
      this.#working = false;
      if (!this.#channel.closing) this.#channel.resume();
    }
  }

  #next(): Received | undefined {
    const received = this.#queue.shift();
    if (received !== undefined) this.#queueBytes -= received.bytes.length;
    return received;
  }

  #handle({ message, bytes }: Received): Promise<void> | void {
    switch (message.t) {
      case "heartbeat":
        return this.#heartbeat(message);
      case "record":
        return this.#records([message]);
      case "dictionary":
        return this.#dictionary(message, bytes);
      case "batch":
        return this.#batch(message, bytes);
      case "progress":
        return this.#progress(message);
      case "trusts":
        return this.#trusts(message.authorities);
      case "goaway":
        return this.#channel.close("bye", `the agent said goodbye: ${message.reason}`);
      case "proof":
      case "hello":
      case "auth":
        throw new BedplateError(
          "message.unexpected",
          `A message "${message.t}" came after the welcome of ${subprotocol}.`,
        );
    }
  }

  #heartbeat(message: Extract<AgentMessage, { t: "heartbeat" }>): void {
    const at = this.#parts.clock.now();
    this.#parts.writer.seen({ host: this.host, at, clockOffsetMs: at - message.at });
    this.#channel.send({ t: "heartbeat", at });
  }

  // What nobody told it of in this session says nothing.
  async #trusts(authorities: readonly string[]): Promise<void> {
    for (const [sha256, told] of this.#authorityTold) {
      if (!authorities.includes(sha256)) continue;
      await this.#parts.store.hosts.knowsAuthority(this.host, sha256);
      this.#authorityKnown = sha256;
      this.#authorityTold.delete(sha256);
      told.resolve();
    }
  }

  async #records(messages: readonly RecordMessage[]): Promise<void> {
    for (const { mark, body, countersigned } of await this.#intake.take(messages)) {
      if (body.type === "result" || body.type === "refused") {
        this.#parts.progress.delete(body.command);
        // Ended: it is offered no more, and needs no remembering. Only what is this host's was ever in here.
        this.offered.delete(body.command);
        this.cancelled.delete(body.command);
        this.paused.delete(body.command);
      }
      if (countersigned !== undefined) this.#channel.send({ t: "audit-head", ...countersigned });
      this.#parts.meters.records += 1;
      this.#marks.records = mark;
      this.#acknowledgeSoon();
    }
  }

  async #dictionary(message: DictionaryMessage, bytes: Uint8Array): Promise<void> {
    this.#dictionaryNumber = await this.#parts.store.telemetry.dictionary(
      this.host,
      bytes,
      message.series.length,
      this.#parts.clock.now(),
    );
    this.#readings.setDictionary(message);
    this.#parts.live.changed(this.host, this.#readings, "dictionary");
  }

  async #batch(message: BatchMessage, bytes: Uint8Array): Promise<void> {
    if (this.#readings.apply(message) === "dropped") {
      // It could never be read again, here or from the store: better the agent's next key frame than a riddle kept.
      this.#parts.meters.batchesDropped += 1;
      return this.#passOver(message.seq);
    }
    this.#parts.meters.batches += 1;
    const at = this.#parts.clock.now();
    this.#parts.writer.seen({ host: this.host, at, clockOffsetMs: null });
    this.#parts.live.changed(this.host, this.#readings, "sample");
    if (message.seq <= this.#batchesTaken) return this.#acknowledgeSoon();
    this.#batchesTaken = message.seq;
    const { host, instance } = this;
    await this.#parts.writer.add(
      { host, instance, seq: message.seq, at, dictionary: this.#dictionaryNumber, frame: bytes },
      (error) => {
        if (error !== undefined) return this.#channel.fail(error);
        this.#marks.samples = Math.max(this.#marks.samples, message.seq);
        this.#acknowledgeSoon();
      },
    );
  }

  // Acknowledged like one that is stored, in its turn: the agent's credit is for what is still on its way.
  #passOver(seq: number): void {
    void this.#parts.writer.settled(this.host).then(() => {
      this.#marks.samples = Math.max(this.#marks.samples, seq);
      this.#acknowledgeSoon();
    });
  }

  #progress(message: Extract<AgentMessage, { t: "progress" }>): void {
    // Only of what this host was offered: no host speaks for another's command.
    if (!this.offered.has(message.command)) return;
    this.#parts.progress.set(message.command, knownProgress(message.progress));
    this.#parts.writer.progressed(message.command);
  }

  #acknowledgeSoon(): void {
    this.#unacknowledged += 1;
    if (this.#unacknowledged >= unacknowledgedMax) this.#acknowledge();
    else this.#ackTimer ??= this.#parts.clock.after(ackDelayMs, () => this.#acknowledge());
  }

  #acknowledge(): void {
    this.#ackTimer?.[Symbol.dispose]();
    this.#ackTimer = undefined;
    this.#unacknowledged = 0;
    this.#channel.send({ t: "ack", ...this.#marks });
  }

  #watch(): void {
    if (this.#channel.silentMs > deadAfterIntervals * this.heartbeatMs) {
      this.close("silent", `nothing was heard for ${Math.round(this.#channel.silentMs)} ms`);
      return;
    }
    if (this.#channel.bufferedBytes <= limits.socketBufferBytesMax) {
      this.#slowSinceMs = undefined;
      return;
    }
    const nowMs = this.#parts.clock.monotonicMs();
    this.#slowSinceMs ??= nowMs;
    if (nowMs - this.#slowSinceMs >= slowConsumerMs)
      this.close("slowConsumer", "the peer does not read what it is sent");
  }
}
