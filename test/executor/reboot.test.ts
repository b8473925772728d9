// host.reboot and host.poweroff: asked for once, whatever dies in between, and over when the boot id is another one.
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type BootStep, bootDuty } from "../../agent/commands/boot-step.ts";
import type { CommandContext } from "../../agent/commands/command.ts";
import { hostPowerOff } from "../../agent/commands/host-poweroff.ts";
import { hostReboot } from "../../agent/commands/host-reboot.ts";
import { createPause } from "../../agent/host/pause.ts";
import type { Command, CommandOf } from "../../protocol/commands.ts";
import {
  attach,
  type ExecutorHost,
  hostId,
  isRoot,
  mintId,
  openExecutorHost,
  resultOf,
  runRequest,
} from "../support/executor-host.ts";

const boots = {
  first: "11111111-1111-4111-8111-111111111111",
  second: "22222222-2222-4222-8222-222222222222",
};
type Kind = "host.reboot" | "host.poweroff";
const command = (kind: Kind, asked: object = {}, mode: "apply" | "plan" = "apply") =>
  ({ id: mintId(), host: hostId, kind, mode, arguments: asked, limits: {} }) as CommandOf<Kind>;

describe("what is to be done", () => {
  const step: BootStep = {
    fromBootId: "a",
    askedUptimeSeconds: 100,
    deadlineSeconds: 900,
    askedAt: 0,
    count: 1,
  };
  test.each<[string, BootStep | undefined, { bootId: string; uptimeSeconds: number }, string]>([
    ["nothing was asked yet", undefined, { bootId: "a", uptimeSeconds: 5 }, "ask"],
    ["asked, the same boot", step, { bootId: "a", uptimeSeconds: 200 }, "wait"],
    [
      "asked, the same boot, taken up for the ninth time",
      { ...step, count: 9 },
      { bootId: "a", uptimeSeconds: 200 },
      "wait",
    ],
    ["at the deadline", step, { bootId: "a", uptimeSeconds: 1000 }, "wait"],
    ["past the deadline", step, { bootId: "a", uptimeSeconds: 1000.1 }, "late"],
    ["another boot", step, { bootId: "b", uptimeSeconds: 3 }, "left"],
    ["another boot, long after", step, { bootId: "b", uptimeSeconds: 1e6 }, "left"],
    ["the kernel does not tell now", step, { bootId: "", uptimeSeconds: 200 }, "wait"],
  ])("%s", (_, known, now, duty) => expect(bootDuty(known, now)).toBe(duty));
});

