// The first and the last writes of a deploy: the in-progress marker, and at the very end what makes a disk boot, the last
// groups of a disk that the image fills and the real first MiB.
import { equalBytes } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { digestBytes, groupBytes, groupCount } from "../../protocol/groups.ts";
import { type OpenDisk, readFully, syncDisk, writeFully } from "./direct-file.ts";
import type { Work } from "./group-work.ts";
import { addTo, extentOf, isZeroGroup } from "./image-job.ts";
import { fillMarker, hasMarker, type MarkerFacts, markerBytes } from "./marker.ts";
import { fetchGroup, mismatch, rightDigest } from "./read-groups.ts";

/** What one aligned write takes at least, on any disk; the marker's text and both headers of a partition table lie in it. */
const headBytes = 4096;
const readWindow = 0;
/** Of the groups at the disk's end. */
const endWindows = [1, 2] as const;
const scratchWindow = 3;

export interface Target {
  readonly disk: OpenDisk;
  readonly diskBytes: number;
}

/**
 * Replaces the first MiB by the marker and zeroes the disk's last MiB. Durable and read back when this returns: of a
 * disk that loses such a write without a word, the old system would be left to boot.
 * @throws `disk.io`, `disk.readback-mismatch`
 */
export async function markInProgress({ kernel }: Work, target: Target, facts: MarkerFacts): Promise<void> {
  const window = kernel.windows[scratchWindow]!;
  const length = markerBytes(target.diskBytes);
  fillMarker(window, length, facts);
  // SAFETY: guards passed, the disk is held exclusively, and the journal says durably that this operation writes. The
  // head goes first and alone: from its end on the disk boots nothing, and shows whose it is.
  await writeFully(target.disk, window.subarray(0, headBytes), 0);
  await syncDisk(target.disk, "all");
  // SAFETY: as above; what is zeroed is the first MiB, which the image's own first group replaces at the end.
  if (length > headBytes) await writeFully(target.disk, window.subarray(headBytes, length), headBytes);
  const tail = tailOf(target.diskBytes);
  // SAFETY: as above; what the image has there comes at the end, too. A backup partition table or a RAID signature left
  // there would outlive the old system, or tell of a new one that is not whole.
  if (tail.length > 0) await writeFully(target.disk, kernel.zeroes.subarray(0, tail.length), tail.start);
  await syncDisk(target.disk, "all");
  const read = kernel.windows[readWindow]!;
  await readFully(target.disk, read.subarray(0, length), 0);
  if (Buffer.compare(read.subarray(0, length), window.subarray(0, length)) !== 0)
    throw notMarked(target, "the marker in its first MiB");
  await readFully(target.disk, read.subarray(0, tail.length), tail.start);
  if (!kernel.isZero(readWindow, tail.length)) throw notMarked(target, "zeroes in its last MiB");
}

function notMarked({ disk }: Target, what: string): BedplateError {
  return new BedplateError(
    "disk.readback-mismatch",
    `${disk.path} does not give back what was written: ${what}.`,
    { hint: "The disk, its cable or its controller is failing.", details: { disk: disk.path } },
  );
}

/** The disk's last MiB, but for what the marker covers. */
export function tailOf(diskBytes: number): { start: number; length: number } {
  const start = Math.max(markerBytes(diskBytes), diskBytes - groupBytes);
  return { start, length: diskBytes - start };
}

/** Groups of the image from this one on may reach into the disk's last MiB: at most two. They are sealed with the first. */
export function endGroupOf({ sizeBytes }: { readonly sizeBytes: number }, diskBytes: number): number {
  return Math.min(groupCount(sizeBytes), Math.max(1, Math.floor(tailOf(diskBytes).start / groupBytes)));
}

/** Whether the marker of this operation stands on the disk, as far as can be read. */
export async function showsMarker({ kernel }: Work, target: Target, facts: MarkerFacts): Promise<boolean> {
  const head = kernel.windows[scratchWindow]!.subarray(0, headBytes);
  try {
    await readFully(target.disk, head, 0);
  } catch {
    return false;
  }
  return hasMarker(head, facts);
}

/**
 * Whether the disk shows that this operation was writing to it: its marker, or, when the journal says that it was
 * sealing, the image's own first sector.
 */
