// Long runs of zeroes, which a block device zeroes by itself: through blkdiscard of util-linux where it is there.
import { groupBytes, groupCount } from "../../protocol/groups.ts";
import type { Processes } from "../host/processes.ts";
import type { OpenDisk } from "./direct-file.ts";
import { addTo, extentOf, type ImageJob, isGood, isZeroGroup, setGood } from "./image-job.ts";

export interface ZeroRun {
  readonly first: number;
  readonly groups: number;
}

/** Shorter ones are sooner written than a program is started. */
const groupsMin = 8;
/** A longer run goes in pieces, so that a slow disk's progress is seen, and a cancel heeded. */
const groupsMax = 1024;

type Job = Pick<ImageJob, "shared" | "sizeBytes" | "sectorBytes">;

/** Runs of zero groups that are not good yet; never with the first group, where the marker is. */
export function zeroRunsOf({ shared, sizeBytes }: Job): ZeroRun[] {
  const count = groupCount(sizeBytes);
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
  /** Between two runs: waits while the operation is paused. */
  readonly safePoint: () => Promise<void>;
}

/**
 * Zeroes the runs and marks them good; their digests are proved by the read-back, before anything boots. Only zeroing
 * counts as zero (BLKZEROOUT), never discarding.
 * @returns why the rest has to be written, undefined when nothing is left
 */
export async function zeroRuns(
  job: Job,
  runs: readonly ZeroRun[],
  { disk, processes, signal, safePoint }: Zeroing,
): Promise<string | undefined> {
  for (const { first, groups } of runs) {
    await safePoint();
    const last = first + groups - 1;
    const length = (groups - 1) * groupBytes + extentOf(job, last).padded;
    // SAFETY: guards passed, the disk is held and marked, the descriptor is the very disk's, and the image's manifest,
    // proved against its root, has these groups as zeroes. --force: it is we who hold the disk.
    const end = await processes.run(
      [
        "blkdiscard",
        "--force",
        "--zeroout",
        "--offset",
        `${first * groupBytes}`,
        "--length",
        `${length}`,
        inherited,
      ],
      { signal, descriptor3: disk.fd },
    );
    if (end === "missing") return "blkdiscard of util-linux is not installed";
    if (end.exitCode !== 0) return `blkdiscard failed: ${end.errors.trim() || `exit ${end.exitCode}`}`;
    for (let group = first; group <= last; group++) {
      addTo(job.shared, "zeroed", extentOf(job, group).length);
      setGood(job.shared, group);
    }
  }
  return undefined;
}

/** The open disk itself, whatever its name has come to mean. */
const inherited = "/proc/self/fd/3";
