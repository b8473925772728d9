// One authenticated connection: sends what waits by priority, hands on what arrives, and notices a dead peer.
import Type from "typebox";
import { Check } from "typebox/value";
import type { AuditHead } from "../../protocol/audit.ts";
import { textOf } from "../../protocol/bytes.ts";
import { isTerminal, type OperationState } from "../../protocol/commands.ts";
import { BedplateError, reportOf } from "../../protocol/errors.ts";
import { encodeFrame } from "../../protocol/frames.ts";
import { limits } from "../../protocol/limits.ts";
import type { AgentMessage, ControllerMessage } from "../../protocol/messages.ts";
import { CommandId } from "../../protocol/schema.ts";
import type { Clock } from "../host/clock.ts";
import type { Log } from "../host/log.ts";
import type { Bell } from "./bell.ts";
import { type Credit, createCredit } from "./credit.ts";
import { answerProbe, type Welcome } from "./handshake.ts";
import type { HostKeys } from "./keys.ts";
import { isDiskFull, type Outbox } from "./outbox.ts";
import type { Gap, SampleQueue } from "./sample-queue.ts";
import type { Closed, LinkSocket } from "./socket.ts";

export type Offer = Extract<ControllerMessage, { t: "offer" }>;
export type Dictionary = Extract<AgentMessage, { t: "dictionary" }>;
export type ProgressMessage = Extract<AgentMessage, { t: "progress" }>;

/** `no-room`: nothing was noted of it, so it must be said again. */
export type Taken = "taken" | "no-room";

/** What the rest of the agent gives the link and takes from it. */
export interface LinkParts {
  readonly outbox: Outbox;
  readonly samples: SampleQueue;
  /** The dictionary that batches of this id are written in. */
  dictionary(id: number): Dictionary | undefined;
  /** The newest progress of each operation, since the last call. */
  takeProgress(): ProgressMessage[];
  operations(): { readonly id: string; readonly state: OperationState }[];
  /** @throws when the offer is no valid command: it is refused, or where it has no id the connection closed */
  offered(offer: Offer): Taken;
  /** `ifKnown`: what is not known here is another machine's affair. */
  cancel(command: string, ifKnown: boolean): Taken;
  /** An operator wants the operation to wait, or to go on. */
  pause(command: string, paused: boolean): Taken;
  /** The controller names the authorities to trust: SHA-256 of those that are trusted now. @throws `controller.untrusted` */
  authority(pem: string): readonly string[];
  /** The controller has signed a head of this host's audit, with the key that its welcome named. */
  countersigned(head: AuditHead, auditKey: string | undefined): Promise<void>;
  /** The host's standing is another one than at the welcome. */
  standing(standing: NonNullable<Welcome["standing"]>): void;
  /** Rung when there is something to send. */
  readonly bell: Bell;
  readonly clock: Clock;
  readonly log: Log;
  readonly intervalMs: number;
}

const Identified = Type.Object({ id: CommandId });
const recordsAtOnce = 64;
const pauseMs = 20;
const diskFullPauseMs = 1000;

/** What the newest welcome or goaway has said, and when anything was last heard. */
interface SessionState {
  heardAt: number;
  heartbeatMs: number;
  reconnectWindowMs: number;
  standing: Welcome["standing"];
}

/** Runs until the connection ends; tells how it ended and how long it lived. */
export async function runSession(
  socket: LinkSocket,
  welcome: Welcome,
  keys: HostKeys,
  parts: LinkParts,
  signal: AbortSignal,
): Promise<Closed & { livedMs: number; reconnectWindowMs: number }> {
  const started = parts.clock.monotonic();
  const ending = new AbortController();
  const until = AbortSignal.any([signal, ending.signal]);
  const { heartbeatMs, reconnectWindowMs, standing } = welcome;
  const state: SessionState = { heardAt: started, heartbeatMs, reconnectWindowMs, standing };
  const credit = createCredit(welcome.creditBytes);

  const tasks: Promise<void>[] = [];
  try {
    parts.outbox.resume(welcome.records);
    parts.samples.resume(welcome.samples);
    tasks.push(
      pump(socket, parts, credit, until, welcome.records),
      beat(socket, parts, state, until),
      listen(socket, welcome, keys, parts, credit, state),
    );
    // The first to end is the reader: at the connection's end, whoever caused it.
    await Promise.race(tasks);
    return {
      ...(await socket.closed),
      livedMs: parts.clock.monotonic() - started,
      reconnectWindowMs: state.reconnectWindowMs,
    };
  } finally {
    ending.abort();
    parts.bell.ring();
    socket.terminate();
    await Promise.allSettled(tasks);
  }
}

