// What the agent does after each close code: as the table of the specification says, and within its bounds.
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { backoffLimits, createBackoff } from "../../agent/link/backoff.ts";
import { byeMs, redialMs, replacedMs, retryOf } from "../../agent/link/redial.ts";
import { closeCodes } from "../../protocol/codes.ts";

const specification = readFileSync(new URL("../../protocol/README.md", import.meta.url), "utf8");
const rows = [...specification.matchAll(/^\| (4\d{3}) \| (.+?) +\| (\w+) +\| .* \|$/gm)].map((row) => ({
  code: Number(row[1]),
  retry: row[3],
}));

test("the specification's table is the program's", () => {
  expect(rows).toEqual(Object.values(closeCodes).map(({ code, retry }) => ({ code, retry })));
});

const halfway = () => 0.5;

test.each(rows)("after $code the agent's next attempt is by $retry", ({ code, retry }) => {
  const ended = { code, reconnectWindowMs: 40_000, ours: false };
  expect(retryOf(ended)).toBe(retry);
  const waitMs = redialMs(ended, createBackoff(), halfway);
  const expected = { window: 20_000, minute: replacedMs, hour: byeMs, backoff: 1000 };
  expect(waitMs).toBe(expected[retry as keyof typeof expected]);
});

test("a connection that just broke comes back within the window; one that we closed, or that never began, backs off", () => {
  for (const code of [1000, 1001, 1005, 1006, 1009, 1011, 1012, 4999]) {
    expect(retryOf({ code, reconnectWindowMs: 9000, ours: false })).toBe("window");
    expect(retryOf({ code, reconnectWindowMs: undefined, ours: false })).toBe("backoff");
    expect(retryOf({ code, reconnectWindowMs: 9000, ours: true })).toBe("backoff");
  }
  // Told by a code of ours, whoever closes: what we say ourselves is no order.
  expect(retryOf({ code: closeCodes.silent.code, reconnectWindowMs: 9000, ours: true })).toBe("backoff");
  expect(retryOf({ code: closeCodes.drain.code, reconnectWindowMs: 9000, ours: true })).toBe("backoff");
});

test("a fleet that was sent away comes back spread over the window, in no more than a few at once", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 3_600_000 }),
      fc.integer({ min: 0, max: 20 }),
      fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), {
        minLength: 64,
        maxLength: 64,
      }),
      (reconnectWindowMs, failures, fractions) => {
        let next = 0;
        const fraction = () => fractions[next++ % fractions.length]!;
        const backoff = createBackoff();
        for (let i = 0; i < failures; i++) backoff.next(fraction());
        const waitMs = redialMs({ code: 4001, reconnectWindowMs, ours: false }, backoff, fraction);
        expect(waitMs).toBeGreaterThanOrEqual(backoffLimits.baseMs);
        expect(waitMs).toBeLessThanOrEqual(Math.max(reconnectWindowMs, backoffLimits.capMs));
      },
    ),
  );
  // 1000 agents over ten seconds: no second gets a quarter of them. A fixed sequence, so that the outcome is one.
  const seconds = Array<number>(10).fill(0);
  let state = 1;
  const fraction = () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
  for (let i = 0; i < 1000; i++) {
    const waitMs = redialMs(
      { code: 4001, reconnectWindowMs: 10_000, ours: false },
      createBackoff(),
      fraction,
    );
    seconds[Math.floor(waitMs / 1000)]! += 1;
  }
  for (const count of seconds) expect(count).toBeLessThan(250);
});
