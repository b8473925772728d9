// The rules of the controller's side of the link, pure: how often and how slowly, who may knock, and who takes whose place.
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Contender, contest, verdictOf } from "../../controller/link/contest.ts";
import { heartbeatMsFor, returnWindowMsFor, scale } from "../../controller/link/scale.ts";
import { AddressBuckets, bucketOf, chargeTokens, takeTokens } from "../../controller/link/token-bucket.ts";

test("heartbeats and windows grow with the fleet, and never below what was asked for", () => {
  expect([0, 1, 500, 501, 5000].map((agents) => heartbeatMsFor(agents, 10_000))).toEqual([
    10_000, 10_000, 10_000, 10_020, 100_000,
  ]);
  expect([0, 200, 1000, 1001, 20_000].map((agents) => returnWindowMsFor(agents))).toEqual([
    5000, 5000, 5000, 5005, 100_000,
  ]);
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 1_000_000 }),
      fc.integer({ min: 1000, max: 3_600_000 }),
      (agents, configuredMs) => {
        const heartbeatMs = heartbeatMsFor(agents, configuredMs);
        expect(heartbeatMs).toBeGreaterThanOrEqual(configuredMs);
        expect(heartbeatMs).toBeLessThanOrEqual(scale.heartbeatMsMax);
        if (heartbeatMs < scale.heartbeatMsMax)
          expect((1000 * agents) / heartbeatMs).toBeLessThanOrEqual(scale.heartbeatsPerSecond);
        expect((1000 * agents) / returnWindowMsFor(agents)).toBeLessThanOrEqual(scale.returnsPerSecond);
        expect(heartbeatMsFor(agents + 1, configuredMs)).toBeGreaterThanOrEqual(heartbeatMs);
      },
    ),
  );
});

const bucketLimits = { burst: 10, perSecond: 4 };

test("a bucket gives its burst at once, then as it fills; who waits as told gets in", () => {
  let bucket: ReturnType<typeof takeTokens>["bucket"] | undefined;
  for (let i = 0; i < 10; i++) {
    const taken = takeTokens(bucket, bucketLimits, 1000);
    expect(taken.waitMs).toBe(0);
    bucket = taken.bucket;
  }
  expect(takeTokens(bucket, bucketLimits, 1000).waitMs).toBe(250);
  expect(takeTokens(bucket, bucketLimits, 1248).waitMs).toBeGreaterThan(0);
  expect(takeTokens(bucket, bucketLimits, 1250).waitMs).toBe(0);
  // A clock that stands or goes back gives nothing, and takes nothing.
  expect(takeTokens(bucket, bucketLimits, 0).bucket.tokens).toBe(0);
});

test("in any stretch of time no more gets in than the burst and what came since", () => {
  const knock = fc.record({
    afterMs: fc.integer({ min: 0, max: 2000 }),
    charge: fc.constantFrom(0, 0, 0, 3),
  });
  fc.assert(
    fc.property(fc.array(knock, { maxLength: 300 }), (knocks) => {
      let nowMs = 0;
      let admitted = 0;
      let bucket: ReturnType<typeof takeTokens>["bucket"] | undefined;
      for (const { afterMs, charge } of knocks) {
        nowMs += afterMs;
        const taken = takeTokens(bucket, bucketLimits, nowMs);
        bucket = taken.bucket;
        if (taken.waitMs === 0) admitted += 1;
        if (charge > 0) bucket = chargeTokens(bucket, bucketLimits, nowMs, charge);
        expect(bucket.tokens).toBeLessThanOrEqual(bucketLimits.burst);
        expect(bucket.tokens).toBeGreaterThanOrEqual(-bucketLimits.burst);
        expect(admitted).toBeLessThanOrEqual(bucketLimits.burst + (nowMs / 1000) * bucketLimits.perSecond);
        // Nobody is kept out for longer than it takes to pay the deepest debt.
        expect(taken.waitMs).toBeLessThanOrEqual((1000 * (bucketLimits.burst + 1)) / bucketLimits.perSecond);
      }
    }),
  );
});