async function pump(
  socket: LinkSocket,
  parts: LinkParts,
  credit: Credit,
  signal: AbortSignal,
  recordsStored: number,
): Promise<void> {
  let sentRecord = recordsStored;
  let sentDictionary: number | undefined;
  const room = () => socket.bufferedBytes < limits.socketBufferBytesMax / 2 && !signal.aborted;

  // Of what waits, first what is said of the moment, then records, then samples.
  const sendRecords = () => {
    while (room()) {
      const records = parts.outbox.after(sentRecord, recordsAtOnce);
      if (records.length === 0) return;
      for (const record of records) {
        const frame = encodeFrame({ t: "record", ...record } satisfies AgentMessage);
        if (!room() || !credit.allows("record", frame.length)) return;
        socket.sendBytes(frame);
        credit.sent("record", record.seq, frame.length);
        sentRecord = record.seq;
      }
    }
  };
  const sendSamples = () => {
    for (let batch = parts.samples.peek(); batch !== undefined && room(); batch = parts.samples.peek()) {
      const { intervalMs } = parts;
      const frame = encodeFrame({ t: "batch", ...batch, intervalMs } satisfies AgentMessage);
      if (!credit.allows("sample", frame.length)) return;
      const dictionary = batch.dictionary === sentDictionary ? undefined : parts.dictionary(batch.dictionary);
      if (dictionary !== undefined) {
        socket.send(dictionary);
        sentDictionary = dictionary.id;
      }
      parts.samples.take();
      socket.sendBytes(frame);
      credit.sent("sample", batch.seq, frame.length);
    }
  };

  let diskFull = false;
  const noteGaps = (gaps: readonly Gap[]) => {
    for (const [index, gap] of gaps.entries()) {
      try {
        parts.outbox.append({ type: "gap", ...gap }, parts.clock.now());
      } catch (error) {
        // Told when the disk takes it, in the next session else.
        parts.samples.returnGaps(gaps.slice(index));
        if (!isDiskFull(error)) throw error;
        if (!diskFull)
          parts.log.warn({}, "the disk is full: readings wait until it takes what was lost of them");
        diskFull = true;
        return;
      }
    }
    diskFull = false;
  };

  while (!signal.aborted) {
    // Others may be dropped while these are synced; after the last look nothing is awaited before readings are sent.
    for (let gaps = parts.samples.takeGaps(); gaps.length > 0; gaps = parts.samples.takeGaps()) {
      noteGaps(gaps);
      if (diskFull) break;
      await parts.outbox.synced();
    }
    for (const progress of parts.takeProgress()) socket.send(progress);
    sendRecords();
    // Who hears of later readings must hear of the gap before them, also after a power cut.
    if (!diskFull) sendSamples();
    // Without credit it goes on when the next acknowledgement rings the bell.
    if (diskFull) await parts.clock.sleep(diskFullPauseMs, signal).catch(() => undefined);
    else if (room()) await parts.bell.wait();
    else await parts.clock.sleep(pauseMs, signal).catch(() => undefined);
  }
}

async function beat(
  socket: LinkSocket,
  parts: LinkParts,
  state: SessionState,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    if (parts.clock.monotonic() - state.heardAt > 2.5 * state.heartbeatMs) {
      parts.log.warn(
        { silentMs: Math.round(parts.clock.monotonic() - state.heardAt) },
        "the controller is silent; closing the connection",
      );
      socket.close("silent", "nothing heard for two and a half heartbeats");
      // A half-open connection never answers the close either.
      socket.terminate();
      return;
    }
    socket.send({
      t: "heartbeat",
      at: parts.clock.now(),
      operations: parts
        .operations()
        .filter(({ state }) => !isTerminal(state))
        .slice(0, 1024),
      outbox: {
        records: parts.outbox.recordCount,
        recordBytes: parts.outbox.recordBytes,
        sampleBytes: parts.samples.bytes,
      },
    });
    await parts.clock.sleep(state.heartbeatMs, signal).catch(() => undefined);
  }
}

