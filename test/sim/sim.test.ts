// A share of the simulator's seeds, and that it finds what it is there to find: the rest is `npm run sim`.
import { expect, test } from "vitest";
import { type BugName, bugs, intact } from "./bugs.ts";
import { render } from "./history.ts";
import { planOf } from "./plan.ts";
import { runSeeds } from "./seeds.ts";
import { shrink } from "./shrink.ts";
import { simulate } from "./simulate.ts";

const seedsMsMax = 4_000;

test("whatever fails when, every promise holds", () => {
  const began = performance.now();
  const { seeds, broken } = runSeeds(
    { from: 1, to: 400, bug: undefined },
    ({ seeds }) => seeds < 20 || performance.now() - began < seedsMsMax,
  );
  expect(
    broken.map(({ seed, promise, what }) => `npm run sim -- --seed ${seed}: ${promise}: ${what}`),
  ).toEqual([]);
  expect(seeds).toBeGreaterThanOrEqual(20);
});

// Those that few seeds suffice for; `npm run sim -- --bugs` shows them all.
test.each<BugName>([
  "acknowledge-before-sync",
  "tell-before-sync",
  "journal-forgotten-on-restart",
  "once-runs-again",
  "generation-takes-equal",
  "generation-refuses-next",
  "mark-over-hole",
  "offers-in-parallel",
  "ended-not-told-again",
  "events-recorded-twice",
  "gap-forgotten",
])("a deliberate bug is found: %s", (bug) => {
  const { broken } = runSeeds({ from: 1, to: 200, bug }, ({ broken }) => broken.length === 0);
  expect(broken).toHaveLength(1);
});

test("a seed is the same run every time, to the last event", () => {
  const [first, second] = [simulate(planOf(7), intact, true), simulate(planOf(7), intact, true)];
  expect(first.history.length).toBeGreaterThan(50);
  expect(render(second.history, new Set())).toBe(render(first.history, new Set()));
  expect(render(simulate(planOf(8), intact, true).history, new Set())).not.toBe(
    render(first.history, new Set()),
  );
});

test("a finding is made small, and is still the same one", () => {
  const { rules } = bugs["once-runs-again"];
  const [found] = runSeeds(
    { from: 1, to: 200, bug: "once-runs-again" },
    ({ broken }) => broken.length === 0,
  ).broken;
  const plan = planOf(found!.seed);
  const small = shrink(plan, rules, found!.promise, 200);
  expect(small.run.findings.map(({ promise }) => promise)).toContain(found!.promise);
  expect(small.plan.commands.length + small.plan.faults.length).toBeLessThan(
    plan.commands.length + plan.faults.length,
  );
});
