// How much of a disk a deploy reads before it writes: what the rule costs on each kind of disk.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createComparing } from "../../agent/devices/comparing.ts";

/** Groups read, and right ones that were fetched all the same, for a disk where `rightAt` says which groups are right. */
function costOf(groups: number, rightAt: (group: number) => boolean) {
  const comparing = createComparing();
  let read = 0;
  let fetchedInVain = 0;
  for (let group = 0; group < groups; group++) {
    if (!comparing.worth()) {
      if (rightAt(group)) fetchedInVain++;
      continue;
    }
    read++;
    comparing.told(rightAt(group));
  }
  return { read, fetchedInVain };
}

describe("what is read before it is written", () => {
  test("of a disk with another content: a few, then one group in thirty-two", () => {
    expect(costOf(1600, () => false)).toEqual({ read: 57, fetchedInVain: 0 });
  });

  test("of a disk with one changed group in a hundred: all, and nothing is fetched in vain", () => {
    expect(costOf(1600, (group) => group % 100 !== 50)).toEqual({ read: 1600, fetchedInVain: 0 });
  });

  test("of a disk whose second half is right: thirty-one groups at most are fetched in vain", () => {
    fc.assert(
      fc.property(fc.integer({ min: 40, max: 1500 }), (first) => {
        expect(costOf(1600, (group) => group >= first).fetchedInVain).toBeLessThanOrEqual(31);
      }),
    );
  });
});