async function listen(
  socket: LinkSocket,
  welcome: Welcome,
  keys: HostKeys,
  parts: LinkParts,
  credit: Credit,
  state: SessionState,
): Promise<void> {
  const said = (taken: Taken) => {
    if (taken !== "no-room") return;
    parts.log.warn({}, "the disk takes nothing, and no more can wait for it; closing the connection");
    // In each session the controller says all of it again.
    socket.close("slowConsumer", "agent.outbox-full");
  };
  for (;;) {
    const message = await socket.next();
    if (message === undefined) return;
    state.heardAt = parts.clock.monotonic();
    switch (message.t) {
      case "heartbeat":
        break;
      case "ack":
        parts.outbox.acknowledge(message.records);
        parts.samples.acknowledge(message.samples);
        credit.acknowledged("record", message.records);
        credit.acknowledged("sample", message.samples);
        parts.bell.ring();
        break;
      case "offer":
        try {
          said(parts.offered(message));
        } catch (error) {
          if (!refused(message, error, parts)) {
            parts.log.error(
              { err: error },
              "the controller offered what is no command; closing the connection",
            );
            socket.close("protocol", "command.bad-arguments");
          }
        }
        break;
      case "cancel":
        said(parts.cancel(message.command, message.ifKnown === true));
        break;
      case "pause":
        said(parts.pause(message.command, message.paused));
        break;
      case "goaway":
        state.reconnectWindowMs = message.reconnectWindowMs;
        parts.log.info(
          { reason: message.reason, reconnectWindowMs: message.reconnectWindowMs },
          "the controller says goodbye",
        );
        break;
      case "probe":
        await answerProbe(socket, keys, message.nonce);
        break;
      case "authority":
        try {
          socket.send({ t: "trusts", authorities: [...parts.authority(message.ca)] });
        } catch (error) {
          parts.log.error({ err: error }, "the authorities that the controller names are not taken");
        }
        break;
      case "audit-head":
        await parts.countersigned(message, welcome.auditKey);
        break;
      case "welcome":
        if (message.session === welcome.session) welcomedAgain(message, parts, state);
        else socket.close("protocol", "message.unexpected");
        break;
      case "challenge":
        socket.close("protocol", "message.unexpected");
        break;
    }
  }
}

/**
 * A newer controller may offer what this version does not know, and would do so in each session again: it is answered, so
 * that it ends there. Whether that was possible.
 */
function refused({ document }: Offer, error: unknown, { outbox, clock, bell, log }: LinkParts): boolean {
  const id = error instanceof BedplateError ? idOf(document) : undefined;
  // What is said of nonsense must not push out what is said of commands.
  if (id === undefined || outbox.recordBytes > limits.outboxRecordBytesMax / 2) return false;
  // A newer version of this agent took it, and answers for it.
  if (outbox.operation(id) !== undefined) return true;
  const { code, message, hint } = reportOf(error);
  log.error({ command: id, code }, `a command is refused: ${message}`);
  const report = { code, message: message.slice(0, 4096), ...(hint === undefined ? {} : { hint }) };
  outbox.append({ type: "refused", command: id, error: report }, clock.now());
  bell.ring();
  return true;
}

function idOf(document: Uint8Array): string | undefined {
  try {
    const value: unknown = JSON.parse(textOf(document));
    return Check(Identified, value) ? value.id : undefined;
  } catch {
    return undefined;
  }
}

// Said again in a session it tells what is different; of records and samples it says nothing.
function welcomedAgain(message: Welcome, parts: LinkParts, state: SessionState): void {
  state.heartbeatMs = message.heartbeatMs;
  state.reconnectWindowMs = message.reconnectWindowMs;
  if (message.standing === state.standing) return;
  state.standing = message.standing;
  parts.standing(message.standing ?? "approved");
}
