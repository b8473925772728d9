// The main thread's side of an image operation: starts the workers on a phase, follows them, stops them, awaits them all.
import { Piscina } from "piscina";
import { entryUrl } from "../../assembly/built.ts";
import { type CompiledKernel, coresAllowed } from "../../assembly/index.ts";
import { BedplateError, type ErrorReport, errorOf } from "../../protocol/errors.ts";
import { groupCount } from "../../protocol/manifest.ts";
import type { Clock } from "../host/clock.ts";
import type { Pause } from "../host/pause.ts";
import { counters, type ImageJob, type ImagePhase, slots } from "./image-job.ts";

export interface ImageRun {
  /**
   * Works on groups `first` and above, to the end of every worker: the first failure or the signal stops all.
   * @throws the first failure; the signal's reason; `worker.died`
   */
  run(phase: ImagePhase, options: PhaseOptions): Promise<void>;
}

export interface PhaseOptions {
  readonly first: number;
  readonly signal: AbortSignal;
  /** While paused the workers wait between two groups. */
  readonly pause: Pause;
  /** The counter of what is done is 0 again. */
  readonly onStart: () => void;
  /** Once a second, and once at the end unless it failed itself. */
  readonly onTick: () => Promise<void>;
}

/** Worker threads, which take a while to start. Whoever started them lets them go. */
export interface ImageWorkers extends AsyncDisposable {
  readonly threads: number;
  readonly pool: Piscina;
}

export interface ImageRunOptions {
  /** Its `bytesPerSecondMax` and `fetchBytesPerSecondMax` are those of all workers together. */
  readonly job: Omit<ImageJob, "phase">;
  readonly clock: Clock;
  readonly workers: ImageWorkers;
}

export interface ImageWorkersOptions {
  /** Each worker makes one instance of it, for all its jobs: memory that is not given back before the thread ends. */
  readonly kernel: CompiledKernel;
  /** Default: as many as this process may use at once, at most 4. */
  readonly threads?: number;
  /** Default: image-worker.ts. */
  readonly worker?: URL;
}

const threadsMax = 4;
const tickMs = 1000;
/** The first ticks come sooner, twice as far apart each: a short deploy that is killed resumes by its journal too. */
const firstTickMs = 125;

export function startImageWorkers({ kernel, threads, worker }: ImageWorkersOptions): ImageWorkers {
  const count = Math.max(1, Math.min(threads ?? coresAllowed(), threadsMax));
  const pool = new Piscina({
    filename: (worker ?? entryUrl("agent/devices/image-worker.ts")).href,
    minThreads: count,
    maxThreads: count,
    workerData: kernel,
    // What a worker throws away (pieces of transfers) is collected early: 80 MB less for two, measured on 512 MiB.
    resourceLimits: { maxYoungGenerationSizeMb: 2 },
    // One job a worker and phase: a worker need not block for the next one.
    atomics: "disabled",
  });
  // What has a task rejects that; the rest is told by the next task.
  pool.on("error", () => {});
  return { threads: count, pool, [Symbol.asyncDispose]: () => pool.destroy() };
}

export function createImageRun({ job, clock, workers: { threads, pool } }: ImageRunOptions): ImageRun {
  const jobs = Math.min(threads, groupCount(job.sizeBytes));
  const part = (all: number | undefined) => (all === undefined ? undefined : all / jobs);
  const each = {
    ...job,
    bytesPerSecondMax: part(job.bytesPerSecondMax),
    fetchBytesPerSecondMax: part(job.fetchBytesPerSecondMax),
  };
  return {
    async run(phase, { first, signal, pause, onStart, onTick }) {
      await pause.safePoint(signal);
      const { control, counts } = job.shared;
      Atomics.store(control, slots.next, first);
      Atomics.store(control, slots.stop, 0);
      Atomics.store(counts, counters.done, 0n);
      onStart();
      const set = (slot: number, value: number) => {
        Atomics.store(control, slot, value);
        Atomics.notify(control, slot);
      };
      const stop = () => {
        set(slots.stop, 1);
        set(slots.pause, 0);
      };
      using _following = pause.follow((paused) => {
        if (Atomics.load(control, slots.stop) === 0) set(slots.pause, Number(paused));
      });
      const ended = new AbortController();
      signal.addEventListener("abort", stop, { once: true });
      if (signal.aborted) stop();
      let failure: unknown;
      const fail = (error: unknown) => {
        failure ??= error;
        stop();
      };
      let ticked = true;
      const ticking = tickUntil(ended.signal, clock, onTick).catch((error: unknown) => {
        ticked = false;
        fail(error);
      });
      await Promise.all(
        Array.from({ length: jobs }, () =>
          (pool.run({ ...each, phase } satisfies ImageJob) as Promise<ErrorReport | undefined>).then(
            (report) => report && fail(errorOf(report)),
            (cause: unknown) =>
              fail(
                new BedplateError(
                  "worker.died",
                  `A worker of the image operation died: ${(cause as Error).message}.`,
                  { cause },
                ),
              ),
          ),
        ),
      );
      ended.abort();
      signal.removeEventListener("abort", stop);
      await ticking;
      // One that failed is not asked again: a sync that failed once succeeds the next time, with what it lost.
      if (ticked && (failure === undefined || signal.aborted)) await onTick();
      if (signal.aborted) throw signal.reason;
      if (failure !== undefined) throw failure;
    },
  };
}

async function tickUntil(ended: AbortSignal, clock: Clock, onTick: () => Promise<void>): Promise<void> {
  for (let ms = firstTickMs; ; ms = Math.min(tickMs, 2 * ms)) {
    const more = await clock.sleep(ms, ended).then(
      () => true,
      () => false,
    );
    if (!more) return;
    await onTick();
  }
}
