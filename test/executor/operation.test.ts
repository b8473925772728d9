// One run of an operation through simulated time: cancels, limits, lost links, and being told to stop, each answered truly.
import { describe, expect, test } from "vitest";
import type { CommandContext } from "../../agent/commands/command.ts";
import { hostExec } from "../../agent/commands/host-exec.ts";
import { hostReboot } from "../../agent/commands/host-reboot.ts";
import type { ExecutorEvent } from "../../agent/door/contract.ts";
import type { Followers } from "../../agent/executor/followers.ts";
import type { Journal } from "../../agent/executor/journal.ts";
import { linkDuty, linkLostMs } from "../../agent/executor/link-duty.ts";
import {
  createOperation,
  type ExecutorCommand,
  type OperationOptions,
} from "../../agent/executor/operation.ts";
import { openOutputSpool } from "../../agent/executor/output-spool.ts";
import type { Clock } from "../../agent/host/clock.ts";
import type { CommandLimits, Result } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { limits as bounds } from "../../protocol/limits.ts";
import { hostId, mintId } from "../support/executor-host.ts";

/** Time that passes only when it is told to, and lets all that became due run. */
function simulatedTime() {
  let nowMs = 0;
  const sleepers = new Set<{ readonly at: number; readonly wake: () => void }>();
  const clock: Clock = {
    now: () => 1_700_000_000_000 + nowMs,
    monotonic: () => nowMs,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        const sleeper = { at: nowMs + ms, wake: resolve };
        const stop = () => {
          sleepers.delete(sleeper);
          reject(signal.reason as Error);
        };
        if (signal.aborted) return reject(signal.reason as Error);
        signal.addEventListener("abort", stop, { once: true });
        sleepers.add(sleeper);
      }),
    deadline: (_ms, signal) => Object.assign(AbortSignal.any([signal]), { [Symbol.dispose]() {} }),
  };
  const settle = async () => {
    for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
  };
  return {
    clock,
    settle,
    async pass(ms: number) {
      const until = nowMs + ms;
      await settle();
      for (;;) {
        const next = [...sleepers].sort((a, b) => a.at - b.at)[0];
        if (next === undefined || next.at > until) break;
        nowMs = Math.max(nowMs, next.at);
        sleepers.delete(next);
        next.wake();
        await settle();
      }
      nowMs = until;
    },
  };
}

