// The policy's parts one by one: windows, argument vectors, what a plan says of them, how long an operation has waited.
import { describe, expect, test } from "vitest";
import { waitedMs } from "../../agent/executor/lane-wait.ts";
import { sameValue } from "../../agent/executor/plans.ts";
import { execFault, matchesVector } from "../../agent/policy/exec-rules.ts";
import { policyFindings } from "../../agent/policy/findings.ts";
import { noRules } from "../../agent/policy/rules.ts";
import { type Day, days, minuteOf, type Window, windowAt } from "../../agent/policy/windows.ts";

describe("a window", () => {
  const window = (on: readonly Day[], from: string, to: string): Window => ({
    name: "w",
    days: on,
    fromMinute: minuteOf(from)!,
    toMinute: minuteOf(to)!,
  });
  // 2026-11-23 is a Monday.
  const at = (text: string) => Date.parse(`2026-11-${text}:00Z`);
  const night = window(["mon", "tue"], "22:00", "04:00");
  test.each<[string, Window, string, string]>([
    ["before it opens", night, "23T21:59", "opens 23T22:00"],
    ["as it opens", night, "23T22:00", "closes 24T04:00"],
    ["past midnight it is still the day's before", night, "24T03:59", "closes 24T04:00"],
    ["as it closes", night, "24T04:00", "opens 24T22:00"],
    ["the last night of the week that it is open", night, "25T03:00", "closes 25T04:00"],
    ["then not before next week", night, "25T04:00", "opens 30T22:00"],
    ["in the night of a day that it is not on", night, "25T23:00", "opens 30T22:00"],
    ["within a day", window(days, "09:00", "17:00"), "25T12:00", "closes 25T17:00"],
    ["all day", window(["wed"], "00:00", "24:00"), "25T23:59", "closes 26T00:00"],
    ["all day, and the next is another", window(["wed"], "00:00", "24:00"), "24T23:59", "opens 25T00:00"],
  ])("%s", (_, given, now, expected) => {
    const found = windowAt(given, at(now));
    const time = new Date(found.open ? found.closesAt : found.opensAt).toISOString().slice(8, 16);
    expect(`${found.open ? "closes" : "opens"} ${time}`).toBe(expected);
  });

  test("over a whole week is open exactly as long as its days add up to", () => {
    const start = at("23T00:00");
    let minutes = 0;
    for (let minute = 0; minute < 7 * 1440; minute++)
      if (windowAt(night, start + minute * 60_000).open) minutes++;
    expect(minutes).toBe(2 * 6 * 60);
  });

  test.each(["24:01", "7:00", "12:60", "25:00", "", "aa:bb"])("%j is no time of day", (text) =>
    expect(minuteOf(text)).toBeUndefined(),
  );
});

describe("argument vectors", () => {
  test.each<[string[], string[], boolean]>([
    [["/a"], ["/a"], true],
    [["/a"], ["/a", "b"], false],
    [["/a", "b"], ["/a"], false],
    [["/a", "restart", "*"], ["/a", "restart", "x y"], true],
    [["/a", "restart", "*"], ["/a", "restart"], false],
    [["/a", "restart", "*"], ["/a", "restart", "x", "y"], false],
    [["/a", "**"], ["/a"], true],
    [["/a", "**"], ["/a", "b", "c"], true],
    [["/a", "b", "**"], ["/a", "c", "b"], false],
    [["/a", "*.service"], ["/a", "x.service"], false],
    [["/a", "*"], ["/a", ""], true],
    [["*"], ["/a"], false],
    [["/a"], ["/b"], false],
    [["/a", "b"], ["/a", "B"], false],
    [["/a"], [], false],
  ])("%j takes %j: %s", (pattern, argv, matches) => expect(matchesVector(pattern, argv)).toBe(matches));

  test.each(["/bin/sh", "/usr/bin/bash", "/x/../bin/dash", "/usr/bin/zsh"])("%s is a shell", (program) => {
    const rules = { argv: [[program, "**"]], shell: false, environment: [], directories: [] };
    expect(
      execFault(rules, { argv: [program, "-c", "id"], directory: "/", environment: [] })?.message,
    ).toContain("shell");
    expect(
      execFault({ ...rules, shell: true }, { argv: [program], directory: "/", environment: [] }),
    ).toBeUndefined();
  });

  test("busybox is a shell as one", () => {
    const rules = { argv: [["/bin/busybox", "**"]], shell: false, environment: [], directories: [] };
    const ask = (...argv: string[]) =>
      execFault(rules, { argv: ["/bin/busybox", ...argv], directory: "/", environment: [] });
    expect(ask("sh", "-c", "id")?.code).toBe("policy.exec-not-allowed");
    expect(ask("uptime")).toBeUndefined();
  });
});

test("a plan says what the policy would say, and what it takes unsigned", () => {
  const command = { kind: "host.exec", arguments: { argv: ["/bin/a"] } };
  const closed = { name: "w", days: ["mon" as const], fromMinute: 0, toMinute: 60 };
  const findings = (rules: object) =>
    policyFindings({ nowMs: 0, rules: { ...noRules, ...rules }, command, destructiveToday: 3 }).map(
      ({ guard, ok, code }) => `${guard} ${ok ? "ok" : code}`,
    );
  expect(findings({})).toEqual(["signatures policy.signature-required", "program policy.exec-not-allowed"]);
  const exec = { argv: [["/bin/a"]], shell: false, environment: [], directories: [] };
  expect(
    findings({
      destructivePerDay: 3,
      kinds: { "host.exec": { signatures: { k: 1, from: ["ops"] }, window: closed, exec } },
    }),
  ).toEqual(["signatures ok", "window policy.outside-window", "destructive-per-day ok", "program ok"]);
});

test("waiting is counted by the machine's own time, across executors and reboots", () => {
  const note = { bootId: "a", uptimeMs: 1000, waitedMs: 500 };
  expect(waitedMs(undefined, { bootId: "a", uptimeMs: 9 })).toBe(0);
  expect(waitedMs(note, { bootId: "a", uptimeMs: 4000 })).toBe(3500);
  expect(waitedMs(note, { bootId: "b", uptimeMs: 4000 })).toBe(4500);
  expect(waitedMs(note, { bootId: "a", uptimeMs: 10 })).toBe(500);
});

test("values are compared as JSON has them", () => {
  expect(sameValue({ a: [1, { b: null }], c: "x" }, { c: "x", a: [1, { b: null }] })).toBe(true);
  for (const [a, b] of [
    [{ a: 1 }, { a: 1, b: undefined }],
    [[], {}],
    [null, {}],
    [
      [1, 2],
      [2, 1],
    ],
    [1, "1"],
    [{ a: undefined }, { b: undefined }],
  ])
    expect(sameValue(a, b)).toBe(false);
});
