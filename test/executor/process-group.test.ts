// Whose process group it is, and whether it is gone: from what /proc says, over simulated processes.
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { Host, Notes } from "../../agent/commands/command.ts";
import { endFamily, familyOf, parseStat } from "../../agent/commands/process-family.ts";
import { endLeftover, markOf, noteGroup } from "../../agent/commands/process-group.ts";
import type { Cgroup } from "../../agent/host/cgroup.ts";
import { systemFiles } from "../../agent/host/files.ts";

const operation = "019ab000-0000-7000-8000-000000000001";

describe("/proc/PID/stat", () => {
  test.each<[string, unknown]>([
    [
      "4711 (sleep) S 1 4711 4711 0 -1 4194304 92 0 0 0 0 0 0 0 20 0 1 0 123456 5591040 208",
      { state: "S", parent: 1, group: 4711, startTicks: 123456 },
    ],
    [
      "4711 (a) R 9 8 7) Z 17 4712 4711 0 -1 4194304 92 0 0 0 0 0 0 0 20 0 1 0 99 5591040",
      { state: "Z", parent: 17, group: 4712, startTicks: 99 },
    ],
    ["", undefined],
    ["4711 (sleep) S 1", undefined],
    ["4711 (sleep) S 1 x 4711 0 -1 4194304 92 0 0 0 0 0 0 0 20 0 1 0 123456", undefined],
  ])("%j", (text, found) => expect(parseStat(text)).toEqual(found));

  test("of this very process", () => {
    const found = parseStat(readFileSync("/proc/self/stat", "utf8"))!;
    expect(found.state).toMatch(/^[RS]$/);
    const mark = markOf(systemFiles, process.pid, "boot")!;
    expect(mark).toEqual({ group: process.pid, startTicks: found.startTicks, bootId: "boot" });
    expect(markOf(systemFiles, 2 ** 22 + 1, "boot")).toBeUndefined();
  });
});

interface Fake {
  readonly group: number;
  readonly start: number;
  readonly state?: string;
  readonly parent?: number;
  readonly operation?: string;
  /** In the operation's cgroup. */
  readonly confined?: boolean;
  /** Signals that do not end it. */
  readonly ignores?: readonly string[];
}

/** Processes by their numbers; signals end them at once, unless they ignore them. */
function machine(processes: Record<number, Fake>, { bootId = "boot-1", withCgroup = false } = {}) {
  const living = new Map(Object.entries(processes).map(([pid, fake]) => [Number(pid), fake]));
  const signals: string[] = [];
  let nowMs = 0;
  const text = (path: string) => {
    if (path === "/proc/sys/kernel/random/boot_id") return bootId;
    if (path === "/proc/self/stat") return `1000 (node) R 1 1000 1000 ${"0 ".repeat(15)}5`;
    const [, pid, name] = /^\/proc\/(\d+)\/(\w+)$/.exec(path) ?? [];
    const fake = living.get(Number(pid));
    if (fake === undefined) throw Object.assign(new Error("ENOENT"), { code: "ENOENT" });
    if (name === "stat")
      return `${pid} (x) ${fake.state ?? "S"} ${fake.parent ?? 1} ${fake.group} 1 ${"0 ".repeat(15)}${fake.start}`;
    return `PATH=/bin\0${fake.operation === undefined ? "" : `BEDPLATE_OPERATION=${fake.operation}\0`}A=b\0`;
  };
  const end = (members: readonly (readonly [number, Fake])[], signal: string) => {
    for (const [pid, { ignores = [] }] of members) if (!ignores.includes(signal)) living.delete(pid);
  };
  let removed = 0;
  const cgroup: Cgroup = {
    directory: "/sys/fs/cgroup/bedplate-exec",
    members: () => [...living].filter(([, fake]) => fake.confined).map(([pid]) => pid),
    enter: (work) => work(),
    kill() {
      signals.push("cgroup.kill");
      end(
        [...living].filter(([, fake]) => fake.confined),
        "SIGKILL",
      );
      return "sent";
    },
    remove: () => void removed++,
  };
  const notes = new Map<string, Uint8Array>();
  const host = {
    clock: {
      monotonic: () => nowMs,
      sleep: async (ms: number) => {
        nowMs += ms;
      },
    },
    files: {
      list: () => ["self", "sys", ...[...living.keys()].map(String)],
      readBytes: (path: string) => new TextEncoder().encode(text(path)),
    },
    processes: {
      cgroup: () => (withCgroup ? cgroup : undefined),
      signal(target: number, signal: string) {
        const members = [...living].filter(([pid, fake]) =>
          target < 0 ? fake.group === -target : pid === target,
        );
        if (members.length === 0) return "gone";
        signals.push(`${signal} ${target}`);
        end(members, signal);
        return "sent";
      },
    },
  } as unknown as Host;
  const kept: Notes = {
    get: (name) => notes.get(name),
    set: (entries) => {
      for (const [name, value] of Object.entries(entries)) notes.set(name, value);
    },
  };
  return {
    ...{ host, notes: kept, signals, cgroup: withCgroup ? cgroup : undefined },
    begin: (pid: number, fake: Fake) => void living.set(pid, fake),
    ...{ now: () => nowMs, lives: () => [...living.keys()], removed: () => removed },
  };
}