/** An operation on a host with one program, `/bin/long`, that runs until it is signalled, and a lane that opens when it is told to. */
function stage(
  kind: "host.exec" | "host.reboot",
  limits: CommandLimits = {},
  {
    noReturn = false,
    kept = {},
    paused = false,
  }: { noReturn?: boolean; kept?: Record<string, string>; paused?: boolean } = {},
) {
  const time = simulatedTime();
  const command = {
    id: mintId(),
    host: hostId,
    kind,
    mode: "apply",
    arguments: kind === "host.exec" ? { argv: ["/bin/long"] } : { deadlineSeconds: 60 },
    limits,
  } as ExecutorCommand;
  const events: ExecutorEvent[] = [];
  const state = {
    link: true,
    startedAtMs: -1,
    argv: undefined as readonly string[] | undefined,
    asked: 0,
    results: [] as Result[],
    alive: false,
  };
  const lane = Promise.withResolvers<void>();
  const stopping = new AbortController();
  const exited = Promise.withResolvers<{ exitCode: number | null; signal: string | null }>();
  const files: Record<string, string> = {
    "/bin/long": "\x7fELF",
    "/proc/self/stat": "1 (self) R 1 1 1",
    "/proc/1/comm": "init",
    "/proc/sys/kernel/random/boot_id": "boot",
  };
  const read = (path: string) =>
    path === "/proc/uptime" ? `${time.clock.monotonic() / 1000} 0` : (files[path] ?? null);
  const status = { kind: "file", sizeBytes: 4, mode: 0o755, uid: 0, gid: 0 };
  const host = {
    clock: time.clock,
    facts: () => ({
      text: read,
      optionalText: read,
      exists: (path: string) => path in files,
      unreadable: () => [],
    }),
    files: {
      readBytes(path: string) {
        const text = read(path);
        if (text === null) throw new Error("ENOENT");
        return new TextEncoder().encode(text);
      },
      list: () => (state.alive ? ["4711"] : []),
      status: (path: string) => (path === "/" ? { ...status, kind: "directory" } : status),
      realPath: (path: string) => path,
      mayExecute: () => true,
    },
    processes: {
      async run() {
        state.asked++;
        return { exitCode: 0, output: "", errors: "" };
      },
      async start(argv: readonly string[]) {
        state.argv = argv;
        state.startedAtMs = time.clock.monotonic();
        state.alive = true;
        files["/proc/4711/stat"] = `4711 (long) S 1 4711 4711 ${"0 ".repeat(15)}77`;
        return { pid: 4711, exited: exited.promise, closed: exited.promise.then(() => {}), release() {} };
      },
      cgroup: () => undefined,
      signal(_target: number, signal: NodeJS.Signals) {
        if (!state.alive) return "gone";
        state.alive = false;
        delete files["/proc/4711/stat"];
        exited.resolve({ exitCode: null, signal });
        return "sent";
      },
    },
  };
  const notes = new Map<string, Uint8Array>(
    Object.entries(kept).map(([name, text]) => [name, new TextEncoder().encode(text)]),
  );
  const operation = createOperation({
    command,
    handler: (kind === "host.exec" ? hostExec : hostReboot) as OperationOptions["handler"],
    ...{ noReturn, paused },
    clock: time.clock,
    stopping: stopping.signal,
    journal: {
      startRun: (_id: string, at: number) => ({ type: "running", seq: 2, at, run: 1 }),
      finish(_id: string, event: { at: number; result: Result }) {
        state.results.push(event.result);
        return { ...event, type: "result", seq: 3 };
      },
    } as unknown as Journal,
    followers: {
      publish: (event: ExecutorEvent) => events.push(event),
      linkUp: () => state.link,
    } as unknown as Followers,
    ready: (signal) =>
      Promise.race([
        lane.promise,
        new Promise<never>((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason as Error));
        }),
      ]),
    mayGoOn: async () => {
      if (time.clock.now() > (limits.notAfter ?? Number.POSITIVE_INFINITY))
        throw new BedplateError("command.expired", "Too late.");
    },
    context: {
      host,
      notes: {
        get: (name: string) => notes.get(name),
        set: (entries: Record<string, Uint8Array>) => {
          for (const [name, value] of Object.entries(entries)) notes.set(name, value);
        },
      },
      output: openOutputSpool(() => undefined as never),
      log() {},
    } as unknown as CommandContext,
  });
  const end = operation.run();
  return {
    ...time,
    operation,
    state,
    end,
    events,
    open: () => lane.resolve(),
    refuse: (why: Error) => lane.reject(why),
    stop: () => stopping.abort(),
    exit(exitCode: number) {
      state.alive = false;
      exited.resolve({ exitCode, signal: null });
    },
    result: () => state.results[0],
    phases: () => events.flatMap((event) => (event.type === "progress" ? [event.progress.phase] : [])),
  };
}

describe("a cancel", () => {
  test("while it waits for the lane: it has not begun, and never does", async () => {
    const { operation, end, pass, open, result, state, events } = stage("host.exec");
    await pass(5000);
    expect(operation.cancel("enough")).toEqual({
      answer: "cancelling",
      reason: "it has not begun, and will not",
    });
    open();
    expect(await end).toBe("ended");
    expect(result()).toMatchObject({ outcome: "cancelled", error: { code: "command.cancelled" } });
    expect(state.startedAtMs).toBe(-1);
    expect(events.map(({ type }) => type)).toEqual(["result"]);
    expect(operation.cancel("again")).toMatchObject({ answer: "too-late" });
  });

  test("while it is paused: it ends where it stands", async () => {
    const { operation, end, pass, open, result, state } = stage("host.exec", { onLinkLost: "pause" });
    state.link = false;
    await pass(linkLostMs + 5000);
    open();
    await pass(60_000);
    expect(state.startedAtMs).toBe(-1);
    expect(operation.cancel("enough")).toMatchObject({ answer: "cancelling" });
    await end;
    expect(result()).toMatchObject({ outcome: "cancelled" });
    expect(state.startedAtMs).toBe(-1);
  });

  test("while it runs: what it had printed is kept; without setpriv the result says that it might have outlived us", async () => {
    const { operation, end, pass, open, result, state } = stage("host.exec");
    open();
    await pass(3000);
    operation.cancel("enough");
    await pass(1000);
    await end;
    expect(result()).toMatchObject({
      outcome: "cancelled",
      output: { signal: "SIGTERM", endsWithExecutor: false },
    });
    expect(state.argv).toEqual(["/bin/long"]);
  });

  test("past the point of no return: too late, and no limit stops it either", async () => {
    const { operation, end, pass, open, result, state } = stage("host.reboot", {
      runForSeconds: 5,
      stallAfterSeconds: 5,
      onLinkLost: "abort",
    });
    open();
    await pass(3000);
    expect(state.asked).toBe(1);
    state.link = false;
    expect(operation.cancel("enough")).toEqual({ answer: "too-late", reason: "the host is restarting" });
    await pass(58_000);
    expect(result()).toBeUndefined();
    await pass(5000);
    await end;
    expect(result()).toMatchObject({ outcome: "failed", error: { code: "reboot.not-seen" } });
  });

  test("which an earlier run has passed: too late too, also before this one has begun", async () => {
    const asked = { fromBootId: "before", askedUptimeSeconds: 0, deadlineSeconds: 60, askedAt: 0, count: 1 };
    const { operation, end, pass, open, result, state } = stage(
      "host.reboot",
      { onLinkLost: "abort" },
      { noReturn: true, kept: { boot: JSON.stringify(asked) } },
    );
    state.link = false;
    await pass(linkLostMs + 5000);
    expect(operation.cancel("enough")).toMatchObject({ answer: "too-late" });
    open();
    await pass(3000);
    await end;
    expect(result()).toMatchObject({ outcome: "succeeded", output: { fromBootId: "before" } });
    expect(state.asked).toBe(0);
  });

  test("which an earlier run has passed: limits hold until this one passes it", async () => {
    const { end, pass, open, result } = stage("host.exec", { runForSeconds: 10 }, { noReturn: true });
    open();
    await pass(15_000);
    await end;
    expect(result()).toMatchObject({ outcome: "timed-out" });
  });
});