export async function showsOwnMark(
  work: Work,
  target: Target,
  facts: MarkerFacts,
  sealed: { readonly sealing: boolean; readonly first: Uint8Array },
): Promise<boolean> {
  const head = work.kernel.windows[scratchWindow]!.subarray(0, headBytes);
  await readFully(target.disk, head, 0);
  if (hasMarker(head, facts)) return true;
  return sealed.sealing && equalBytes(head.subarray(0, 512), sealed.first.subarray(0, 512));
}

/** A copy of the verified first group. @throws `image.corrupt` and others */
export async function fetchFirst(work: Work): Promise<Uint8Array> {
  await loadVerified(work, 0, scratchWindow);
  return work.kernel.windows[scratchWindow]!.slice(0, extentOf(work.job, 0).padded);
}

/**
 * Has the verified groups that are sealed in windows of their own when this returns.
 * @param first as {@link fetchFirst} gave it
 * @throws `image.corrupt` and others
 */
export async function loadSealed(work: Work, target: Target, first: Uint8Array): Promise<void> {
  work.kernel.windows[scratchWindow]!.set(first);
  if (rightDigest(work, 0, scratchWindow) === undefined) await loadVerified(work, 0, scratchWindow);
  for (const [index, group] of endGroups(work, target).entries())
    await loadVerified(work, group, endWindows[index]!);
}

/**
 * Writes the groups at the disk's end, then the first one over the marker, and reads each back.
 * @throws `disk.readback-mismatch`, `disk.io`, the marker being back in place if that could be
 */
export async function seal(work: Work, target: Target, facts: MarkerFacts): Promise<void> {
  try {
    await writeEndGroups(work, target);
    await writeFirstGroup(work, target);
  } catch (error) {
    await markInProgress(work, target, facts).catch(() => {});
    throw error;
  }
}

function endGroups({ job }: Work, { diskBytes }: Target): number[] {
  const first = endGroupOf(job, diskBytes);
  return Array.from({ length: groupCount(job.sizeBytes) - first }, (_, index) => first + index);
}

async function loadVerified(work: Work, group: number, window: number): Promise<void> {
  if (isZeroGroup(work.job.shared, group)) work.kernel.windows[window]!.fill(0);
  else await fetchGroup(work, group, window);
  // Also for zeroes, which no frame has proved.
  if (rightDigest(work, group, window) === undefined) {
    throw new BedplateError(
      "image.bad-manifest",
      `The manifest says that group ${group} is zeroes, but its digest is not that of zeroes.`,
      { details: { group } },
    );
  }
}

async function writeEndGroups(work: Work, target: Target): Promise<void> {
  const groups = endGroups(work, target);
  for (const [index, group] of groups.entries()) {
    const { padded } = extentOf(work.job, group);
    // SAFETY: every group between was read back right, this one was verified in this memory, and the first MiB is still
    // the marker: until that is replaced, nothing says that the disk has a system.
    const window = work.kernel.windows[endWindows[index]!]!.subarray(0, padded);
    await writeFully(target.disk, window, group * groupBytes);
  }
  if (groups.length > 0) await syncDisk(target.disk, "all");
  for (const group of groups) await readSealed(work, target, group);
}

async function writeFirstGroup(work: Work, target: Target): Promise<void> {
  const { kernel, job } = work;
  const { padded } = extentOf(job, 0);
  const window = kernel.windows[scratchWindow]!;
  // SAFETY: every other group was read back right, and this one was verified in this memory. Its rest goes first and
  // its head, with the boot code and the partition table, last: what is cut off in between still boots nothing.
  if (padded > headBytes) {
    await writeFully(target.disk, window.subarray(headBytes, padded), headBytes);
    await syncDisk(target.disk, "all");
  }
  await writeFully(target.disk, window.subarray(0, Math.min(headBytes, padded)), 0);
  await syncDisk(target.disk, "all");
  await readSealed(work, target, 0);
}

/** Notes what the disk gives back. @throws `disk.readback-mismatch` after a second reading */
async function readSealed(work: Work, target: Target, group: number): Promise<void> {
  const { shared } = work.job;
  const { length, padded } = extentOf(work.job, group);
  for (let reading = 0; reading < 2; reading++) {
    await readFully(target.disk, work.kernel.windows[readWindow]!.subarray(0, padded), group * groupBytes);
    const found = rightDigest(work, group, readWindow);
    if (found === undefined) continue;
    shared.found.set(found, group * digestBytes);
    addTo(shared, isZeroGroup(shared, group) ? "zeroed" : "written", length);
    return;
  }
  throw mismatch(work, group, readWindow);
}