describe("ending a program with all that it started", () => {
  const family = { operation, group: 50, cgroup: undefined };
  test("TERM suffices", async () => {
    const { host, signals, now } = machine({
      50: { group: 50, start: 1 },
      51: { group: 50, start: 2 },
      60: { group: 60, start: 3 },
    });
    expect(await endFamily(family, host)).toBe(true);
    expect([signals, now() < 200]).toEqual([["SIGTERM -50"], true]);
  });
  test("KILL after five seconds", async () => {
    const { host, signals, now, lives } = machine({
      50: { group: 50, start: 1, ignores: ["SIGTERM"] },
      60: { group: 60, start: 3 },
    });
    expect(await endFamily(family, host)).toBe(true);
    expect([signals, now() >= 5000, lives()]).toEqual([["SIGTERM -50", "SIGKILL -50"], true, [60]]);
  });
  test("not even KILL: it says so", async () => {
    const { host, now } = machine({ 50: { group: 50, start: 1, ignores: ["SIGTERM", "SIGKILL"] } });
    expect(await endFamily(family, host)).toBe(false);
    expect(now()).toBeGreaterThanOrEqual(10_000);
  });
  test("one that is dead already, and that nobody has asked for, is not waited for", async () => {
    const { host, signals } = machine({ 50: { group: 50, start: 1, state: "Z" } });
    expect(await endFamily(family, host)).toBe(true);
    expect(signals).toEqual([]);
  });
  test("what left the group: found by what it carries, or by whose child it is; what has shed both is not", async () => {
    const { host, lives } = machine({
      50: { group: 50, start: 1, operation },
      70: { group: 70, start: 2, operation },
      71: { group: 71, start: 3, parent: 70 },
      72: { group: 72, start: 4, parent: 71 },
      80: { group: 80, start: 5 },
      90: { group: 90, start: 6, operation: "019ab000-0000-7000-8000-000000000002" },
    });
    expect(await endFamily(family, host)).toBe(true);
    expect(lives()).toEqual([80, 90]);
  });
  test("the number of its group, given to somebody else: at once, or while what heeds no TERM is waited for", async () => {
    const taken = machine({ 50: { group: 50, start: 9 }, 51: { group: 50, start: 10, parent: 50 } });
    expect(await endFamily({ ...family, groupStartTicks: 1 }, taken.host)).toBe(true);
    expect([taken.lives(), taken.signals]).toEqual([[50, 51], []]);

    const later = machine({
      50: { group: 50, start: 1 },
      70: { group: 70, start: 2, operation, ignores: ["SIGTERM"] },
    });
    const { clock } = later.host as unknown as { clock: { sleep: (ms: number) => Promise<void> } };
    const { sleep } = clock;
    clock.sleep = async (ms) => {
      if (!later.lives().includes(50)) later.begin(50, { group: 50, start: 9 });
      await sleep(ms);
    };
    expect(await endFamily({ ...family, groupStartTicks: 1 }, later.host)).toBe(true);
    expect(later.lives()).toEqual([50]);
  });
  test("in a cgroup of its own nothing is missed, and one kill ends what heeds no TERM", async () => {
    const { host, cgroup, lives, signals } = machine(
      {
        50: { group: 50, start: 1, confined: true },
        80: { group: 80, start: 5, confined: true, ignores: ["SIGTERM"] },
        90: { group: 90, start: 6 },
      },
      { withCgroup: true },
    );
    expect(await endFamily({ ...family, cgroup }, host)).toBe(true);
    expect(lives()).toEqual([90]);
    expect(signals).toEqual(["SIGTERM -50", "SIGTERM 80", "cgroup.kill"]);
  });
  test("never this executor, its agent, or what has its group, whoever started them", () => {
    const { host } = machine({
      50: { group: 50, start: 1 },
      // Started by the program, and nobody's child since: an agent, whose child this executor is.
      900: { group: 900, start: 2, operation },
      1000: { group: 1000, start: 3, parent: 900, operation },
      1001: { group: 1000, start: 4, parent: 1000 },
    });
    expect(familyOf(host.files, family).map(({ pid }) => pid)).toEqual([50]);
  });
});

