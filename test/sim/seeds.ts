// Many seeds: the first finding of each that breaks a promise, until all are run or the time is up.
import { type BugName, bugs, intact } from "./bugs.ts";
import type { Finding } from "./checker.ts";
import { planOf } from "./plan.ts";
import type { Rules } from "./rules.ts";
import { simulate } from "./simulate.ts";

export interface Broken extends Finding {
  readonly seed: number;
}

export interface Tally {
  readonly seeds: number;
  readonly happened: number;
  readonly broken: readonly Broken[];
}

export function rulesOf(bug: BugName | undefined): Rules {
  return bug === undefined ? intact : bugs[bug].rules;
}

/** @param goOn asked before each seed */
export function runSeeds(
  { from, to, bug }: { readonly from: number; readonly to: number; readonly bug: BugName | undefined },
  goOn: (tally: Tally) => boolean = () => true,
): Tally {
  const rules = rulesOf(bug);
  let tally: Tally = { seeds: 0, happened: 0, broken: [] };
  for (let seed = from; seed <= to && goOn(tally); seed++) {
    const { findings, happened } = runSeed(seed, rules);
    tally = {
      seeds: tally.seeds + 1,
      happened: tally.happened + happened,
      broken: findings.length === 0 ? tally.broken : [...tally.broken, { ...findings[0]!, seed }],
    };
  }
  return tally;
}

function runSeed(seed: number, rules: Rules): { findings: readonly Finding[]; happened: number } {
  try {
    return simulate(planOf(seed), rules, false);
  } catch (error) {
    // An assertion of the product's own is a finding too.
    const what = error instanceof Error ? error.message : String(error);
    return { findings: [{ promise: "no-assertion-fails", what, commands: [], at: 0 }], happened: 0 };
  }
}
