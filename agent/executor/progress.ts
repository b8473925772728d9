// Rate and time left of an operation's phase, from samples a second apart.
import type { Progress } from "../../protocol/commands.ts";
import type { Phase } from "../commands/command.ts";

/** How far back "lately" reaches. */
const windowMs = 10_000;

export interface ProgressMeter {
  /** A new phase begins. */
  begin(phase: Phase): void;
  /** Undefined before the first phase. */
  sample(): Progress | undefined;
  /** When something last moved: a phase began, or its `done` changed between samples, or it was held. */
  movedAtMs(): number;
  /** Standing still is meant so now. */
  hold(): void;
}

/** @param monotonic milliseconds that never step back */
export function createProgressMeter(monotonic: () => number): ProgressMeter {
  let phase: Phase | undefined;
  let samples: { readonly at: number; readonly done: number }[] = [];
  let movedAt = monotonic();
  return {
    begin(next) {
      phase = next;
      movedAt = monotonic();
      samples = [{ at: movedAt, done: next.done() }];
    },
    sample() {
      if (phase === undefined) return undefined;
      const at = monotonic();
      const known = phase.total > 0;
      const done = known ? Math.min(phase.done(), phase.total) : phase.done();
      if (done !== samples.at(-1)?.done) movedAt = at;
      samples.push({ at, done });
      samples = samples.filter((sample) => at - sample.at <= windowMs);
      const first = samples[0]!;
      const rate = at > first.at ? Math.max(0, (done - first.done) / ((at - first.at) / 1000)) : 0;
      const left = phase.total - done;
      const secondsLeft = !known ? null : left === 0 ? 0 : rate > 0 ? left / rate : null;
      const { name, total, unit, at: item } = phase;
      return {
        phase: name,
        done,
        total,
        unit,
        rate,
        secondsLeft,
        ...(item === undefined ? {} : { at: item }),
      };
    },
    movedAtMs: () => movedAt,
    hold() {
      movedAt = monotonic();
    },
  };
}