test("addresses share a bucket with those who could as well have it", () => {
  const same: [string, string][] = [
    ["10.0.0.1", "::ffff:10.0.0.1"],
    ["2001:db8:0:1::1", "2001:0db8:0:1:ffff::2"],
    ["2001:DB8::1", "2001:db8:0:0:1::"],
    ["fe80::1%eth0", "fe80::2"],
    ["::1", "::2"],
  ];
  for (const [one, other] of same) expect(bucketOf(one)).toBe(bucketOf(other));
  const apart: [string, string][] = [
    ["10.0.0.1", "10.0.0.2"],
    ["2001:db8:0:1::1", "2001:db8:0:2::1"],
    ["::1", "1::"],
  ];
  for (const [one, other] of apart) expect(bucketOf(one)).not.toBe(bucketOf(other));
});

test("one address that knocks too often keeps no other out, and strangers without end fill no memory", () => {
  const buckets = new AddressBuckets(bucketLimits, 100);
  for (let i = 0; i < 50; i++) buckets.take("10.0.0.1", 0);
  expect(buckets.take("10.0.0.1", 0)).toBeGreaterThan(0);
  expect(buckets.take("10.0.0.2", 0)).toBe(0);
  buckets.charge("10.0.0.3", 0, 100);
  expect(buckets.take("10.0.0.3", 0)).toBe(2750);
  for (let i = 0; i < 1000; i++) buckets.take(`10.1.${i >> 8}.${i & 255}`, 0);
  expect(buckets.size).toBe(100);
});

const at = (session: string, instance = "i1", bootId = "b1"): Contender => ({ session, instance, bootId });

test("the same agent come back takes its place at once, in every way it can come back", () => {
  const present = { ...at("s1"), alive: true };
  // Its connection was lost, and the controller has not noticed yet.
  expect(contest(present, { ...at("s2"), previousSession: "s1" })).toBe("supersede");
  // Its process was started anew.
  expect(contest(present, { ...at("s2"), previousSession: undefined })).toBe("supersede");
  // The machine was started anew, or the state directory restored, after the controller had given it up.
  for (const newcomer of [at("s2", "i1", "b2"), at("s2", "i2"), at("s2")])
    expect(contest({ ...present, alive: false }, { ...newcomer, previousSession: "other" })).toBe(
      "supersede",
    );
});

test("what may be another machine is asked", () => {
  const present = { ...at("s1"), alive: true };
  expect(contest(present, { ...at("s2", "i2"), previousSession: undefined })).toBe("probe");
  // A copied state directory has the same instance, but not the same boot.
  expect(contest(present, { ...at("s2", "i1", "b2"), previousSession: undefined })).toBe("probe");
  // A copy on the same machine, which was replaced and comes back.
  expect(contest(present, { ...at("s2"), previousSession: "s0" })).toBe("probe");
});

test("a rack whose links are half-open, or that lost its power, quarantines nobody", () => {
  fc.assert(
    fc.property(fc.boolean(), fc.boolean(), fc.boolean(), (rebooted, process, alive) => {
      const present = { ...at("s1"), alive };
      const newcomer = {
        ...at("s2", "i1", rebooted ? "b2" : "b1"),
        previousSession: rebooted || process ? undefined : "s1",
      };
      // The old connection's other end is gone: asked, it is silent.
      const verdict =
        contest(present, newcomer) === "supersede"
          ? "newcomer"
          : verdictOf({ present: false, newcomer: true });
      expect(verdict).toBe("newcomer");
    }),
  );
});

test("only two that both answer are two", () => {
  expect(verdictOf({ present: true, newcomer: true })).toBe("both");
  expect(verdictOf({ present: true, newcomer: false })).toBe("present");
  expect(verdictOf({ present: false, newcomer: true })).toBe("newcomer");
  expect(verdictOf({ present: false, newcomer: false })).toBe("newcomer");
});