describe("paused by an operator", () => {
  test("before it begins: whether it still may is asked when it goes on, not before", async () => {
    const { clock } = simulatedTime();
    const { operation, end, pass, open, result, state } = stage("host.exec", {
      notAfter: clock.now() + 60_000,
    });
    operation.pause(true);
    open();
    await pass(120_000);
    expect(result()).toBeUndefined();
    operation.pause(false);
    await pass(2000);
    await end;
    expect(result()).toMatchObject({ outcome: "timed-out", error: { code: "command.expired" } });
    expect(state.startedAtMs).toBe(-1);
  });

  test("in an earlier run that had not begun: this one does not begin either", async () => {
    const { operation, end, pass, open, exit, state, events } = stage("host.exec", {}, { paused: true });
    open();
    await pass(10_000);
    expect(state.startedAtMs).toBe(-1);
    expect(events.some(({ type }) => type === "running")).toBe(false);
    operation.pause(false);
    await pass(2000);
    exit(0);
    await pass(100);
    expect(await end).toBe("ended");
    expect(state.startedAtMs).toBeGreaterThanOrEqual(10_000);
  });
});

describe("limits", () => {
  test.each<[CommandLimits, string, number]>([
    [{ runForSeconds: 10 }, "command.timed-out", 10_000],
    [{ stallAfterSeconds: 7 }, "command.stalled", 7000],
    // What host.exec gets when the command says nothing.
    [{}, "command.timed-out", 3_600_000],
  ])("%j: %s", async (limits, code, ms) => {
    const { end, pass, open, result } = stage("host.exec", limits);
    open();
    await pass(ms - 2000);
    expect(result()).toBeUndefined();
    await pass(5000);
    await end;
    expect(result()).toMatchObject({ outcome: "timed-out", error: { code }, output: { signal: "SIGTERM" } });
  });

  test("waiting for the lane counts for neither", async () => {
    const { end, pass, open, exit, result } = stage("host.exec", {
      runForSeconds: 10,
      stallAfterSeconds: 10,
    });
    await pass(60_000);
    open();
    await pass(5000);
    exit(0);
    await pass(100);
    await end;
    expect(result()).toMatchObject({ outcome: "succeeded" });
  });

  test("the lane was not to be had in time: timed out, as whoever waits for it says", async () => {
    const { end, pass, refuse, result, state } = stage("host.exec");
    await pass(1000);
    refuse(new BedplateError("command.expired", "Too late."));
    expect(await end).toBe("ended");
    expect(result()).toMatchObject({ outcome: "timed-out", error: { code: "command.expired" } });
    expect(state.startedAtMs).toBe(-1);
  });
});

