// One authenticated agent: its records, readings, heartbeats and progress come in, acknowledgements, offers and cancels go out.
import type { CloseName } from "../../protocol/codes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import {
  type AgentMessage,
  type ControllerMessage,
  type RecordBody,
  subprotocol,
} from "../../protocol/messages.ts";
import type { ProgressBoard } from "../commands/progress.ts";
import type { Log } from "../log.ts";
import type { RecordAnswer, Store } from "../store/store.ts";
import type { Clock } from "../system.ts";
import {
  type BatchMessage,
  type DictionaryMessage,
  type LiveTelemetry,
  Readings,
} from "../telemetry/live.ts";
import type { LateWriter } from "../telemetry/writer.ts";
import type { Channel, Received } from "./channel.ts";
import { jsonSafe } from "./json-safe.ts";
import type { LinkMeters } from "./meters.ts";

type RecordMessage = Extract<AgentMessage, { t: "record" }>;

export interface SessionParts {
  readonly store: Store;
  readonly writer: LateWriter;
  readonly live: LiveTelemetry;
  readonly progress: ProgressBoard;
  readonly meters: LinkMeters;
  readonly clock: Clock;
  readonly log: Log;
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
  readonly #channel: Channel;
  readonly #parts: SessionParts;
  readonly #readings = new Readings();
  readonly #queue: Received[] = [];
  #queueBytes = 0;
  #working = false;
  #welcomed = false;
  /** The highest record and batch that are stored. */
  #marks = { records: 0, samples: 0 };
  /** The highest batch handed to the writer. */
  #batchesTaken = 0;
  #dictionaryNumber = 0;
  #unacknowledged = 0;
  #ackTimer: Disposable | undefined;
  #slowSinceMs: number | undefined;

  constructor(
    channel: Channel,
    identity: { id: string; host: string; instance: string; authority: string },
    parts: SessionParts,
  ) {
    this.#channel = channel;
    this.#parts = parts;
    this.id = identity.id;
    this.host = identity.host;
    this.instance = identity.instance;
    this.authority = identity.authority;
  }

  /** Heard lately, by the heartbeat's measure. */
  get alive(): boolean {
    return !this.#channel.closing && this.#channel.silentMs < deadAfterIntervals * this.#parts.heartbeatMs;
  }

  get closing(): boolean {
    return this.#channel.closing;
  }

  /** Whether more may be sent now without piling up. */
  get writable(): boolean {
    return (
      this.#welcomed && !this.#channel.closing && this.#channel.bufferedBytes < limits.socketBufferBytesMax
    );
  }

  /** Begins the session: from now on messages come and go. The agent sends none before it, so none is missed. */
  welcome(message: Extract<ControllerMessage, { t: "welcome" }>): void {
    this.#marks = { records: message.records, samples: message.samples };
    this.#batchesTaken = message.samples;
    this.#channel.deliver((received) => this.#enqueue(received));
    this.#channel.trust();
    this.#channel.send(message);
    this.#welcomed = true;
  }

  /** Resolves when the connection has ended. */
  async run(): Promise<void> {
    using _watch = this.#parts.clock.every(Math.min(1000, this.#parts.heartbeatMs / 2), () => this.#watch());
    await this.#channel.ended;
    this.#ackTimer?.[Symbol.dispose]();
    this.#queue.length = 0;
  }

  send(message: ControllerMessage, sent?: () => void): "sent" | "closed" {
    return this.#channel.send(message, sent);
  }

  close(name: CloseName, reason: string, reconnectWindowMs?: number): void {
    this.#channel.close(name, reason, reconnectWindowMs);
  }

  #enqueue(received: Received): void {
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
      case "goaway":
        return this.#channel.close("bye", `the agent said goodbye: ${message.reason}`);
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

  async #records(messages: readonly RecordMessage[]): Promise<void> {
    const at = this.#parts.clock.now();
    const { host, instance } = this;
    const applied = messages.map(async ({ seq, body }) => {
      const safe = jsonSafe(body);
      return {
        seq,
        body: safe,
        answer: await this.#parts.store.records.apply({ host, instance, seq, body: safe, at }),
      };
    });
    for (const record of await Promise.all(applied)) this.#recorded(record);
  }

  #recorded({ seq, body, answer }: { seq: number; body: RecordBody; answer: RecordAnswer }): void {
    if (answer.status === "hole") {
      throw new BedplateError("message.unexpected", `Record ${seq} came, record ${answer.mark + 1} did not.`);
    }
    if (answer.lost !== undefined)
      this.#parts.log.warn(
        { host: this.host, record: seq, lost: answer.lost },
        "records that the host delivered after the backup was made are lost",
      );
    if (answer.ignored !== undefined)
      this.#parts.log.warn({ host: this.host, record: seq }, `a record has no effect: ${answer.ignored}`);
    if (body.type === "result" || body.type === "refused") {
      this.#parts.progress.delete(body.command);
      // Ended: it is offered no more, and needs no remembering. Only what is this host's was ever in here.
      this.offered.delete(body.command);
      this.cancelled.delete(body.command);
    }
    this.#parts.meters.records += 1;
    this.#marks.records = answer.mark;
    this.#acknowledgeSoon();
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
      return;
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

  #progress(message: Extract<AgentMessage, { t: "progress" }>): void {
    // Only of what this host was offered: no host speaks for another's command.
    if (!this.offered.has(message.command)) return;
    this.#parts.progress.set(message.command, message.progress);
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
    if (this.#channel.silentMs > deadAfterIntervals * this.#parts.heartbeatMs) {
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
