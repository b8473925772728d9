// The first and the last writes of a deploy: the in-progress marker, and at the very end the real first MiB.
import { equalBytes } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { groupBytes } from "../../protocol/groups.ts";
import { type OpenDisk, readFully, syncDisk, writeFully } from "./direct-file.ts";
import type { Work } from "./group-work.ts";
import { paddedBytes } from "./guards.ts";
import { extentOf, isZeroGroup } from "./image-job.ts";
import { fillMarker, hasMarker, type MarkerFacts, markerBytes } from "./marker.ts";
import { fetchGroup, mismatch, rightDigest } from "./read-groups.ts";

/** What one aligned write takes at least, on any disk; the marker's text and both headers of a partition table lie in it. */
const headBytes = 4096;
const scratchWindow = 3;

export interface Target {
  readonly disk: OpenDisk;
  readonly diskBytes: number;
}

/**
 * Replaces the first MiB by the marker and zeroes the disk's last MiB where the image does not reach it. Durable when
 * this returns.
 */
export async function markInProgress(
  { job, kernel }: Work,
  target: Target,
  facts: MarkerFacts,
): Promise<void> {
  const window = kernel.windows[scratchWindow]!;
  const length = markerBytes(target.diskBytes);
  fillMarker(window, length, facts);
  // SAFETY: guards passed, the disk is held exclusively, and the journal says durably that this operation writes. The
  // head goes first and alone: from its end on the disk boots nothing, and shows whose it is.
  await writeFully(target.disk, window.subarray(0, headBytes), 0);
  await syncDisk(target.disk, "all");
  // SAFETY: as above; what is zeroed is the first MiB, which the image's own first group replaces at the end.
  if (length > headBytes) await writeFully(target.disk, window.subarray(headBytes, length), headBytes);
  const tail = tailOf(job, target.diskBytes);
  // SAFETY: beyond the image only. A backup partition table or a RAID signature left there would outlive the old system.
  if (tail.length > 0) await writeFully(target.disk, kernel.zeroes.subarray(0, tail.length), tail.start);
  await syncDisk(target.disk, "all");
}

/** The part of the disk's last MiB that neither image nor marker covers. */
export function tailOf(
  image: { readonly sizeBytes: number; readonly sectorBytes: number },
  diskBytes: number,
): { start: number; length: number } {
  const covered = Math.max(paddedBytes(image.sizeBytes, image.sectorBytes), markerBytes(diskBytes));
  const start = Math.max(covered, diskBytes - groupBytes);
  return { start, length: Math.max(0, diskBytes - start) };
}

/**
 * Whether the disk shows that this operation was writing to it: its marker, or, when the journal says that it was
 * sealing, the image's own first sector.
 */
export async function showsOwnMark(
  work: Work,
  target: Target,
  facts: MarkerFacts,
  sealing: boolean,
): Promise<boolean> {
  const head = work.kernel.windows[scratchWindow]!.subarray(0, headBytes);
  await readFully(target.disk, head, 0);
  if (hasMarker(head, facts)) return true;
  if (!sealing) return false;
  const found = head.slice(0, 512);
  await loadFirstGroup(work);
  return equalBytes(found, head.subarray(0, 512));
}

/** Has the verified first group in the scratch window when this returns. @throws `image.corrupt` and others */
export async function loadFirstGroup(work: Work): Promise<void> {
  if (isZeroGroup(work.job.shared, 0)) work.kernel.windows[scratchWindow]!.fill(0);
  else await fetchGroup(work, 0, scratchWindow);
  // Also for zeroes, which no frame has proved.
  if (rightDigest(work, 0, scratchWindow) === undefined) {
    throw new BedplateError(
      "image.bad-manifest",
      "The manifest says that the first group is zeroes, but its digest is not that of zeroes.",
    );
  }
}

/**
 * Writes the first group out of the scratch window over the marker, and reads it back.
 * @returns its digest as the disk gives it
 * @throws `disk.readback-mismatch`, the marker being back in place
 */
export async function writeFirstGroup(work: Work, target: Target, facts: MarkerFacts): Promise<Uint8Array> {
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
  const readWindow = 0;
  for (let reading = 0; reading < 2; reading++) {
    await readFully(target.disk, kernel.windows[readWindow]!.subarray(0, padded), 0);
    const found = rightDigest(work, 0, readWindow);
    if (found !== undefined) return found;
  }
  const error = mismatch(work, 0, readWindow);
  await markInProgress(work, target, facts);
  throw error;
}
