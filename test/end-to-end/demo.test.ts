// The demo whole, as a user runs it: every act with real processes, and afterwards nothing is left.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  bytesWrittenBy,
  descendantsOf,
  isExecutor,
  type ProcessMark,
  processMark,
} from "../../cli/demo/processes.ts";
import type { DemoSummary } from "../../cli/demo/summary.ts";
import { programPath } from "../support/programs.ts";

const program = programPath("bedplate");
/** The demo of this test works in here, so that another demo on the machine is not mistaken for its remains. */
let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-demo-test-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
}

function demo(
  argv: readonly string[],
  during?: (pid: number) => Promise<void>,
  reader?: "leaves",
): Promise<Run> {
  const started = performance.now();
  const child = spawn(process.execPath, [program, "demo", ...argv], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env.PATH, HOME: directory, TMPDIR: directory },
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk;
    if (reader === "leaves") child.stdout.destroy();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk;
  });
  const ended = new Promise<Run>((resolve) =>
    child.once("close", (code) =>
      resolve({ code, stdout, stderr, seconds: (performance.now() - started) / 1000 }),
    ),
  );
  return during === undefined ? ended : during(child.pid!).then(() => ended);
}

/** What carries the directory's name: files in it, processes, loop devices, mounts. */
function remains() {
  const processes = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(directory);
      } catch {
        return false;
      }
    });
  const loops = existsSync("/sys/class/block")
    ? readdirSync("/sys/class/block").filter((name) => {
        try {
          return readFileSync(`/sys/class/block/${name}/loop/backing_file`, "utf8").includes(directory);
        } catch {
          return false;
        }
      })
    : [];
  const mounts = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.includes(directory));
  return { files: readdirSync(directory), processes, loops, mounts };
}
const nothing = { files: [], processes: [], loops: [], mounts: [] };

test("every act ends as it must, in time, and nothing is left", { timeout: 180_000 }, async () => {
  const run = await demo(["--once", "--json", "--size", "64M"]);
  expect(run.stderr).toBe("");
  const summary = JSON.parse(run.stdout) as DemoSummary;
  expect(Object.keys(summary)).toEqual(["ok", "host", "telemetry", "image", "deploy", "corrupt", "resume"]);
  expect(summary.ok).toBe(true);
  expect(run.code).toBe(0);

  expect(summary.host).toMatchObject({ name: "demo-host", id: expect.stringMatching(/^[0-9a-f]{64}$/) });
  // A lab's policy, and it says so.
  expect(summary.host!.unsigned).toEqual(["image.deploy"]);
  expect(summary.host!.disks.filter((disk) => disk.allowed).length).toBe(3);
  expect(summary.telemetry!.samples).toBeGreaterThan(3);
  expect(summary.telemetry!.series).toBeGreaterThan(50);
  expect(summary.telemetry!.gaps).toBe(0);

  const { image, deploy, corrupt, resume } = summary;
  expect(image!.sizeBytes).toBe(64 << 20);
  expect(deploy!.state).toBe("succeeded");
  expect(deploy!.readback).toBe(image!.root);
  expect(deploy!.bytesFetched).toBeGreaterThan(1 << 20);
  expect(deploy!.bytesFetched).toBeLessThan(image!.sizeBytes);
  expect(deploy!.bytesWritten).toBeGreaterThan(deploy!.bytesFetched);
  expect(deploy!.bytesWritten + deploy!.bytesSkipped).toBeLessThanOrEqual(image!.sizeBytes);
  expect(deploy!.seconds).toBeGreaterThan(0);
  expect(corrupt).toMatchObject({ state: "failed", code: "image.corrupt", bytesWrittenOfBadGroup: 0 });
  expect(corrupt!.group).toBeGreaterThan(0);
  expect(resume!.state).toBe("succeeded");
  expect(resume!.groupsRewritten).toBeLessThan(64);

  expect(remains()).toEqual(nothing);
});

test("an interrupt at any moment leaves nothing either", { timeout: 180_000 }, async () => {
  // While the controller starts, while the host joins, and during the acts.
  for (const afterMs of [400, 1500, 6000]) {
    const run = await demo(["--once", "--json", "--size", "64M"], async (pid) => {
      await sleep(afterMs);
      process.kill(pid, "SIGINT");
    });
    // Interrupted before its handlers are there, Node itself ends by the signal.
    expect([7, 0, null], run.stderr).toContain(run.code);
    if (run.code === 7)
      expect(JSON.parse(run.stdout)).toMatchObject({ error: { code: "command.cancelled" } });
    expect(remains(), `interrupted after ${afterMs} ms`).toEqual(nothing);
  }
});

test("nor does a reader that leaves after the first lines", { timeout: 60_000 }, async () => {
  const run = await demo(["--once", "--size", "64M"], undefined, "leaves");
  expect(run.stdout).toContain("1. A host joins");
  expect([run.code, run.stderr]).toEqual([7, expect.stringContaining("Interrupted.")]);
  expect(remains()).toEqual(nothing);
});

test("an interrupt while an executor writes ends that executor too", { timeout: 120_000 }, async () => {
  let executor: ProcessMark | undefined;
  const run = await demo(["--once", "--json", "--size", "192M"], async (pid) => {
    const until = performance.now() + 90_000;
    while (executor === undefined && performance.now() < until) {
      executor = descendantsOf(pid).find(
        (mark) => isExecutor(mark) && (bytesWrittenBy(mark.pid) ?? 0) > 2 << 20,
      );
      await sleep(5);
    }
    process.kill(pid, "SIGINT");
  });
  expect(executor).toBeDefined();
  expect(run.code, run.stderr).toBe(7);
  expect(processMark(executor!.pid)?.startTime).not.toBe(executor!.startTime);
  expect(remains()).toEqual(nothing);
});

test("an image that cannot be taken fails at once, and leaves nothing", { timeout: 60_000 }, async () => {
  const run = await demo(["--once", "--json", "--image", "/nowhere/image.raw"]);
  expect(run.code).toBe(1);
  expect(JSON.parse(run.stdout)).toMatchObject({ ok: false, error: { code: "file.unreadable" } });
  const small = await demo(["--once", "--json", "--size", "1M"]);
  expect(small.code).toBe(2);
  expect(remains()).toEqual(nothing);
});

test.runIf(spawnSync("sh", ["-c", "command -v script"]).status === 0)(
  "on a terminal it shows its acts, a live view, and ends with an interrupt",
  { timeout: 180_000 },
  async () => {
    const shell = `exec ${process.execPath} ${program} demo --size 32M`;
    const child = spawn("script", ["--quiet", "--flush", "--command", shell, "/dev/null"], {
      stdio: ["pipe", "pipe", "ignore"],
      env: { PATH: process.env.PATH, HOME: directory, TMPDIR: directory, TERM: "xterm" },
    });
    let text = "";
    const live = Promise.withResolvers<void>();
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk;
      if (text.includes("Now a live view")) live.resolve();
    });
    await Promise.race([live.promise, ended]);
    const before = text.length;
    await sleep(3000);
    // What the terminal turns into an interrupt of its foreground.
    child.stdin.write("\u0003");
    expect(await ended).toBe(0);
    for (const act of [
      "A host joins",
      "Deploy",
      "A server that flips one bit",
      "killed half-way",
      "All of it held",
    ]) {
      expect(text).toContain(act);
    }
    expect(text).toContain("\u001b[1m");
    expect(text.slice(before)).toMatch(/cpu/i);
    expect(remains()).toEqual(nothing);
  },
);
