// The operations of this host as the resident daemon runs them: tells the reducer what happens, writes its changes to the
// outbox in one transaction, and carries out its effects. Decides nothing itself.
import {
  type Command,
  commandKinds,
  decodeCommand,
  effectOf,
  type OperationState,
  type Progress,
} from "../../protocol/commands.ts";
import { assert, errorOf, reportOf } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import type { ExecutorRequest } from "../door/contract.ts";
import type { ExecutorLauncher, Following, StartedExecutor } from "../door/executor-process.ts";
import { whenAborted } from "../host/abort.ts";
import type { Clock } from "../host/clock.ts";
import type { Log } from "../host/log.ts";
import type { AuditHeads } from "../link/audit-heads.ts";
import type { Outbox } from "../link/outbox.ts";
import type { KeptOffer } from "../link/outbox-rules.ts";
import type { Offer, ProgressMessage, Taken } from "../link/session.ts";
import { faultHere } from "./here.ts";
import { reduceOperations } from "./reduce.ts";
import { type Effect, noOperations, type OperationsEvent, type OperationsStep, wireReport } from "./state.ts";

export interface OperationsOptions {
  readonly outbox: Outbox;
  readonly executors: ExecutorLauncher;
  readonly hostId: string;
  /** The pinned authority, PEM: sources of images are signed by it. */
  authority(): string;
  /** Runs a command that needs no right. @throws BedplateError */
  runHere(command: Command): Promise<unknown>;
  /** Keeps where the host's audit stood. */
  readonly audit?: Pick<AuditHeads, "newest" | "sent">;
  readonly clock: Clock;
  readonly log: Log;
  /** There is something to send. */
  onChange(): void;
}

export interface Operations {
  /** @throws when the offer is no valid command */
  offered(offer: Offer): Taken;
  /** `ifKnown`: what is not known here is another machine's affair. */
  cancel(command: string, ifKnown?: boolean): Taken;
  /** The controller says that an operator wants it to wait, or to go on. */
  pause(command: string, paused: boolean): Taken;
  /** The controller has stored records. */
  acknowledged(): void;
  link(state: "up" | "down"): void;
  list(): { readonly id: string; readonly state: OperationState }[];
  takeProgress(): ProgressMessage[];
  /**
   * Follows all open operations, those of an earlier process first, until aborted, and forgets those that ended long ago.
   * Executors go on without it.
   */
  run(signal: AbortSignal): Promise<void>;
}

/** What the shell knows of an event; the rest is looked up when its turn comes. */
type Happening = OperationsEvent extends infer E
  ? E extends { known: unknown }
    ? Omit<E, "known">
    : E
  : never;

/** Happenings that wait while the disk takes nothing; beyond, the controller is told, and says all again in its next session. */
const backlogMax = 1024;
const retryPauseMs = 1000;
const dayMs = 86_400_000;

