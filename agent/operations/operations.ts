// The operations of this host as the resident daemon sees them: keeps each offer, follows its executor, and turns what
// happens into records. Decides nothing about the work itself; that is the executor's, behind its journal.
import { equalBytes } from "../../protocol/bytes.ts";
import {
  type Command,
  commandKinds,
  decodeCommand,
  isTerminal,
  type OperationState,
  type Progress,
  type Result,
} from "../../protocol/commands.ts";
import { BedplateError, type ErrorReport, reportOf } from "../../protocol/errors.ts";
import type { ExecutorEvent } from "../executor/contract.ts";
import { whenAborted } from "../host/abort.ts";
import type { Clock } from "../host/clock.ts";
import type { ExecutorLauncher, Following, StartedExecutor } from "../host/executor-process.ts";
import type { KeptOffer, Outbox } from "../link/outbox.ts";
import type { Offer, ProgressMessage } from "../link/session.ts";
import type { Log } from "../log.ts";

export interface OperationsOptions {
  readonly outbox: Outbox;
  readonly executors: ExecutorLauncher;
  readonly hostId: string;
  /** The pinned authority, PEM: sources of images are signed by it. */
  authority(): string;
  /** Runs a command that needs no right. @throws BedplateError */
  runHere(command: Command): Promise<unknown>;
  readonly clock: Clock;
  readonly log: Log;
  /** There is something to send. */
  onChange(): void;
}

export interface Operations {
  offered(offer: Offer): void;
  cancel(command: string): void;
  list(): { readonly id: string; readonly state: OperationState }[];
  takeProgress(): ProgressMessage[];
  /** Follows all open operations, those of an earlier process first, until aborted. Executors go on without it. */
  run(signal: AbortSignal): Promise<void>;
}

/** Operations open at once; the executor's lanes bound what really runs. */
const openMax = 256;
/** Executors that died in a row, each younger than `stableMs`, before the agent gives up on an operation. */
const deathsMax = 10;
const stableMs = 60_000;
const deathPauseMs = { first: 250, max: 30_000 } as const;
const attachTries = 200;
const attachPauseMs = 50;