describe("a lost link", () => {
  test.each<[CommandLimits["onLinkLost"], number, string]>([
    [undefined, linkLostMs * 100, "go-on"],
    ["continue", linkLostMs * 100, "go-on"],
    ["pause", linkLostMs, "go-on"],
    ["pause", linkLostMs + 1, "pause"],
    ["abort", linkLostMs, "go-on"],
    ["abort", linkLostMs + 1, "abort"],
  ])("%s, %d ms without it: %s", (onLinkLost, nowMs, duty) =>
    expect(linkDuty(onLinkLost, { nowMs, upAtMs: 0 })).toBe(duty),
  );

  test("abort: ended like a cancel, with its own code, thirty seconds after nobody said that it is up", async () => {
    const { end, pass, open, result, state } = stage("host.exec", { onLinkLost: "abort" });
    open();
    await pass(120_000);
    state.link = false;
    await pass(29_000);
    state.link = true;
    await pass(2000);
    state.link = false;
    await pass(29_000);
    expect(result()).toBeUndefined();
    await pass(4000);
    await end;
    expect(result()).toMatchObject({
      outcome: "cancelled",
      error: { code: "command.link-lost" },
      output: { signal: "SIGTERM" },
    });
  });

  test("abort, while it waits for the lane", async () => {
    const { end, pass, result, state } = stage("host.exec", { onLinkLost: "abort" });
    state.link = false;
    await pass(33_000);
    expect(await end).toBe("ended");
    expect(result()).toMatchObject({ outcome: "cancelled", error: { code: "command.link-lost" } });
    expect(state.startedAtMs).toBe(-1);
  });

  test("pause: it begins when the link is back", async () => {
    const { end, pass, open, exit, result, state, events } = stage("host.exec", { onLinkLost: "pause" });
    state.link = false;
    await pass(40_000);
    open();
    await pass(300_000);
    expect(state.startedAtMs).toBe(-1);
    // That it waits is all that is told.
    expect(events.map((event) => event.type === "progress" && event.progress.paused)).not.toContain(false);
    expect(new Set(events.map(({ type }) => type))).toEqual(new Set(["progress"]));
    state.link = true;
    await pass(1500);
    expect(state.startedAtMs).toBeGreaterThan(340_000);
    exit(0);
    await pass(100);
    await end;
    expect(result()).toMatchObject({ outcome: "succeeded" });
  });

  test("continue: nothing", async () => {
    const { end, pass, open, exit, result, state } = stage("host.exec");
    state.link = false;
    open();
    await pass(500_000);
    exit(0);
    await pass(100);
    await end;
    expect(result()).toMatchObject({ outcome: "succeeded" });
  });
});

describe("told to stop", () => {
  test("what may not be repeated has ended, and nobody knows how far it came", async () => {
    const { end, pass, open, stop, result } = stage("host.exec");
    open();
    await pass(3000);
    stop();
    await pass(1000);
    expect(await end).toBe("ended");
    expect(result()).toMatchObject({
      outcome: "indeterminate",
      error: { code: "command.indeterminate" },
      output: { signal: "SIGTERM" },
    });
  });

  test("what has not begun, and what goes on where it was, stay to be taken up", async () => {
    const waiting = stage("host.exec");
    await waiting.pass(3000);
    waiting.stop();
    expect(await waiting.end).toBe("interrupted");
    const rebooting = stage("host.reboot");
    rebooting.open();
    await rebooting.pass(3000);
    rebooting.stop();
    expect(await rebooting.end).toBe("interrupted");
    expect([waiting.result(), rebooting.result()]).toEqual([undefined, undefined]);
  });
});

test("a result's bound is one of bytes: text that takes three a character does not get past it", async () => {
  const { end, pass, refuse, result } = stage("host.exec");
  const details = { text: "\u20ac".repeat(bounds.resultBytesMax / 2 - 100) };
  refuse(new BedplateError("disk.not-found", "None of many matches.", { details }));
  await pass(100);
  await end;
  expect(result()).toMatchObject({ outcome: "failed", error: { code: "disk.not-found" } });
  expect(Buffer.byteLength(JSON.stringify(result()))).toBeLessThanOrEqual(bounds.resultBytesMax);
});

test("progress of what has no known end: as much as was printed, and no time left", async () => {
  const { end, pass, open, exit, events } = stage("host.exec");
  open();
  await pass(3000);
  exit(0);
  await pass(100);
  await end;
  const progress = events.flatMap((event) => (event.type === "progress" ? [event.progress] : []));
  expect(progress.at(-1)).toEqual({
    phase: "run",
    done: 0,
    total: 0,
    unit: "bytes",
    rate: 0,
    secondsLeft: null,
  });
});
