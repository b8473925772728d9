import { expect, test } from "vitest";
import { backoffLimits, createBackoff } from "../../agent/link/backoff.ts";

test("waits grow to the cap and stay spread under it", () => {
  const backoff = createBackoff();
  const highest = Array.from({ length: 12 }, () => backoff.next(0.999999));
  expect(highest[0]).toBeLessThan(3 * backoffLimits.baseMs);
  for (const [i, wait] of highest.entries()) if (i > 0) expect(wait).toBeGreaterThan(highest[i - 1]! - 1);
  expect(highest.at(-1)).toBeLessThanOrEqual(backoffLimits.capMs);
  // At the cap the next wait is still anywhere between base and cap: a fleet does not march in step.
  expect(backoff.next(0)).toBe(backoffLimits.baseMs);
});

test("only a stable session starts the waits over", () => {
  const backoff = createBackoff();
  for (let i = 0; i < 10; i++) backoff.next(0.9);
  backoff.sessionEnded(backoffLimits.stableMs - 1);
  expect(backoff.next(0.9)).toBeGreaterThan(20_000);
  backoff.sessionEnded(backoffLimits.stableMs);
  expect(backoff.next(0.9)).toBeLessThan(3 * backoffLimits.baseMs);
});
