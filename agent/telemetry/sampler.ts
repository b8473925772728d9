// The main thread's side of telemetry: runs the sampler's worker, starts it again when it dies, keeps the newest values.
import { Worker } from "node:worker_threads";
import { entryUrl } from "../../assembly/built.ts";
import { BedplateError, reportOf } from "../../protocol/errors.ts";
import { whenAborted } from "../host/abort.ts";
import type { Clock } from "../host/clock.ts";
import type { Log } from "../host/log.ts";
import type { Dictionary } from "./dictionary.ts";
import { NewestValues, type Snapshot } from "./newest-values.ts";
import type { FromSampler, SampleMessage, SamplerWorkerData, ToSampler } from "./sampler-messages.ts";

export interface SampledBatch {
  readonly dictionary: number;
  readonly at: number;
  readonly intervalMs: number;
  readonly key: boolean;
  readonly data: Uint8Array<ArrayBuffer>;
}

export interface SamplerOptions {
  /** Default /proc. */
  readonly procRoot?: string;
  /** Default 1000. */
  readonly intervalMs?: number;
  readonly clock: Clock;
  readonly log: Pick<Log, "info" | "warn">;
  /** Called before the first batch that refers to it, which is a key frame. */
  readonly onDictionary: (dictionary: Dictionary) => void;
  readonly onBatch: (batch: SampledBatch) => void;
  /** For tests of what happens when the worker fails. */
  readonly workerUrl?: URL;
}

export interface SamplerStats {
  readonly samples: number;
  /** Ticks left out because the one before was not done in time. */
  readonly skipped: number;
  /** Times the worker died and was started again. */
  readonly restarts: number;
  /** How long the last pass took. */
  readonly passMs: number;
  readonly series: number;
}

const restartMs = { first: 1000, most: 60_000 } as const;
/** Time to finish a pass; then the thread is ended as it is. */
const stopMs = 2000;
// The worker keeps little: more than this is a leak, which then ends the worker alone and not the agent.
const workerHeapMibMax = 64;
/** A second's pass leaves little behind: V8 would rather take 16 MiB for it than collect. */
const workerYoungMibMax = 1;

export class Sampler {
  readonly #options: SamplerOptions;
  readonly #intervalMs: number;
  readonly #newest = new NewestValues();
  #worker: Worker | null = null;
  #stats = { samples: 0, skipped: 0, restarts: 0, passMs: 0 };

  constructor(options: SamplerOptions) {
    this.#options = options;
    this.#intervalMs = options.intervalMs ?? 1000;
  }

  /** Samples until the signal aborts. A worker that dies is reported and started again, each time later. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    let delayMs: number = restartMs.first;
    const aborted = whenAborted(signal);
    while (!signal.aborted) {
      const before = this.#stats.samples;
      const error = await this.#runWorker(signal, aborted);
      if (signal.aborted) return;
      // It worked for a while: this is not the failure of before.
      if ((this.#stats.samples - before) * this.#intervalMs > restartMs.most) delayMs = restartMs.first;
      this.#stats.restarts++;
      log.warn({ error: reportOf(error), delayMs }, "The sampler died and is started again.");
      await clock.sleep(delayMs, signal).catch(() => undefined);
      delayMs = Math.min(2 * delayMs, restartMs.most);
    }
  }

  /** The next batch will be a key frame: for a receiver that has nothing to add differences to. */
  requestKeyFrame(): void {
    this.#worker?.postMessage("key" satisfies ToSampler);
  }

  /** The newest values, decoded when asked for; undefined before the first sample. */
  snapshot(): Snapshot | undefined {
    return this.#newest.read();
  }

  stats(): SamplerStats {
    return { ...this.#stats, series: this.#newest.seriesCount };
  }

  /** Resolves when the worker has ended, with what ended it. */
  async #runWorker(signal: AbortSignal, aborted: Promise<void>): Promise<unknown> {
    const {
      clock,
      procRoot = "/proc",
      workerUrl = entryUrl("agent/telemetry/sampler-worker.ts"),
    } = this.#options;
    const data: SamplerWorkerData = { procRoot, intervalMs: this.#intervalMs };
    const worker = new Worker(workerUrl, {
      name: "sampler",
      workerData: data,
      resourceLimits: {
        maxOldGenerationSizeMb: workerHeapMibMax,
        maxYoungGenerationSizeMb: workerYoungMibMax,
      },
    });
    this.#worker = worker;
    const ended = Promise.withResolvers<unknown>();
    let failure: unknown;
    worker.on("message", (message: FromSampler) => this.#receive(message));
    worker.on("error", (error) => {
      failure = error;
    });
    worker.on("exit", (code) => {
      ended.resolve(
        failure ?? new BedplateError("worker.died", `The sampler ended by itself (exit code ${code}).`),
      );
    });
    try {
      await Promise.race([ended.promise, aborted]);
      if (signal.aborted) {
        worker.postMessage("stop" satisfies ToSampler);
        const stopped = new AbortController();
        const patience = clock.sleep(stopMs, stopped.signal).catch(() => undefined);
        await Promise.race([ended.promise, patience]);
        stopped.abort();
        await worker.terminate();
      }
      return await ended.promise;
    } finally {
      this.#worker = null;
    }
  }

  #receive(message: FromSampler): void {
    if (message.type === "report") {
      const { level, details, message: text } = message.report;
      this.#options.log[level](details, text);
      return;
    }
    this.#receiveSample(message);
  }

  #receiveSample({ dictionary, dictionaryId, at, key, data, passMs, skipped }: SampleMessage): void {
    this.#stats.samples++;
    this.#stats.skipped += skipped;
    this.#stats.passMs = passMs;
    if (dictionary !== undefined) {
      this.#newest.setDictionary(dictionary);
      this.#options.onDictionary(dictionary);
    }
    this.#newest.add({ dictionary: dictionaryId, at, key, data });
    this.#options.onBatch({ dictionary: dictionaryId, at, intervalMs: this.#intervalMs, key, data });
  }
}