describe("what a dead executor left", () => {
  const mark = { group: 50, startTicks: 77, bootId: "boot-1" };
  test.each<[string, Record<number, Fake>, string, number[]]>([
    ["nothing", { 60: { group: 60, start: 1 } }, "gone", [60]],
    ["its program", { 50: { group: 50, start: 77 }, 60: { group: 60, start: 1 } }, "ended", [60]],
    ["a child of its program, which is gone", { 51: { group: 50, start: 78, operation } }, "ended", []],
    ["another process with its number", { 50: { group: 50, start: 99 } }, "not-ours", [50]],
    [
      "another process with its number, of another operation",
      { 50: { group: 50, start: 99, operation: "other" } },
      "not-ours",
      [50],
    ],
    [
      "a group without its first process, of which nothing shows whose it is",
      { 51: { group: 50, start: 78 } },
      "not-ours",
      [51],
    ],
    ["its program, dead already", { 50: { group: 50, start: 77, state: "Z" } }, "gone", [50]],
    [
      "one that does not die",
      { 50: { group: 50, start: 77, ignores: ["SIGTERM", "SIGKILL"] } },
      "stuck",
      [50],
    ],
  ])("%s", async (_, processes, leftover, living) => {
    const { host, notes, lives } = machine(processes);
    noteGroup(notes, mark);
    expect(await endLeftover(operation, notes, host)).toBe(leftover);
    expect(lives()).toEqual(living);
  });

  test("in its cgroup: ended though its group is another's by now, and the cgroup goes", async () => {
    const { host, notes, lives, removed } = machine(
      { 50: { group: 50, start: 99 }, 70: { group: 70, start: 3, confined: true } },
      { withCgroup: true },
    );
    noteGroup(notes, mark);
    expect(await endLeftover(operation, notes, host)).toBe("ended");
    expect([lives(), removed()]).toEqual([[50], 1]);
  });

  test("after a reboot there is nothing of it, whatever has its number", async () => {
    const { host, notes, lives } = machine({ 50: { group: 50, start: 77, operation } }, { bootId: "boot-2" });
    noteGroup(notes, mark);
    expect(await endLeftover(operation, notes, host)).toBe("gone");
    expect(lives()).toEqual([50]);
  });

  test("killed before it could note its program: found by the operation's id in what it inherited", async () => {
    const { host, notes, lives } = machine({
      50: { group: 50, start: 77, operation },
      51: { group: 50, start: 78, operation },
      60: { group: 60, start: 1 },
      61: { group: 61, start: 1, operation: "019ab000-0000-7000-8000-000000000002" },
      // Of this executor's own group, started by somebody who was started by the program.
      1001: { group: 1000, start: 9, operation },
    });
    expect(await endLeftover(operation, notes, host)).toBe("ended");
    expect(lives()).toEqual([60, 61, 1001]);
  });
});
