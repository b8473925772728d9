// The worker threads of hash-file.ts: started on first use, ended when idle, and replaced when one dies.
import { Piscina } from "piscina";
import { BedplateError, type ErrorReport, errorOf } from "../protocol/errors.ts";
import { entryUrl } from "./built.ts";
import type { HashJob, HashWorkerData } from "./hash-job.ts";
import type { CompiledKernel } from "./load.ts";
import { createTurns } from "./turns.ts";

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
  // No job waits in piscina's own queue for a busy worker: when that one died, piscina would start no other for it.
  const turns = createTurns(threads);
  let current: Started | undefined;
  let ended = false;
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
  return {
    async run(job) {
      await turns.take();
      try {
        if (ended) throw new BedplateError("hash.aborted", "The hasher was closed.");
        current ??= start();
        await runOn(current, job);
      } finally {
        turns.give();
      }
    },
    async [Symbol.asyncDispose]() {
      ended = true;
      if (current !== undefined) giveUp(current, undefined);
      await Promise.all(ending);
    },
  };
}

async function runOn(started: Started, job: HashJob): Promise<void> {
  let report: ErrorReport | undefined;
  try {
    report = await started.pool.run(job);
  } catch (cause) {
    throw new BedplateError("worker.died", `A worker that hashed ${job.path} died.`, {
      cause: started.failure ?? cause,
    });
  }
  if (report !== undefined) throw errorOf(report);
}