/** A machine that goes through time as somebody sleeps, and whose executor may be killed at any moment. */
function machine(
  options: {
    systemd?: boolean;
    programs?: readonly string[];
    exitCode?: number | null;
    bootsAfterMs?: number;
  } = {},
) {
  const { systemd = true, programs = ["systemctl", "reboot", "poweroff"], exitCode = 0 } = options;
  const notes = new Map<string, Uint8Array>();
  const state = {
    bootId: boots.first,
    uptimeMs: 50_000,
    wallMs: 1_000_000,
    asked: [] as string[],
    downAtMs: Number.POSITIVE_INFINITY,
  };
  const pass = (ms: number) => {
    state.uptimeMs += ms;
    state.wallMs += ms;
    if (state.uptimeMs < state.downAtMs) return;
    state.downAtMs = Number.POSITIVE_INFINITY;
    state.bootId = boots.second;
    state.uptimeMs = 4000;
    state.wallMs += 30_000;
  };
  const read = (path: string) =>
    ({
      "/proc/sys/kernel/random/boot_id": state.bootId,
      "/proc/uptime": `${state.uptimeMs / 1000} 1.0`,
      "/proc/1/comm": systemd ? "systemd" : "init",
    })[path] ?? null;
  let stepsLeft = Number.POSITIVE_INFINITY;
  /** Whatever is done, the executor may die right before it, or right after. */
  const step = () => {
    if (stepsLeft-- <= 0) throw new Error("killed");
  };
  let tooLate: string | undefined;
  let noReturn = false;
  const run = (
    kind: Kind,
    asked: object = {},
    { kill = Number.POSITIVE_INFINITY, abort = new AbortController() } = {},
  ) => {
    stepsLeft = kill;
    tooLate = undefined;
    const { signal } = abort;
    const context = {
      host: {
        clock: {
          now: () => state.wallMs,
          monotonic: () => state.uptimeMs,
          async sleep(ms: number, until: AbortSignal) {
            until.throwIfAborted();
            step();
            pass(ms);
          },
          deadline: () => Object.assign(new AbortController().signal, { [Symbol.dispose]() {} }),
        },
        processes: {
          run: async (argv: readonly [string, ...string[]]) => {
            if (!programs.includes(argv[0])) return "missing";
            step();
            state.asked.push(argv.join(" "));
            if (exitCode === 0 && options.bootsAfterMs !== undefined)
              state.downAtMs = state.uptimeMs + options.bootsAfterMs;
            step();
            return { exitCode, output: "", errors: "no" };
          },
        },
        facts: () => ({ text: read, optionalText: read, unreadable: () => [] }),
      },
      notes: {
        get: (name: string) => notes.get(name),
        set: (entries: Record<string, Uint8Array>) => {
          step();
          for (const [name, value] of Object.entries(entries)) notes.set(name, value);
          step();
        },
      },
      phase() {},
      pause: createPause(signal),
      pointOfNoReturn(why: string, entries: Record<string, Uint8Array> = {}) {
        signal.throwIfAborted();
        step();
        for (const [name, value] of Object.entries(entries)) notes.set(name, value);
        noReturn = true;
        tooLate = why;
        step();
      },
      log() {},
    } as unknown as CommandContext;
    const handler = kind === "host.reboot" ? hostReboot : hostPowerOff;
    return handler.run(command(kind, asked) as never, context, signal);
  };
  return { state, run, tooLate: () => tooLate, noReturn: () => noReturn };
}

describe("on a simulated machine", () => {
  test.each<[Kind, boolean, string]>([
    ["host.reboot", true, "systemctl reboot"],
    ["host.reboot", false, "reboot"],
    ["host.poweroff", true, "systemctl poweroff"],
    ["host.poweroff", false, "poweroff"],
  ])("%s, systemd %s: %s", async (kind, systemd, asked) => {
    const { state, run } = machine({ systemd, bootsAfterMs: 20_000 });
    const { output } = await run(kind);
    expect(state.asked).toEqual([asked]);
    expect(output).toEqual({ fromBootId: boots.first, bootId: boots.second, seconds: 50 });
  });

  test("killed at any step, and taken up again until it ends: asked once at most, and never thought to be back when it is not", async () => {
    const endings = new Set<string>();
    for (let kill = 0; kill < 30; kill++) {
      const { state, run } = machine({ bootsAfterMs: 3000 });
      for (let runs = 0; ; runs++) {
        expect(runs).toBeLessThan(1000);
        const steps = { kill: kill + 7 * runs };
        const end = await run("host.reboot", { deadlineSeconds: 20 }, steps).catch((error: Error) => error);
        if (end instanceof Error && end.message === "killed") continue;
        endings.add(end instanceof Error ? (end as { code?: string }).code! : "left");
        // Killed between the note and the program, it was never asked: it stays in its boot, and says so.
        expect(end instanceof Error ? state.asked.length : 1).toBe(
          end instanceof Error ? 0 : state.asked.length,
        );
        break;
      }
    }
    expect([...endings].sort()).toEqual(["left", "reboot.not-seen"]);
  });

  test("killed at any step: who is past the point of no return, and so not held against the policy again, asks no more", async () => {
    const seen = new Set<string>();
    for (let kill = 0; kill < 12; kill++) {
      const { state, run, noReturn } = machine();
      const first = await run("host.reboot", { deadlineSeconds: 5 }, { kill }).catch((error: Error) => error);
      if ((first as Error).message !== "killed") continue;
      const before = state.asked.length;
      seen.add(`${noReturn()} ${before}`);
      if (!noReturn()) {
        // The policy is asked again before it goes on: nothing was done yet.
        expect(before).toBe(0);
        continue;
      }
      await expect(run("host.reboot", { deadlineSeconds: 5 })).rejects.toMatchObject({
        code: "reboot.not-seen",
      });
      expect(state.asked).toHaveLength(before);
    }
    expect([...seen].sort()).toEqual(["false 0", "true 0", "true 1"]);
  });

  test("a host that stays in its boot: told once, and failed at the deadline", async () => {
    const { state, run } = machine();
    const began = state.uptimeMs;
    await expect(run("host.reboot", { deadlineSeconds: 60 })).rejects.toMatchObject({
      code: "reboot.not-seen",
      details: { deadlineSeconds: 60, runs: 1 },
    });
    expect(state.uptimeMs - began).toBeGreaterThan(60_000);
    await expect(run("host.reboot", { deadlineSeconds: 60 })).rejects.toMatchObject({
      code: "reboot.not-seen",
      details: { runs: 2 },
    });
    expect(state.asked).toEqual(["systemctl reboot"]);
  });

  test("systemctl is missing: the plain program; none: said so; refused: said so, and not tried again", async () => {
    const plain = machine({ programs: ["reboot"], bootsAfterMs: 1000 });
    await plain.run("host.reboot");
    expect(plain.state.asked).toEqual(["reboot"]);
    await expect(machine({ programs: [] }).run("host.reboot")).rejects.toMatchObject({
      code: "reboot.unavailable",
    });
    const refused = machine({ exitCode: 1 });
    await expect(refused.run("host.reboot")).rejects.toMatchObject({
      code: "reboot.unavailable",
      details: { exitCode: 1 },
    });
    expect(refused.state.asked).toHaveLength(1);
  });

  test("the program dies of the reboot it asked for: waited for none the less", async () => {
    const { run, state } = machine({ exitCode: null });
    const end = run("host.reboot", { deadlineSeconds: 10 });
    await expect(end).rejects.toMatchObject({ code: "reboot.not-seen" });
    expect(state.asked).toHaveLength(1);
  });

  test("a cancel before it is asked for ends it, and nothing was asked", async () => {
    const abort = new AbortController();
    const { run, state, tooLate } = machine();
    const cancelled = Object.assign(new Error("cancelled"), { code: "command.cancelled" });
    const end = run("host.reboot", {}, { abort });
    abort.abort(cancelled);
    await expect(end).rejects.toBe(cancelled);
    expect([state.asked, tooLate()]).toEqual([[], undefined]);
  });
});

