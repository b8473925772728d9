// One authenticated connection: sends what waits by priority, hands on what arrives, and notices a dead peer.
import { isTerminal, type OperationState } from "../../protocol/commands.ts";
import { limits } from "../../protocol/limits.ts";
import type { AgentMessage, ControllerMessage } from "../../protocol/messages.ts";
import type { Clock } from "../host/clock.ts";
import type { Log } from "../log.ts";
import type { Bell } from "./bell.ts";
import type { Welcome } from "./handshake.ts";
import type { Outbox } from "./outbox.ts";
import type { SampleQueue } from "./sample-queue.ts";
import type { Closed, LinkSocket } from "./socket.ts";

export type Offer = Extract<ControllerMessage, { t: "offer" }>;
export type Dictionary = Extract<AgentMessage, { t: "dictionary" }>;
export type ProgressMessage = Extract<AgentMessage, { t: "progress" }>;

/** What the rest of the agent gives the link and takes from it. */
export interface LinkParts {
  readonly outbox: Outbox;
  readonly samples: SampleQueue;
  /** The dictionary that batches of this id are written in. */
  dictionary(id: number): Dictionary | undefined;
  /** The newest progress of each operation, since the last call. */
  takeProgress(): ProgressMessage[];
  operations(): { readonly id: string; readonly state: OperationState }[];
  /** @throws when the offer is no valid command: the connection is then closed */
  offered(offer: Offer): void;
  cancel(command: string): void;
  /** Rung when there is something to send. */
  readonly bell: Bell;
  readonly clock: Clock;
  readonly log: Log;
  readonly intervalMs: number;
}

const recordsAtOnce = 64;
const pauseMs = 20;

/** Runs until the connection ends; tells how it ended and how long it lived. */
export async function runSession(
  socket: LinkSocket,
  welcome: Welcome,
  parts: LinkParts,
  signal: AbortSignal,
): Promise<Closed & { livedMs: number; reconnectWindowMs: number }> {
  const started = parts.clock.monotonic();
  const ending = new AbortController();
  const until = AbortSignal.any([signal, ending.signal]);
  const state = { heardAt: started, reconnectWindowMs: welcome.reconnectWindowMs };

  parts.outbox.resume(welcome.records);
  parts.samples.resume(welcome.samples);
  const tasks = [
    pump(socket, parts, until, welcome.records),
    beat(socket, welcome, parts, state, until),
    listen(socket, parts, state),
  ];
  try {
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
  signal: AbortSignal,
  recordsStored: number,
): Promise<void> {
  let sentRecord = recordsStored;
  let sentDictionary: number | undefined;
  const room = () => socket.bufferedBytes < limits.socketBufferBytesMax / 2;

  while (!signal.aborted) {
    for (const gap of parts.samples.takeGaps())
      parts.outbox.append({ type: "gap", ...gap }, parts.clock.now());
    while (room() && !signal.aborted) {
      const records = parts.outbox.after(sentRecord, recordsAtOnce);
      if (records.length === 0) break;
      for (const record of records) socket.send({ t: "record", ...record });
      sentRecord = records.at(-1)!.seq;
    }
    for (const progress of parts.takeProgress()) socket.send(progress);
    while (room() && !signal.aborted) {
      const batch = parts.samples.take();
      if (batch === undefined) break;
      const dictionary = batch.dictionary === sentDictionary ? undefined : parts.dictionary(batch.dictionary);
      if (dictionary !== undefined) {
        socket.send(dictionary);
        sentDictionary = dictionary.id;
      }
      socket.send({ t: "batch", ...batch, intervalMs: parts.intervalMs });
    }
    if (room()) await parts.bell.wait();
    else await parts.clock.sleep(pauseMs, signal).catch(() => undefined);
  }
}

async function beat(
  socket: LinkSocket,
  welcome: Welcome,
  parts: LinkParts,
  state: { heardAt: number },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    if (parts.clock.monotonic() - state.heardAt > 2.5 * welcome.heartbeatMs) {
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
    await parts.clock.sleep(welcome.heartbeatMs, signal).catch(() => undefined);
  }
}

async function listen(
  socket: LinkSocket,
  parts: LinkParts,
  state: { heardAt: number; reconnectWindowMs: number },
): Promise<void> {
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
        break;
      case "offer":
        try {
          parts.offered(message);
        } catch (error) {
          parts.log.error(
            { err: error },
            "the controller offered what is no command; closing the connection",
          );
          socket.close("protocol", "command.bad-arguments");
        }
        break;
      case "cancel":
        parts.cancel(message.command);
        break;
      case "goaway":
        state.reconnectWindowMs = message.reconnectWindowMs;
        parts.log.info(
          { reason: message.reason, reconnectWindowMs: message.reconnectWindowMs },
          "the controller says goodbye",
        );
        break;
      case "challenge":
      case "welcome":
        socket.close("protocol", "message.unexpected");
        break;
    }
  }
}
