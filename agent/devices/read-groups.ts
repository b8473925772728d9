// The reading phases of one worker: reads groups back from the disk, compares them, and may repair a wrong one once.
import { equalBytes } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { digestBytes } from "../../protocol/groups.ts";
import { syncDisk } from "./direct-file.ts";
import {
  digestOfWindow,
  frameAt,
  readGroup,
  safePoint,
  verifyGroup,
  type Work,
  writeGroup,
  writeZeroGroup,
} from "./group-work.ts";
import { addTo, digestOf, extentOf, groupsEnd, isZeroGroup, slots } from "./image-job.ts";
import { load } from "./load-groups.ts";
import { describeWrong, noteWrong, wrongGroup } from "./wrong-groups.ts";

/** Two windows take turns: one is read into while the other is hashed. A third is for repairs. */
const turns = [0, 1] as const;
/** Where a read holds the thread nothing is hashed meanwhile. */
const blockingTurns = [0] as const;
const repairWindow = 2;

/** Until no group is left, or the signal aborts. */
export async function readGroups(work: Work): Promise<void> {
  const blocking = work.job.disk.blocking === true;
  const windows = blocking ? blockingTurns : turns;
  const read = (turn: number) => readNext(work, windows[turn % windows.length]!);
  let next = read(0);
  try {
    for (let turn = 0; ; turn++) {
      const group = await next;
      if (group === undefined) return;
      if (!blocking) {
        next = read(turn + 1);
        next.catch(() => {});
      }
      await safePoint(work);
      await checkGroup(work, group, windows[turn % windows.length]!);
      if (blocking) next = read(turn + 1);
    }
  } finally {
    await next.catch(() => {});
  }
}

async function readNext(work: Work, window: number): Promise<number | undefined> {
  await safePoint(work);
  const group = Atomics.add(work.job.shared.control, slots.next, 1);
  if (group >= groupsEnd(work.job)) return undefined;
  // Of a verification, what is bounded is what it reads.
  if (work.job.phase === "verify") await work.pace(extentOf(work.job, group).padded);
  await readGroup(work, group, window);
  return group;
}

async function checkGroup(work: Work, group: number, window: number): Promise<void> {
  const { shared, phase } = work.job;
  let found = rightDigest(work, group, window);
  if (found === undefined) {
    // Once more: what a second reading gives is the disk's, not the way's.
    addTo(shared, "rereads", 1);
    await readGroup(work, group, window);
    found = rightDigest(work, group, window);
  }
  if (found === undefined) noteWrong(shared, group, digestOfWindow(work, group, window));
  if (found === undefined && phase === "readback") {
    await repair(work, group, window);
    found = rightDigest(work, group, window);
    if (found === undefined) throw mismatch(work, group, window);
  }
  shared.found.set(found ?? digestOfWindow(work, group, window), group * digestBytes);
  addTo(shared, "done", extentOf(work.job, group).length);
}

/** The window's digest, if it and the padding are what the disk must hold. */
export function rightDigest(work: Work, group: number, window: number): Uint8Array | undefined {
  const { job, kernel } = work;
  const { length, padded } = extentOf(job, group);
  const found = digestOfWindow(work, group, window);
  const padding = kernel.windows[window]!.subarray(length, padded);
  return equalBytes(found, digestOf(job.shared, group)) && padding.every((byte) => byte === 0)
    ? found
    : undefined;
}

/** Fetches, writes and reads this group alone into the window. */
async function repair(work: Work, group: number, window: number): Promise<void> {
  const { job } = work;
  if (isZeroGroup(job.shared, group)) {
    await writeZeroGroup(work, group);
  } else {
    await fetchGroup(work, group, repairWindow);
    await writeGroup(work, group, repairWindow);
  }
  await syncDisk(job.disk, "data");
  addTo(job.shared, "rewritten", 1);
  await readGroup(work, group, window);
}

/** Fetches one group into a window and verifies it there, from one source after the other. @throws `image.corrupt` and what `frames` throws */
export async function fetchGroup(work: Work, group: number, window: number): Promise<void> {
  for (;;) {
    for await (const { source, fault } of load(work, [frameAt(work.job, group)], () => window)) {
      const bad = fault ?? verifyGroup(work, group, source, window);
      if (bad === undefined) return;
      work.fetching.sources.giveUp(source, bad);
    }
  }
}

export function mismatch(work: Work, group: number, window: number): BedplateError {
  const { disk, sectorBytes } = work.job;
  const wrong = wrongGroup(work.job, group, digestOfWindow(work, group, window));
  return new BedplateError(
    "disk.readback-mismatch",
    `${disk.path} does not give back what was written: ${describeWrong(wrong)}.`,
    {
      hint: "The disk, its cable or its controller is failing.",
      details: { ...wrong, sectorBytes, disk: disk.path },
    },
  );
}
