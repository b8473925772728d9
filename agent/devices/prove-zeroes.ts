// The proving phase of one worker: what the manifest calls zeroes must have the digest of zeroes. No frame ever proves that,
// so it is done before the first write; from then on such a group may be zeroed by whatever zeroes it.
import { equalBytes, hex } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { groupCount } from "../../protocol/groups.ts";
import { digestOfWindow, safePoint, type Work } from "./group-work.ts";
import { addTo, digestOf, extentOf, isZeroGroup, slots } from "./image-job.ts";

/** Half a millisecond each. */
const groupsPerClaim = 16;
const zeroesWindow = 0;

/** @throws `image.bad-manifest` */
export async function proveZeroes(work: Work): Promise<void> {
  const { job, kernel } = work;
  const count = groupCount(job.sizeBytes);
  kernel.windows[zeroesWindow]!.fill(0);
  for (;;) {
    await safePoint(work);
    const first = Atomics.add(job.shared.control, slots.next, groupsPerClaim);
    if (first >= count) return;
    for (let group = first; group < Math.min(count, first + groupsPerClaim); group++)
      if (isZeroGroup(job.shared, group)) proveZero(work, group);
  }
}

function proveZero(work: Work, group: number): void {
  const { job } = work;
  const expected = digestOf(job.shared, group);
  if (!equalBytes(digestOfWindow(work, group, zeroesWindow), expected)) {
    throw new BedplateError(
      "image.bad-manifest",
      `The manifest says that group ${group} is zeroes, but its digest is not that of zeroes.`,
      { details: { group, expected: hex(expected) } },
    );
  }
  addTo(job.shared, "done", extentOf(job, group).length);
}
