// What hash-file.ts and its workers share: the job, its control block, and how a worker claims groups of it.
import type { CompiledKernel } from "./load.ts";

export interface HashWorkerData {
  readonly kernel: CompiledKernel;
}

/** Int32 slots that all workers of one file share. */
export const slots = {
  /** The next group that nobody has claimed. */
  next: 0,
  /** Groups finished. */
  done: 1,
  /** 1: leave as soon as possible. */
  stop: 2,
  /** Workers that may touch the file now. */
  running: 3,
} as const;

/** One worker's part in hashing a file: all workers get the same job and claim groups of it. */
export interface HashJob {
  readonly algorithm: "blake3" | "sha256";
  readonly path: string;
  /** Open in this process as long as any job of the file runs. */
  readonly fd: number;
  readonly bytes: number;
  readonly control: Int32Array<SharedArrayBuffer>;
  /** BLAKE3: a digest for each group. SHA-256: the digest. */
  readonly output: Uint8Array<SharedArrayBuffer>;
}

/** A notify takes a microsecond and wakes the main thread: not for each group. */
const groupsPerNotify = 16;

/** Does a worker's part between being counted in and out: one that comes after the stop touches nothing. */
export function runPart(job: HashJob, part: (job: HashJob) => void): void {
  Atomics.add(job.control, slots.running, 1);
  try {
    if (!stopped(job)) part(job);
  } finally {
    if (Atomics.sub(job.control, slots.running, 1) === 1) Atomics.notify(job.control, slots.running);
  }
}

/** Gives `work` one group after the other until none is left, or it returns false. */
export function claimGroups(job: HashJob, groups: number, work: (group: number) => boolean): void {
  for (;;) {
    // One addition is the whole dispatch: piscina for each group would cost 50 µs, copying it 550.
    const group = Atomics.add(job.control, slots.next, 1);
    if (group >= groups || !work(group)) return;
    finishGroup(job);
  }
}

export function finishGroup({ control }: HashJob): void {
  const done = Atomics.add(control, slots.done, 1) + 1;
  if (done % groupsPerNotify === 0) Atomics.notify(control, slots.done);
}

export function stopped({ control }: HashJob): boolean {
  return Atomics.load(control, slots.stop) === 1;
}
