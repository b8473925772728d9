// The agent's credit: never more on its way than the controller allows, and never stuck.
import fc from "fast-check";
import { expect, test } from "vitest";
import { createCredit } from "../../agent/link/credit.ts";
import { limits } from "../../protocol/limits.ts";

const limit = limits.frameBytesMax;

test("what is on its way counts until it is acknowledged, up to the number that the acknowledgement names", () => {
  const credit = createCredit(limit);
  credit.sent("record", 7, 100);
  credit.sent("record", 8, 200);
  credit.sent("sample", 8, 1000);
  expect(credit.inFlightBytes).toBe(1300);
  credit.acknowledged("record", 7);
  expect(credit.inFlightBytes).toBe(1200);
  credit.acknowledged("sample", 5);
  credit.acknowledged("record", 7);
  expect(credit.inFlightBytes).toBe(1200);
  credit.acknowledged("record", 100);
  credit.acknowledged("sample", 100);
  expect(credit.inFlightBytes).toBe(0);
});

test("samples leave a part of the credit to records", () => {
  const credit = createCredit(limit);
  credit.sent("sample", 1, limit * 0.75);
  expect(credit.allows("sample", 1)).toBe(false);
  expect(credit.allows("record", limit / 4)).toBe(true);
  expect(credit.allows("record", limit / 4 + 1)).toBe(false);
});

test("a controller that names no limit gets all", () => {
  const credit = createCredit(undefined);
  credit.sent("sample", 1, limit * 100);
  expect(credit.allows("sample", limit)).toBe(true);
});

test("a number that goes back within a session is a fault of ours", () => {
  const credit = createCredit(limit);
  credit.sent("record", 5, 10);
  expect(() => credit.sent("record", 5, 10)).toThrow(/assertion/);
  expect(() => createCredit(limit - 1)).toThrow(/assertion/);
});

test("whatever is sent and acknowledged in whatever order: within the limit, and never stuck", () => {
  const step = fc.oneof(
    fc.record({
      act: fc.constant("send" as const),
      kind: fc.constantFrom("record" as const, "sample" as const),
      bytes: fc.integer({ min: 1, max: limit }),
    }),
    fc.record({
      act: fc.constant("acknowledge" as const),
      kind: fc.constantFrom("record" as const, "sample" as const),
      share: fc.double({ min: 0, max: 1.2, noNaN: true }),
    }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const credit = createCredit(limit);
      const frames = { record: [] as number[], sample: [] as number[] };
      const stored = { record: 0, sample: 0 };
      const waiting = () =>
        (["record", "sample"] as const)
          .flatMap((kind) => frames[kind].slice(stored[kind]))
          .reduce((sum, bytes) => sum + bytes, 0);
      for (const next of steps) {
        if (next.act === "send") {
          if (!credit.allows(next.kind, next.bytes)) {
            // Refused only while something is on its way, whose acknowledgement will ask again.
            expect(waiting()).toBeGreaterThan(0);
            continue;
          }
          frames[next.kind].push(next.bytes);
          credit.sent(next.kind, frames[next.kind].length, next.bytes);
        } else {
          const seq = Math.floor(next.share * frames[next.kind].length);
          credit.acknowledged(next.kind, seq);
          stored[next.kind] = Math.max(stored[next.kind], Math.min(seq, frames[next.kind].length));
        }
        expect(credit.inFlightBytes).toBe(waiting());
        expect(credit.inFlightBytes).toBeLessThanOrEqual(limit);
      }
    }),
  );
});
