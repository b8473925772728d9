// The worker threads of hash-file.ts: started on first use, ended when idle, and replaced when one dies.
import { Piscina } from "piscina";
import { BedplateError, type ErrorReport, errorOf } from "../protocol/errors.ts";
import { entryUrl } from "./built.ts";
import { type HashJob, type HashWorkerData, slots } from "./hash-job.ts";
import type { CompiledKernel } from "./load.ts";

export interface HashPool extends AsyncDisposable {
  /** Runs the job on a worker. @throws what the worker found wrong; `worker.died` with the cause */
  run(job: HashJob): Promise<void>;
}

export interface HashPoolOptions {
  readonly threads: number;
  readonly kernel: CompiledKernel;
  /** Default: hash-worker.ts. */
  readonly worker?: URL;
}

interface Started {
  readonly pool: Piscina;
  /** Why it was given up. */
  failure?: unknown;
}

export function createHashPool({ threads, kernel, worker }: HashPoolOptions): HashPool {
  let current: Started | undefined;
  const ending = new Set<Promise<void>>();
  const giveUp = (started: Started, cause: unknown) => {
    started.failure ??= cause;
    if (current === started) current = undefined;
    const end = started.pool.destroy().finally(() => ending.delete(end));
    ending.add(end);
  };
  const start = (): Started => {
    const pool = new Piscina({
      filename: (worker ?? entryUrl("assembly/hash-worker.ts")).href,
      workerData: { kernel } satisfies HashWorkerData,
      minThreads: 0,
      maxThreads: threads,
      idleTimeout: 2000,
      // Jobs are long: a worker need not spin or block for the next one.
      atomics: "disabled",
    });
    const started: Started = { pool };
    // A worker died without a job. When jobs wait, it died as it started, and they would wait forever.
    pool.on("error", (cause) => {
      if (pool.queueSize > 0) giveUp(started, cause);
    });
    return started;
  };
  /** With a worker dead, jobs of other files may wait, and only a new task makes piscina start another: a stopped one. */
  const serveQueue = (started: Started, job: HashJob) => {
    if (started !== current || started.pool.queueSize === 0) return;
    const control = new Int32Array(new SharedArrayBuffer(job.control.byteLength));
    control[slots.stop] = 1;
    started.pool.run({ ...job, control } satisfies HashJob).catch(() => serveQueue(started, job));
  };
  return {
    async run(job) {
      current ??= start();
      const started = current;
      let report: ErrorReport | undefined;
      try {
        report = await started.pool.run(job);
      } catch (cause) {
        serveQueue(started, job);
        throw new BedplateError("worker.died", `A worker that hashed ${job.path} died.`, {
          cause: started.failure ?? cause,
        });
      }
      if (report !== undefined) throw errorOf(report);
    },
    async [Symbol.asyncDispose]() {
      if (current !== undefined) giveUp(current, undefined);
      await Promise.all(ending);
    },
  };
}
