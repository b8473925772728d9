// Long runs of zeroes, which a block device zeroes by itself: through blkdiscard of util-linux where it is there.
import { groupBytes } from "../../protocol/groups.ts";
import type { Pause } from "../host/pause.ts";
import type { Processes } from "../host/processes.ts";
import type { OpenDisk } from "./direct-file.ts";
import {
  addTo,
  extentOf,
  groupsEnd,
  type ImageJob,
  isGood,
  isZeroGroup,
  setGood,
  setZeroing,
} from "./image-job.ts";

export interface ZeroRun {
  readonly first: number;
  readonly groups: number;
}

/** Shorter ones are sooner written than a program is started. */
const groupsMin = 8;
/** A longer run goes in pieces, so that a slow disk's progress is seen, and a cancel heeded. */
const groupsMax = 256;

type Job = Pick<ImageJob, "shared" | "sizeBytes" | "sectorBytes" | "endGroup">;

/** Runs of zero groups that are not good yet; never with the first group, where the marker is, nor with those sealed. */
export function zeroRunsOf(job: Job): ZeroRun[] {
  const { shared } = job;
  const count = groupsEnd(job);
  const runs: ZeroRun[] = [];
  for (let first = 1; first < count; ) {
    let end = first;
    while (end < count && end - first < groupsMax && isZeroGroup(shared, end) && !isGood(shared, end)) end++;
    if (end - first >= groupsMin) runs.push({ first, groups: end - first });
    first = Math.max(end, first + 1);
  }
  return runs;
}

export interface Zeroing {
  readonly disk: OpenDisk;
  readonly processes: Processes;
  readonly signal: AbortSignal;
  readonly pause: Pause;
}

/**
 * Has the device zero the runs beside the workers, who leave these groups alone until this returns. Each group's digest is
 * proved to be that of zeroes first. Only zeroing counts as zero (BLKZEROOUT), never discarding.
 * @returns why the rest is left to the workers, undefined when nothing is
 */
export async function zeroRuns(
  job: Job,
  runs: readonly ZeroRun[],
  { disk, processes, signal, pause }: Zeroing,
): Promise<string | undefined> {
  const { shared } = job;
  const each = (act: (group: number) => void) => {
    for (const { first, groups } of runs) for (let group = first; group < first + groups; group++) act(group);
  };
  each((group) => setZeroing(shared, group, true));
  try {
    for (const run of runs) {
      // Not for what is over, because a worker has failed.
      await pause.safePoint(signal);
      const why = await zeroRun(job, run, { disk, processes });
      if (why !== undefined) return why;
    }
    return undefined;
  } finally {
    each((group) => setZeroing(shared, group, false));
  }
}

async function zeroRun(
  job: Job,
  { first, groups }: ZeroRun,
  { disk, processes }: Pick<Zeroing, "disk" | "processes">,
): Promise<string | undefined> {
  const last = first + groups - 1;
  const length = (groups - 1) * groupBytes + extentOf(job, last).padded;
  const place = ["--offset", `${first * groupBytes}`, "--length", `${length}`];
  // SAFETY: guards passed, the disk is held and marked, the descriptor is the very disk's, and the proving phase has found
  // each group's digest to be that of zeroes. --force: it is we who hold the disk.
  // Never broken off: the kernel would go on zeroing after we have let go of the disk.
  const toItsEnd = new AbortController();
  const end = await processes.run(["blkdiscard", "--force", "--zeroout", ...place, inherited], {
    signal: toItsEnd.signal,
    descriptor3: disk.fd,
  });
  if (end === "missing") return "blkdiscard of util-linux is not installed";
  if (end.exitCode !== 0) return `blkdiscard failed: ${end.errors.trim() || `exit ${end.exitCode}`}`;
  for (let group = first; group <= last; group++) {
    const { length: bytes } = extentOf(job, group);
    addTo(job.shared, "zeroed", bytes);
    addTo(job.shared, "done", bytes);
    setGood(job.shared, group);
  }
  return undefined;
}

/** The open disk itself, whatever its name has come to mean. */
const inherited = "/proc/self/fd/3";
