// The write phase of one worker: claims runs of groups, leaves those already right, fetches, verifies and writes the rest.

import { groupCount } from "../../protocol/groups.ts";
import { type Comparing, createComparing } from "./comparing.ts";
import { type Frame, type FrameAt, frames } from "./frame-stream.ts";
import {
  decodeFrame,
  frameAt,
  isRight,
  readGroup,
  safePoint,
  type Work,
  writeGroup,
  writeZeroGroup,
} from "./group-work.ts";
import { addTo, extentOf, isGood, isZeroGroup, setGood, slots } from "./image-job.ts";

/** One claim, and so at most one range request: its latency is paid once for so many groups. */
const groupsPerClaim = 8;
/** Windows of the kernel: the next run is compared in one while this run is written from the other. */
const compareWindow = 0;
const writeWindow = 1;

interface Run {
  readonly zeroes: readonly number[];
  readonly stretches: readonly (readonly FrameAt[])[];
  /** The first stretch, already asked for. */
  readonly stream: AsyncGenerator<Frame, void, void> | undefined;
  readonly firstFrame: Promise<IteratorResult<Frame, void>> | undefined;
}

/** Until no group is left, or the signal aborts. */
export async function writeGroups(work: Work): Promise<void> {
  const comparing = createComparing();
  let next = prepare(work, comparing);
  try {
    for (;;) {
      const run = await next;
      if (run === undefined) return;
      next = prepare(work, comparing);
      // Awaited in the next turn; until then a failure must not count as unhandled.
      next.catch(() => {});
      await writeRun(work, run);
    }
  } finally {
    // Nothing may touch the disk after this function has returned.
    await next.catch(() => {});
  }
}

/** Claims a run, compares what the disk holds, and asks for the first frames that are needed. */
async function prepare(work: Work, comparing: Comparing): Promise<Run | undefined> {
  const { job } = work;
  const { shared } = job;
  const count = groupCount(job.sizeBytes);
  const first = Atomics.add(shared.control, slots.next, groupsPerClaim);
  if (first >= count) return undefined;
  const zeroes: number[] = [];
  const stretches: FrameAt[][] = [];
  for (let group = first; group < Math.min(first + groupsPerClaim, count); group++) {
    await safePoint(work);
    if (isGood(shared, group)) {
      addTo(shared, "done", extentOf(job, group).length);
      continue;
    }
    const doubtful = group < job.claimedBefore;
    if (doubtful) addTo(shared, "rechecked", 1);
    if ((doubtful || comparing.worth(group)) && (await holds(work, group, comparing)))
      finish(work, group, "skipped");
    else if (isZeroGroup(shared, group)) zeroes.push(group);
    else addFrame(stretches, frameAt(job, group));
  }
  const stream = stretches[0] && frames(stretches[0], work.fetching);
  const firstFrame = stream?.next();
  firstFrame?.catch(() => {});
  return { zeroes, stretches, stream, firstFrame };
}

async function holds(work: Work, group: number, comparing: Comparing): Promise<boolean> {
  await readGroup(work, group, compareWindow);
  const right = isRight(work, group, compareWindow);
  comparing.told(right);
  return right;
}

/** Frames that lie side by side come in one stretch; groups of zeroes between them have none. */
function addFrame(stretches: FrameAt[][], frame: FrameAt): void {
  const last = stretches.at(-1);
  const before = last?.at(-1);
  if (last !== undefined && before !== undefined && before.start + before.bytes === frame.start)
    last.push(frame);
  else stretches.push([frame]);
}

async function writeRun(work: Work, run: Run): Promise<void> {
  for (const group of run.zeroes) {
    await safePoint(work);
    await writeZeroGroup(work, group, writeWindow);
    finish(work, group, "zeroed");
  }
  for (const [index, stretch] of run.stretches.entries()) {
    if (index === 0 && run.stream !== undefined)
      await writeStretch(work, stretch, run.stream, run.firstFrame);
    else await writeStretch(work, stretch, frames(stretch, work.fetching));
  }
}

async function writeStretch(
  work: Work,
  stretch: readonly FrameAt[],
  stream: AsyncGenerator<Frame, void, void>,
  firstFrame?: Promise<IteratorResult<Frame, void>>,
): Promise<void> {
  let from: AsyncGenerator<Frame, void, void> = stream;
  let read = await (firstFrame ?? from.next());
  try {
    while (read.done !== true) {
      await safePoint(work);
      const frame = read.value;
      const bad = decodeFrame(work, frame, writeWindow);
      if (bad === undefined) {
        await writeGroup(work, frame.group, writeWindow);
        finish(work, frame.group, "written");
      } else {
        // Another source may have it right; when none is left this throws, and the group stays as it was on the disk.
        await from.return();
        work.fetching.sources.giveUp(frame.source, bad);
        from = frames(stretch.slice(stretch.findIndex(({ group }) => group === frame.group)), work.fetching);
      }
      read = await from.next();
    }
  } finally {
    await from.return();
  }
}

function finish({ job }: Work, group: number, how: "skipped" | "written" | "zeroed"): void {
  const { length } = extentOf(job, group);
  addTo(job.shared, how, length);
  addTo(job.shared, "done", length);
  if (how !== "skipped" && group < job.claimedBefore) addTo(job.shared, "rewritten", 1);
  setGood(job.shared, group);
}
