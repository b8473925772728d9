// A clock for tests: real timers, and a monotonic time that can be moved ahead.
import { type Clock, systemClock } from "../../controller/machine/system.ts";

export interface TestClock extends Clock {
  advance(ms: number): void;
}

export function testClock(): TestClock {
  let ahead = 0;
  return {
    ...systemClock,
    now: () => systemClock.now() + ahead,
    monotonicMs: () => systemClock.monotonicMs() + ahead,
    advance: (ms) => {
      ahead += ms;
    },
  };
}
