// A finding made small: parts of the plan are left out for as long as the same promise is still broken.
import type { Finding } from "./checker.ts";
import type { Plan } from "./plan.ts";
import type { Rules } from "./rules.ts";
import { type Run, simulate } from "./simulate.ts";

export interface Small {
  readonly plan: Plan;
  readonly run: Run;
}

/** @param runsMax how often the world may be run for it */
export function shrink(plan: Plan, rules: Rules, promise: Finding["promise"], runsMax: number): Small {
  let runs = 0;
  let smallest = plan;
  const breaks = (candidate: Plan) => {
    runs += 1;
    return simulate(candidate, rules, false).findings.some((finding) => finding.promise === promise);
  };
  const without = <T>(parts: (of: Plan) => readonly T[], into: (of: Plan, left: readonly T[]) => Plan) => {
    for (let size = parts(smallest).length; size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      for (let from = 0; from < parts(smallest).length && runs < runsMax; ) {
        const candidate = into(smallest, parts(smallest).toSpliced(from, size));
        if (breaks(candidate)) smallest = candidate;
        else from += size;
      }
    }
  };
  // What one pass leaves out may make another part superfluous.
  for (let before = ""; before !== sizeOf(smallest) && runs < runsMax; ) {
    before = sizeOf(smallest);
    without(
      ({ faults }) => faults,
      (of, faults) => ({ ...of, faults }),
    );
    without(
      ({ commands }) => commands,
      (of, commands) => ({ ...of, commands }),
    );
  }
  return { plan: smallest, run: simulate(smallest, rules, true) };
}

function sizeOf({ faults, commands }: Plan): string {
  return `${faults.length} ${commands.length}`;
}
