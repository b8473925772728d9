// The resident daemon: builds its parts in order, runs them until aborted, and stops them in reverse.
import type { Command, LogsOutput, Ping } from "../protocol/commands.ts";
import { BedplateError } from "../protocol/errors.ts";
import { limits } from "../protocol/limits.ts";
import { version } from "../protocol/version.ts";
import type { AgentConfig } from "./config.ts";
import { identityPath } from "./door/contract.ts";
import { createExecutorLauncher } from "./door/executor-process.ts";
import { whenAborted } from "./host/abort.ts";
import { systemClock } from "./host/clock.ts";
import { readTail } from "./host/file-tail.ts";
import { systemFiles } from "./host/files.ts";
import { bootId, hostName } from "./host/identity.ts";
import type { Log } from "./host/log.ts";
import { createLoopDelay, type LoopDelay } from "./host/loop-delay.ts";
import { systemRandom } from "./host/random.ts";
import { notifyService } from "./host/service.ts";
import { holdAlone } from "./host/single.ts";
import { openStateDirectory } from "./host/state-directory.ts";
import { openAuditHeads } from "./link/audit-heads.ts";
import { openPins } from "./link/authority.ts";
import { createBell } from "./link/bell.ts";
import { createIdentityWatch } from "./link/identity.ts";
import { openKeys } from "./link/keys.ts";
import { runLink } from "./link/link.ts";
import { openOutbox } from "./link/outbox.ts";
import { createSampleQueue } from "./link/sample-queue.ts";
import type { Dictionary } from "./link/session.ts";
import { answerLogs, type LogSources } from "./operations/agent-logs.ts";
import type { LogLines } from "./operations/log-lines.ts";
import { createOperations } from "./operations/operations.ts";
import { serveMetrics } from "./telemetry/metrics-server.ts";
import { Sampler } from "./telemetry/sampler.ts";

/** In the state directory, where no systemd takes what executors log. */
const executorLog = "executor.log";

/** Runs until `signal` aborts. @throws what makes it impossible to run at all; connection troubles are not among that */
export async function runDaemon(
  config: AgentConfig,
  log: Log,
  logLines: LogLines,
  signal: AbortSignal,
): Promise<void> {
  const clock = systemClock;
  const state = openStateDirectory(config.stateDirectory);
  using _alone = holdAlone(state.file("agent.lock"));
  const keys = await openKeys(state);
  const bell = createBell();
  using outbox = openOutbox(state.file("agent.db"), {
    onDurable: () => bell.ring(),
    onAcknowledged: () => operations.acknowledged(),
  });

  const samples = createSampleQueue(limits.outboxSampleBytesMax);
  const dictionaries = new Map<number, Dictionary>();
  const pins = openPins(state);
  const heads = openAuditHeads({ host: keys.hostId, state, log });
  const executors = createExecutorLauncher({ paths: config.executor, logFile: state.file("executor.log") });
  const identity = createIdentityWatch({
    path: identityPath(config.executor.runDirectory),
    ...{ keys, files: systemFiles, executors, outbox, clock, log },
    onChange: () => bell.ring(),
  });
  const link = { connected: false };
  using loopDelay = createLoopDelay();

  const sampler = new Sampler({
    intervalMs: config.telemetryIntervalMs,
    clock,
    log,
    onDictionary: ({ id, series }) =>
      rememberDictionary(dictionaries, { t: "dictionary", id, series: [...series] }),
    onBatch: (batch) => {
      samples.add(batch);
      bell.ring();
    },
  });

  const operations = createOperations({
    outbox,
    executors: createExecutorLauncher({ paths: config.executor, logFile: state.file(executorLog) }),
    hostId: keys.hostId,
    authority: () => pins.pem ?? "",
    audit: heads,
    runHere: async (command) =>
      runInAgent(command, loopDelay, {
        agent: logLines,
        executor: (bytesMax) => readTail(state.file(executorLog), bytesMax),
      }),
    clock,
    log,
    onChange: () => {
      bell.ring();
      identity.executorRan();
    },
  });

  const parts = new AbortController();
  const until = AbortSignal.any([signal, parts.signal]);
  const linkTask = runLink(
    {
      controller: config.controller,
      joinToken: config.joinToken,
      name: config.name,
      hostname: hostName(),
      bootId: bootId(),
      ...{ keys, pins, identity, state },
      random: systemRandom,
      parts: {
        outbox,
        samples,
        dictionary: (id) => dictionaries.get(id),
        takeProgress: () => operations.takeProgress(),
        operations: () => operations.list(),
        offered: (offer) => operations.offered(offer),
        cancel: (command, ifKnown) => operations.cancel(command, ifKnown),
        pause: (command, paused) => operations.pause(command, paused),
        countersigned: (head, auditKey) => heads.countersigned(head, auditKey),
        bell,
        clock,
        log,
        intervalMs: config.telemetryIntervalMs,
      },
      onState: ({ connected }) => {
        link.connected = connected;
        operations.link(connected ? "up" : "down");
        // What waits until the next session must start with a key frame.
        if (!connected) sampler.requestKeyFrame();
      },
    },
    until,
  );
  const tasks = [
    linkTask,
    sampler.run(until),
    operations.run(until),
    identity.run(until),
    ...(config.metricsListen === undefined
      ? []
      : [
          serveMetrics(
            {
              listen: config.metricsListen,
              version,
              agent: () => ({
                connected: link.connected,
                outboxRecords: outbox.recordCount,
                outboxRecordBytes: outbox.recordBytes,
                outboxSampleBytes: samples.bytes,
                droppedSamples: samples.dropped,
              }),
              sampler: () => sampler.stats(),
              snapshot: () => sampler.snapshot(),
              log,
            },
            until,
          ),
        ]),
  ];
  log.info(
    { host: keys.hostId, controller: config.controller.host, stateDirectory: state.path },
    "the agent runs",
  );
  notifyService("READY=1");
  try {
    // A part that ends before it is told to has failed, and the whole ends with it.
    await Promise.race([...tasks, whenAborted(signal)]);
  } finally {
    notifyService("STOPPING=1");
    parts.abort();
    bell.ring();
    await Promise.allSettled(tasks);
  }
}

/** Commands that need no right. The event loop's delay is that since the ping before. */
async function runInAgent(
  command: Command,
  loopDelay: LoopDelay,
  logs: LogSources,
): Promise<Ping | LogsOutput> {
  if (command.kind === "agent.logs") return answerLogs(command.arguments, logs);
  if (command.kind !== "agent.ping")
    throw new BedplateError("command.unknown-kind", `${command.kind} does not run in the agent.`);
  return {
    at: systemClock.now(),
    uptimeSeconds: process.uptime(),
    eventLoopDelayP99Ms: loopDelay.takeP99Ms(),
    residentBytes: process.memoryUsage.rss(),
  };
}

/** Batches refer to few dictionaries: a new one comes when hardware comes or goes. */
const dictionariesMax = 16;

function rememberDictionary(known: Map<number, Dictionary>, dictionary: Dictionary): void {
  known.set(dictionary.id, dictionary);
  if (known.size > dictionariesMax) known.delete(known.keys().next().value!);
}
