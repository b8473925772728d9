// Ticks on a clock of the test's own.
import { expect, test } from "vitest";
import { tick } from "../../agent/telemetry/ticks.ts";

/** Runs until `untilMs`; `work(k)` is how long the k-th tick takes, and each sleep ends `oversleepMs` late. */
async function run({
  untilMs,
  work = () => 0,
  oversleepMs = 0,
}: {
  untilMs: number;
  work?: (k: number) => number;
  oversleepMs?: number;
}) {
  const stop = new AbortController();
  let now = 500.25;
  const ticks: { at: number; skipped: number }[] = [];
  await tick(
    {
      intervalMs: 1000,
      clock: {
        monotonic: () => now,
        sleep: async (ms) => {
          now += ms + oversleepMs;
          if (now >= untilMs) stop.abort();
        },
      },
      onTick: (skipped) => {
        ticks.push({ at: now - 500.25, skipped });
        now += work(ticks.length - 1);
      },
    },
    stop.signal,
  );
  return ticks;
}

test("each tick is a whole number of intervals after the first, whatever the work and the timers take", async () => {
  const ticks = await run({ untilMs: 10_000, work: (k) => 100 + k, oversleepMs: 7 });
  expect(ticks.map(({ skipped }) => skipped)).toEqual(Array(10).fill(0));
  ticks.forEach(({ at }, k) => {
    expect(at - k * 1000).toBeGreaterThanOrEqual(0);
    expect(at - k * 1000).toBeLessThanOrEqual(8);
  });
});

test("a tick that would come more than half an interval late is left out and counted; none comes twice", async () => {
  const ticks = await run({ untilMs: 9000, work: (k) => (k === 1 ? 3700 : k === 2 ? 1400 : 0) });
  // The second takes until 4700: those at 2000, 3000 and 4000 are left out. The next takes until 6400: 6000 comes late.
  expect(ticks).toEqual([
    { at: 0, skipped: 0 },
    { at: 1000, skipped: 0 },
    { at: 5000, skipped: 3 },
    { at: 6400, skipped: 0 },
    { at: 7000, skipped: 0 },
    { at: 8000, skipped: 0 },
  ]);
});

test("six tenths of an interval late is too late, four tenths is not", async () => {
  const at = async (workMs: number) =>
    (await run({ untilMs: 3000, work: (k) => (k === 0 ? workMs : 0) })).map((one) => one.at);
  expect(await at(1400)).toEqual([0, 1400, 2000]);
  expect(await at(1600)).toEqual([0, 2000]);
});

test("an aborted sleep ends it; another failure of the clock does not pass in silence", async () => {
  const stop = new AbortController();
  const clock = (error: () => Error) => ({ monotonic: () => 0, sleep: () => Promise.reject(error()) });
  const aborting = clock(() => {
    stop.abort();
    return new Error("aborted");
  });
  await tick({ intervalMs: 10, clock: aborting, onTick: () => {} }, stop.signal);
  const broken = clock(() => new Error("no clock"));
  await expect(
    tick({ intervalMs: 10, clock: broken, onTick: () => {} }, new AbortController().signal),
  ).rejects.toThrow("no clock");
});