export function createOperations(options: OperationsOptions): Operations {
  const { outbox, executors, clock, log } = options;
  let state = noOperations;
  let until: AbortSignal | undefined;
  const progress = new Map<string, Progress>();
  const backlog: { readonly happening: Happening; readonly done: () => void }[] = [];
  let applying = false;
  const tasks = new Set<Promise<void>>();
  const followed = new Map<string, { readonly following: Following; readonly gate: Gate; close(): void }>();
  const executorsOf = new Map<string, { readonly started: StartedExecutor; ended: boolean }>();

  const failed = Promise.withResolvers<never>();
  // Told to `run` alone.
  failed.promise.catch(() => undefined);

  /** Resolves when the happening is in the outbox and its effects are under way. */
  const happen = (happening: Happening): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    backlog.push({ happening, done: resolve });
    if (!applying) applyAll();
    return promise;
  };

  const applyAll = () => {
    applying = true;
    while (backlog.length > 0 && until?.aborted === false) {
      if (apply(backlog[0]!.happening) === "not-kept") {
        // Nothing of it is done, so it is tried again, and whatever comes after it waits.
        return task(async (signal) => {
          await clock.sleep(retryPauseMs, signal).catch(() => undefined);
          applyAll();
        });
      }
      backlog.shift()!.done();
    }
    applying = false;
    if (until?.aborted !== false) for (const { done } of backlog.splice(0)) done();
  };

  const apply = (happening: Happening): "applied" | "not-kept" => {
    const event: OperationsEvent =
      happening.event === "offer" || happening.event === "cancel" || happening.event === "done-here"
        ? { ...happening, known: outbox.operation(happening.id) }
        : happening;
    const { recordBytes, outputBytes } = outbox;
    const facts = { monotonicMs: clock.monotonic(), unixMs: clock.now(), recordBytes, outputBytes };
    let step: OperationsStep;
    try {
      step = reduceOperations(state, event, facts);
    } catch (error) {
      failed.reject(error);
      throw error;
    }
    try {
      if (step.changes.length > 0) outbox.commit(step.changes, clock.now());
    } catch (error) {
      log.error({ err: error }, "what happened to an operation cannot be kept; trying again");
      return "not-kept";
    }
    state = step.state;
    for (const change of step.changes)
      if (change.change === "record" && change.body.type === "audit-head") options.audit?.sent(change.body);
    for (const effect of step.effects) perform(effect);
    if (step.changes.length > 0) options.onChange();
    return "applied";
  };

  const task = (work: (signal: AbortSignal) => Promise<void>) => {
    assert(until !== undefined, "operations run only while the agent does");
    // What is not expected ends the agent: its state is in the outbox, and it starts anew from there.
    const running = work(until)
      .catch(failed.reject)
      .finally(() => tasks.delete(running));
    tasks.add(running);
  };

  const perform = (effect: Effect): void => {
    const { id } = effect;
    switch (effect.effect) {
      case "attach":
        task((signal) => follow(effect, signal));
        break;
      case "start":
        task((signal) => start(effect, signal));
        break;
      case "send":
        followed.get(id)?.following.send(effect.request);
        break;
      case "detach":
        followed.get(id)?.close();
        followed.delete(id);
        executorsOf.delete(id);
        progress.delete(id);
        break;
      case "hold":
        followed.get(id)?.gate.close();
        break;
      case "read-on":
        followed.get(id)?.gate.open();
        break;
      case "pause":
        task(async (signal) => {
          await clock.sleep(effect.ms, signal).catch(() => undefined);
          await happen({ event: "paused", id });
        });
        break;
      case "run-here":
        task(async () => {
          const result = await resultHere(effect.offer);
          await happen({ event: "done-here", id, offer: effect.offer, result });
        });
        break;
      case "log":
        log[effect.level]({ command: id }, effect.message);
        break;
    }
  };

  const follow = async (
    { id, afterSeq, afterOutput }: Extract<Effect, { effect: "attach" }>,
    signal: AbortSignal,
  ) => {
    const following = await executors.attach(id, { afterSeq, afterOutput });
    if (following === undefined)
      return happen({
        event: "absent",
        id,
        ended: executorsOf.get(id)?.ended ?? false,
        trouble: troubleOf(id),
      });
    const gate = createGate();
    const close = () => {
      following.close();
      gate.open();
    };
    const entry = { following, gate, close };
    followed.set(id, entry);
    signal.addEventListener("abort", close, { once: true });
    if (signal.aborted) close();
    let trouble: string | undefined;
    try {
      await happen({ event: "attached", id });
      for await (const event of following.events) {
        if (signal.aborted || followed.get(id) !== entry) break;
        if (event.type === "progress") {
          progress.set(id, event.progress);
          options.onChange();
        } else {
          await happen({ event: "said", id, said: event });
          await gate.opened();
        }
      }
    } catch (error) {
      trouble = `what it says cannot be understood: ${reportOf(error).message}`;
    } finally {
      signal.removeEventListener("abort", close);
      close();
    }
    // Otherwise it is not needed any more.
    if (followed.get(id) !== entry) return;
    followed.delete(id);
    await happen({ event: "lost", id, trouble: trouble ?? troubleOf(id) });
  };

  const start = async ({ id, request }: Extract<Effect, { effect: "start" }>, signal: AbortSignal) => {
    // What a power cut could take back is told to no executor either.
    await outbox.synced();
    if (signal.aborted) return;
    try {
      const started = await executors.start(requestOf(id, request));
      const entry = { started, ended: false };
      executorsOf.set(id, entry);
      void started.ended.then(() => {
        entry.ended = true;
      });
    } catch (error) {
      return happen({ event: "not-started", id, trouble: reportOf(error).message });
    }
    await happen({ event: "started", id });
  };

  const troubleOf = (id: string) => executorsOf.get(id)?.started.logTail() ?? "no log";

  const requestOf = (id: string, request: "run" | "ask" | "follow"): ExecutorRequest => {
    if (request === "follow") return { request, command: id };
    const offer = outbox.operation(id)?.offer;
    assert(offer !== null && offer !== undefined, "only what was offered is started");
    return {
      request: "run",
      ...(request === "ask" ? { onlyKnown: true } : {}),
      document: Buffer.from(offer.document).toString("base64"),
      signatures: [...offer.signatures],
      generation: offer.generation,
      epoch: offer.epoch,
      sources: offer.sources.map(({ url, bearer, layout, mirror }) => ({
        url,
        ...(bearer === undefined ? {} : { bearer }),
        ...(layout === undefined ? {} : { layout }),
        ...(mirror === undefined ? {} : { mirror }),
      })),
      ca: options.authority(),
      host: options.hostId,
    };
  };

  const resultHere = async ({ document }: KeptOffer) => {
    const startedAt = clock.now();
    try {
      const command = decodeCommand(document);
      const fault = faultHere(command, { host: options.hostId, unixMs: startedAt });
      if (fault !== undefined) throw errorOf(fault);
      const output = await options.runHere(command);
      return { outcome: "succeeded", startedAt, endedAt: clock.now(), output } as const;
    } catch (error) {
      const report = wireReport(reportOf(error));
      return { outcome: "failed", startedAt, endedAt: clock.now(), error: report } as const;
    }
  };

  const tell = (happening: Happening): Taken => {
    if (backlog.length >= backlogMax) return "no-room";
    void happen(happening);
    return "taken";
  };

  return {
    offered({ document, signatures, generation, epoch, sources }) {
      const command = decodeCommand(document);
      return tell({
        event: "offer",
        id: command.id,
        runs: commandKinds[command.kind].runs,
        changesState: effectOf(command) !== "read",
        offer: { document, signatures, generation, epoch, sources },
      });
    },
    cancel: (id, ifKnown = false) => tell({ event: "cancel", id, ifKnown }),
    pause: (id, paused) => tell({ event: "pausing", id, paused }),
    acknowledged() {
      if (backlog.at(-1)?.happening.event !== "acknowledged") void happen({ event: "acknowledged" });
    },
    link: (link) => void happen({ event: "link", link }),
    list: () => [...state.open.values()].map(({ id, state }) => ({ id, state })),
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
      until = signal;
      const operations = outbox
        .openOperations()
        .map((kept) => ({ ...kept, changesState: changesState(kept) }));
      void happen({ event: "opened", operations, audit: options.audit?.newest() });
      task(async (until) => {
        while (!until.aborted) {
          outbox.prune(clock.now() - limits.resultDaysKept * dayMs);
          await clock.sleep(dayMs, until).catch(() => undefined);
        }
      });
      await Promise.race([whenAborted(signal), failed.promise]);
      while (tasks.size > 0) await Promise.all(tasks);
    },
  };
}

interface Gate {
  close(): void;
  open(): void;
  /** Resolves when it is open. */
  opened(): Promise<void>;
}

function createGate(): Gate {
  let closed: PromiseWithResolvers<void> | undefined;
  return {
    close() {
      closed ??= Promise.withResolvers();
    },
    open() {
      closed?.resolve();
      closed = undefined;
    },
    opened: async () => closed?.promise,
  };
}

// What cannot be read any more (a newer agent took it) is treated with care: the executor will say what it is.
function changesState({ offer }: { readonly offer: KeptOffer | null }): boolean {
  try {
    return offer === null || effectOf(decodeCommand(offer.document)) !== "read";
  } catch {
    return true;
  }
}