/** Real processes, with stand-ins for the machine's programs and the kernel's boot id in a mount namespace of their own. */
describe.skipIf(!isRoot || !existsSync("/usr/sbin/reboot"))(
  "executors that are killed",
  { timeout: 180_000 },
  () => {
    let directory: string;
    let host: ExecutorHost;
    const at = (name: string) => join(directory, name);
    beforeAll(async () => {
      directory = await mkdtemp(join(tmpdir(), "bp-boot-"));
      await writeFile(at("program"), `#!/bin/sh\necho "\${0##*/}\${*:+ $*}" >> ${at("asked")}\n`, {
        mode: 0o755,
      });
      await writeFile(at("boot_id"), `${boots.first}\n`);
      await writeFile(at("comm"), "systemd\n");
      await uptime(100);
      host = await openExecutorHost([
        // One file under several names where systemd is installed: all of them are covered.
        ...["/usr/sbin/reboot", "/usr/sbin/poweroff", "/usr/bin/systemctl"]
          .filter((target) => existsSync(target))
          .map((target) => ({ source: at("program"), target })),
        { source: at("boot_id"), target: "/proc/sys/kernel/random/boot_id" },
        { source: at("comm"), target: "/proc/1/comm" },
        { source: at("uptime"), target: "/proc/uptime" },
      ]);
      await host.writePolicy('unsigned = ["host.reboot", "host.poweroff", "image.deploy"]\n');
    });
    afterAll(async () => {
      await host?.[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    });
    beforeEach(async () => {
      await rm(at("asked"), { force: true });
      await writeFile(at("boot_id"), `${boots.first}\n`);
      await writeFile(at("comm"), "systemd\n");
      await uptime(100);
    });
    /** Of the boot that the host is in: nobody waits for a deadline to pass by itself. */
    const uptime = (seconds: number) => writeFile(at("uptime"), `${seconds}.00 1.00\n`);
    const asked = async () =>
      existsSync(at("asked")) ? (await readFile(at("asked"), "utf8")).trim().split("\n") : [];
    const untilAsked = async () => {
      for (let tries = 0; tries < 600; tries++, await sleep(25)) if ((await asked()).length > 0) return;
      throw new Error("nobody asked for a reboot");
    };

    test.each<[Kind, string, string]>([
      ["host.reboot", "systemd", "systemctl reboot"],
      ["host.reboot", "init", "reboot"],
      ["host.poweroff", "systemd", "systemctl poweroff"],
      ["host.poweroff", "init", "poweroff"],
    ])(
      "%s under %s: the executor dies with the machine, and the next one sees the new boot",
      async (kind, first, line) => {
        await writeFile(at("comm"), `${first}\n`);
        const sent = command(kind, { reason: "kernel update" }) as Command;
        const before = host.start(runRequest(sent));
        await untilAsked();
        before.process.kill("SIGKILL");
        await before.ended;
        await writeFile(at("boot_id"), `${boots.second}\n`);
        const after = host.start(runRequest(sent));
        const follower = await attach(host, sent.id);
        expect(resultOf(await follower.last)).toMatchObject({
          outcome: "succeeded",
          output: { fromBootId: boots.first, bootId: boots.second },
        });
        follower.close();
        await after.ended;
        expect(await asked()).toEqual([line]);
      },
    );

    test("killed before the machine went down, twice: it is not told again, and a cancel comes too late", async () => {
      const sent = command("host.reboot", { deadlineSeconds: 30 }) as Command;
      const first = host.start(runRequest(sent));
      await untilAsked();
      first.process.kill("SIGKILL");
      await first.ended;
      const second = host.start(runRequest(sent));
      const follower = await attach(host, sent.id);
      await follower.until((event) => event.type === "running" && event.run === 2);
      second.process.kill("SIGTERM");
      expect(await second.ended).toBe(4);
      const third = host.start(runRequest(sent));
      const last = await attach(host, sent.id);
      await last.until((event) => event.type === "running" && event.run === 3);
      await sleep(300);
      last.cancel("changed my mind");
      expect(await last.until((event) => event.type === "cancel")).toMatchObject({ answer: "too-late" });
      await uptime(131);
      expect(resultOf(await last.last)).toMatchObject({
        outcome: "failed",
        error: { code: "reboot.not-seen", details: { runs: 3 } },
      });
      last.close();
      await third.ended;
      expect(await asked()).toEqual(["systemctl reboot"]);
    });

    test("a cancel about the second before it is asked for: cancelled and not asked, or too late and asked", async () => {
      const sent = command("host.reboot", { deadlineSeconds: 10 }) as Command;
      const executor = host.start(runRequest(sent));
      const follower = await attach(host, sent.id);
      await follower.until((event) => event.type === "running");
      follower.cancel("changed my mind");
      const answer = await follower.until((event) => event.type === "cancel");
      if (answer.type === "cancel" && answer.answer === "too-late") {
        await untilAsked();
        await uptime(111);
      }
      const result = resultOf(await follower.last);
      follower.close();
      await executor.ended;
      expect([answer, result.error?.code, await asked()]).toEqual(
        answer.type === "cancel" && answer.answer === "cancelling"
          ? [expect.objectContaining({ answer: "cancelling" }), "command.cancelled", []]
          : [expect.objectContaining({ answer: "too-late" }), "reboot.not-seen", ["systemctl reboot"]],
      );
    });

    test("a plan says which program would be run, from which boot", async () => {
      const sent = command("host.reboot", { deadlineSeconds: 120 }, "plan") as Command;
      const executor = host.start(runRequest(sent));
      const follower = await attach(host, sent.id);
      expect(resultOf(await follower.last)).toMatchObject({
        outcome: "succeeded",
        output: {
          programs: [["systemctl", "reboot"], ["reboot"]],
          bootId: boots.first,
          deadlineSeconds: 120,
        },
      });
      follower.close();
      await executor.ended;
      expect(await asked()).toEqual([]);
    });
  },
);
