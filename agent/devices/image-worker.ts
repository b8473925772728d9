// The worker of an image operation: takes groups until none is left, in WebAssembly memory of its own.
// Not by assembly/index.ts: what else that loads would cost each worker some MiB.
import { workerData } from "node:worker_threads";
import { groupKernelOf } from "../../assembly/group-kernel.ts";
import type { CompiledKernel } from "../../assembly/load.ts";
import { type ErrorReport, reportOf } from "../../protocol/errors.ts";
import { systemClock } from "../host/clock.ts";
import { systemRandom } from "../host/random.ts";
import type { Connections } from "./connections.ts";
import { Stopped, type Work } from "./group-work.ts";
import { type ImageJob, slots } from "./image-job.ts";
import { lazyConnections } from "./lazy-connections.ts";
import { createPace } from "./pace.ts";
import { proveZeroes } from "./prove-zeroes.ts";
import { readGroups } from "./read-groups.ts";
import { fetchingOf } from "./sources.ts";
import { writeGroups } from "./write-groups.ts";

/** Of this thread: no job leaves anybody who still reads into its windows, and each begins with windows of any content. */
const kernel = groupKernelOf(workerData as CompiledKernel);

const phases = { prove: proveZeroes, write: writeGroups, readback: readGroups, verify: readGroups } as const;

/** An error is returned, not thrown: only so its code survives. Undefined also when the job was stopped. */
export default async function imageJob(job: ImageJob): Promise<ErrorReport | undefined> {
  const { control } = job.shared;
  const stopped = new AbortController();
  const stopping = Atomics.waitAsync(control, slots.stop, 0);
  if (stopping.async) void stopping.value.then(() => stopped.abort());
  else stopped.abort();
  try {
    using connections = lazyConnections(job.ca);
    await work(job, connections, stopped);
    return undefined;
  } catch (error) {
    const isStopped = Atomics.load(control, slots.stop) === 1;
    if (isStopped || error instanceof Stopped) return undefined;
    // Of one that was abandoned the first failure is told, not what came of it.
    return reportOf(stopped.signal.aborted ? stopped.signal.reason : error);
  } finally {
    stopped.abort();
  }
}

/** Whether others than the disk keep the worker waiting: it then has something to do meanwhile. */
function fetches({ phase, sources }: ImageJob): boolean {
  return phase === "write" && sources[0]?.fd === undefined;
}

async function work(job: ImageJob, connections: Connections, stopped: AbortController): Promise<void> {
  const { signal } = stopped;
  const all: Work = {
    job: { ...job, disk: { ...job.disk, blocking: !fetches(job) } },
    kernel,
    signal,
    abandon: (why) => stopped.abort(why),
    fetching: fetchingOf(job, { connections, clock: systemClock, random: systemRandom, signal }),
    pace: createPace(job.bytesPerSecondMax, systemClock, signal),
  };
  await phases[job.phase](all);
}