export function createOperations(options: OperationsOptions): Operations {
  const { outbox, executors, clock, log } = options;
  const progress = new Map<string, Progress>();
  const followed = new Map<
    string,
    { following: Following | undefined; cancel: boolean; task: Promise<void> }
  >();
  let running: AbortSignal | undefined;

  const record = (
    id: string,
    state: OperationState,
    body: Parameters<Outbox["record"]>[1],
    eventSeq?: number,
  ) => {
    outbox.record({ id, state, ...(eventSeq === undefined ? {} : { eventSeq }) }, body, clock.now());
    options.onChange();
  };

  const begin = (id: string, work: (signal: AbortSignal) => Promise<void>) => {
    if (running === undefined || running.aborted || followed.has(id)) return;
    const entry = { following: undefined as Following | undefined, cancel: false, task: Promise.resolve() };
    followed.set(id, entry);
    entry.task = work(running)
      .catch((error: unknown) => log.error({ command: id, err: error }, "following the operation failed"))
      .finally(() => {
        followed.delete(id);
        progress.delete(id);
      });
  };

  // What needs no right is a read: it may run again after a crash, so that one transaction at its end is enough.
  const runHere = async (command: Command, offer: KeptOffer) => {
    const startedAt = clock.now();
    let result: Result;
    try {
      if (command.host !== options.hostId)
        throw new BedplateError("command.wrong-host", "The command names another host's key.");
      if ((command.limits.notAfter ?? startedAt) < startedAt)
        throw new BedplateError("command.expired", "The command's time limit to start had passed.");
      const output = await options.runHere(command);
      result = { outcome: "succeeded", startedAt, endedAt: clock.now(), output };
    } catch (error) {
      result = { outcome: "failed", startedAt, endedAt: clock.now(), error: mutable(reportOf(error)) };
    }
    const bodies = [
      { type: "received", command: command.id },
      { type: "accepted", command: command.id },
      { type: "result", command: command.id, result },
    ] as const;
    outbox.complete(command.id, offer, result.outcome, bodies, clock.now());
    options.onChange();
  };

  // Attach to the executor if one lives; else start one with the kept offer, whose journal knows what that means.
  const followExecutor = async (id: string, signal: AbortSignal) => {
    let deaths = 0;
    while (!signal.aborted) {
      const before = outbox.operation(id)!;
      if (isTerminal(before.state)) return;
      const startedAt = clock.monotonic();
      let started: StartedExecutor | undefined;
      let following = await executors.attach(id, before.eventSeq);
      if (following === undefined) {
        started = await executors.start(requestOf(before.offer, options));
        following = await attachTo(id, before.eventSeq, started, signal);
      }
      if (following !== undefined) await follow(id, following, signal);
      if (signal.aborted || isTerminal(outbox.operation(id)!.state)) return;
      deaths = clock.monotonic() - startedAt >= stableMs ? 1 : deaths + 1;
      log.warn({ command: id, deaths }, "the executor ended before its operation; starting it again");
      if (deaths >= deathsMax) return giveUp(id, started);
      await clock
        .sleep(Math.min(deathPauseMs.max, deathPauseMs.first * 2 ** (deaths - 1)), signal)
        .catch(() => undefined);
    }
  };

  const attachTo = async (id: string, afterSeq: number, started: StartedExecutor, signal: AbortSignal) => {
    let ended = false;
    void started.ended.then(() => {
      ended = true;
    });
    for (let i = 0; i < attachTries && !signal.aborted; i++) {
      const following = await executors.attach(id, afterSeq);
      if (following !== undefined || ended) return following;
      await clock.sleep(attachPauseMs, signal).catch(() => undefined);
    }
    return undefined;
  };

  const follow = async (id: string, following: Following, signal: AbortSignal) => {
    const entry = followed.get(id)!;
    entry.following = following;
    const close = () => following.close();
    signal.addEventListener("abort", close, { once: true });
    try {
      if (entry.cancel) following.send({ cancel: { reason: "asked by the controller" } });
      for await (const event of following.events) {
        if (signal.aborted) return;
        take(id, event);
        if (event.type === "result" || event.type === "refused") return;
      }
    } catch (error) {
      if (!signal.aborted) log.warn({ command: id, err: error }, "the executor's words cannot be understood");
    } finally {
      signal.removeEventListener("abort", close);
      entry.following = undefined;
      following.close();
    }
  };

  const take = (id: string, event: ExecutorEvent) => {
    switch (event.type) {
      case "accepted":
        record(id, "accepted", { type: "accepted", command: id }, event.seq);
        break;
      case "running":
        record(id, "running", { type: "running", command: id, run: event.run }, event.seq);
        break;
      case "refused":
        record(id, "refused", { type: "refused", command: id, error: event.error }, event.seq);
        break;
      case "result":
        record(id, event.result.outcome, { type: "result", command: id, result: event.result }, event.seq);
        break;
      case "progress":
        progress.set(id, event.progress);
        options.onChange();
        break;
      case "cancel":
        log.info(
          { command: id, answer: event.answer, reason: event.reason },
          "the executor answered the cancel",
        );
        break;
    }
  };

  const giveUp = (id: string, started: StartedExecutor | undefined) => {
    const error: ErrorReport = {
      code: "executor.failed",
      message: `The executor died ${deathsMax} times in a row: ${started?.logTail() ?? "no log"}`,
      hint: "Run `bedplate doctor` on the host; the executor's log is in the agent's state directory.",
    };
    const operation = outbox.operation(id)!;
    if (operation.state === "received")
      return record(id, "refused", { type: "refused", command: id, error: mutable(error) });
    const now = clock.now();
    record(id, "indeterminate", {
      type: "result",
      command: id,
      result: { outcome: "indeterminate", startedAt: now, endedAt: now, error: mutable(error) },
    });
  };

  return {
    offered(offer) {
      const command = decodeCommand(offer.document);
      const kept: KeptOffer = {
        document: offer.document,
        signatures: offer.signatures,
        generation: offer.generation,
        epoch: offer.epoch,
        sources: offer.sources,
      };
      const known = outbox.operation(command.id);
      if (known === undefined && commandKinds[command.kind].runs === "agent") {
        begin(command.id, () => runHere(command, kept));
        return;
      }
      if (known === undefined) {
        try {
          if (outbox.openOperations().length >= openMax)
            throw new BedplateError("agent.outbox-full", `${openMax} operations are open on this host.`);
          outbox.receive(command.id, kept, clock.now());
        } catch (error) {
          // Not received, and so offered again when this host next connects.
          return log.warn({ command: command.id, err: error }, "no room for the command now");
        }
        options.onChange();
      } else {
        if (!equalBytes(known.offer.document, offer.document)) {
          return log.error(
            { command: command.id, code: "command.id-conflict" },
            "the controller offered other content under a known id; ignored",
          );
        }
        if (isTerminal(known.state)) return;
        outbox.refresh(command.id, kept);
      }
      begin(command.id, (signal) => followExecutor(command.id, signal));
    },
    cancel(id) {
      const entry = followed.get(id);
      if (entry === undefined) return;
      entry.cancel = true;
      entry.following?.send({ cancel: { reason: "asked by the controller" } });
    },
    list: () => outbox.openOperations().map(({ id, state }) => ({ id, state })),
    takeProgress() {
      const messages = [...progress].map(([command, latest]) => ({
        t: "progress" as const,
        command,
        progress: latest,
      }));
      progress.clear();
      return messages;
    },
    async run(signal) {
      running = signal;
      for (const { id } of outbox.openOperations()) begin(id, (until) => followExecutor(id, until));
      await whenAborted(signal);
      await Promise.all([...followed.values()].map(({ task }) => task));
    },
  };
}

function requestOf(offer: KeptOffer, options: OperationsOptions) {
  return {
    request: "run" as const,
    document: Buffer.from(offer.document).toString("base64"),
    signatures: [...offer.signatures],
    generation: offer.generation,
    epoch: offer.epoch,
    sources: offer.sources.map(({ url, bearer }) => (bearer === undefined ? { url } : { url, bearer })),
    ca: options.authority(),
    host: options.hostId,
  };
}

// The wire's schemas give mutable types.
function mutable(report: ErrorReport): {
  code: string;
  message: string;
  hint?: string;
  details?: Record<string, unknown>;
} {
  const { details, ...rest } = report;
  return details === undefined ? rest : { ...rest, details: { ...details } };
}
