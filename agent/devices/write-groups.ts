// The write phase of one worker: claims runs of groups, leaves those already right, fetches, verifies and writes the rest.
// While one group is verified the next one is being fetched and the one before written, each in a window of its own: but
// for a worker that only waits for the disk, which takes one after the other, all in one window.
import { type Comparing, createComparing } from "./comparing.ts";
import { type FrameAt, type Opening, openAhead } from "./frame-stream.ts";
import {
  frameAt,
  isRight,
  readGroup,
  safePoint,
  verifyGroup,
  type Work,
  writeGroup,
  writeZeroGroup,
} from "./group-work.ts";
import { addTo, extentOf, groupsEnd, isGood, isZeroGroup, isZeroing, setGood, slots } from "./image-job.ts";
import { type Loaded, load } from "./load-groups.ts";
import { fetchGroup } from "./read-groups.ts";

/** One claim, and so at most one range request: its latency is paid once for so many groups. */
const groupsPerClaim = 8;
/** Of a file nothing is requested, and no worker shall be left with much to do when the others have ended. */
const groupsPerFileClaim = 1;
/**
 * The next run is compared in one window of the kernel while this run goes through the others. Of a blocking disk all is
 * done in this one: the processor's caches still have it, and no other is touched, and so taken from the host.
 */
const compareWindow = 0;
const writeWindows = [1, 2, 3] as const;

interface Run {
  readonly stretches: readonly (readonly FrameAt[])[];
  /** The first stretch, already asked for. */
  readonly ahead: Opening | undefined;
}

/** Until no group is left, or the signal aborts. */
export async function writeGroups(work: Work): Promise<void> {
  const blocking = work.job.disk.blocking === true;
  const loading = loadAll(work);
  let next = loading.next();
  let writing = Promise.resolve();
  try {
    for (;;) {
      const read = await next;
      if (read.done === true) break;
      const { group, window } = read.value;
      if (!blocking) {
        next = loading.next();
        // Awaited in the next turn; until then a failure must not count as unhandled.
        next.catch(() => {});
      }
      await proveGroup(work, read.value);
      await safePoint(work);
      // One write at a time: when it has ended, its window is the next but one to be loaded into.
      await writing;
      writing = writeGroup(work, group, window).then(() => finish(work, group, "written"));
      // The next group may be long in coming: a source that hangs would keep a disk's failure from being told.
      writing.catch((error: unknown) => work.abandon?.(error));
      if (blocking) {
        await writing;
        next = loading.next();
      }
    }
    await writing;
  } catch (error) {
    work.abandon?.(error);
    throw error;
  } finally {
    // Nothing may touch the disk after this function has returned.
    await Promise.allSettled([writing, next]);
    await loading.return();
  }
}

/** The window holds the group's very bytes when this returns. @throws `image.corrupt` when no source has them */
async function proveGroup(work: Work, { group, window, source, fault }: Loaded): Promise<void> {
  const bad = fault ?? verifyGroup(work, group, source, window);
  if (bad === undefined) return;
  // Another source may have it right; when none is left this throws, and the group stays as it was on the disk.
  work.fetching.sources.giveUp(source, bad);
  await fetchGroup(work, group, window);
}

async function* loadAll(work: Work): AsyncGenerator<Loaded, void, void> {
  const comparing = createComparing();
  const blocking = work.job.disk.blocking === true;
  const windows = blocking ? ([compareWindow] as const) : writeWindows;
  let turn = 0;
  const turns = new Map<number, number>();
  const windowFor = (group: number) => {
    // The same again for a group that is begun anew at another source.
    const at = turns.get(group) ?? turn++;
    turns.clear();
    turns.set(group, at);
    return windows[at % windows.length]!;
  };
  let ahead = blocking ? undefined : prepare(work, comparing);
  try {
    for (;;) {
      const run = await (ahead ?? prepare(work, comparing));
      if (run === undefined) return;
      if (!blocking) {
        ahead = prepare(work, comparing);
        ahead.catch(() => {});
      }
      for (const [index, stretch] of run.stretches.entries())
        yield* load(work, stretch, windowFor, index === 0 ? run.ahead : undefined);
    }
  } finally {
    (await ahead?.catch(() => undefined))?.ahead?.[Symbol.dispose]();
  }
}

/** Claims a run, compares what the disk holds, zeroes what is zero, and asks for the first frames that are needed. */
async function prepare(work: Work, comparing: Comparing): Promise<Run | undefined> {
  const { job } = work;
  const { shared } = job;
  const count = groupsEnd(job);
  // Of the source as it is now: a file that was given up may be followed by one that is asked.
  const claimed = work.fetching.sources.current.fd === undefined ? groupsPerClaim : groupsPerFileClaim;
  const first = Atomics.add(shared.control, slots.next, claimed);
  if (first >= count) return undefined;
  const stretches: FrameAt[][] = [];
  for (let group = first; group < Math.min(first + claimed, count); group++) {
    await safePoint(work);
    if (isZeroing(shared, group)) continue;
    if (isGood(shared, group)) {
      addTo(shared, "done", extentOf(job, group).length);
      continue;
    }
    const doubtful = group < job.claimedBefore;
    if (doubtful) addTo(shared, "rechecked", 1);
    if ((doubtful || comparing.worth()) && (await holds(work, group, comparing)))
      finish(work, group, "skipped");
    else if (isZeroGroup(shared, group)) {
      await writeZeroGroup(work, group);
      finish(work, group, "zeroed");
    } else addFrame(stretches, frameAt(job, group));
  }
  return { stretches, ahead: stretches[0] && openAhead(stretches[0], work.fetching) };
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

function finish({ job }: Work, group: number, how: "skipped" | "written" | "zeroed"): void {
  const { length } = extentOf(job, group);
  addTo(job.shared, how, length);
  addTo(job.shared, "done", length);
  if (how !== "skipped" && group < job.claimedBefore) addTo(job.shared, "rewritten", 1);
  setGood(job.shared, group);
}
