// Several disks in one command, and its pausing, as an operator does it: a real controller, agent, executors and `bedplate`.
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DemoHost, openHost, openStage } from "../../cli/demo/stage.ts";
import type { CommandView } from "../../protocol/api.ts";
import { formatDiskSelector } from "../../protocol/disks.ts";

const program = fileURLToPath(new URL("../../cli/bedplate.ts", import.meta.url));
const mib = 1 << 20;
const diskBytes = 32 * mib;
const isRoot = process.geteuid?.() === 0;
const stop = new AbortController();
const image = Buffer.concat([randomBytes(14 * mib), Buffer.alloc(2 * mib), randomBytes(8 * mib)]);
let directory: string;
let stage: Awaited<ReturnType<typeof openStage>>;
let host: DemoHost;
let small = false;

interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function bedplate(...argv: readonly string[]): Promise<Run> {
  const child = spawn(process.execPath, [program, ...argv], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env.PATH, HOME: directory, TMPDIR: directory, BEDPLATE_CLIENT: stage.clientFile },
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk;
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk;
  });
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
}
async function json<T>(code: number, ...argv: string[]): Promise<T> {
  const run = await bedplate(...argv, "--json");
  expect(run.code, `${argv.join(" ")}: ${run.stdout}${run.stderr}`).toBe(code);
  return JSON.parse(run.stdout) as T;
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bp-several-"));
  stage = await openStage({ signal: stop.signal });
  const { token } = await stage.client.createJoinToken({});
  const room = join(directory, "room");
  await mkdir(room);
  // Room for one image and a half: whichever disk comes second fails under way.
  small = isRoot && spawnSync("mount", ["-t", "tmpfs", "-o", "size=40m", "tmpfs", room]).status === 0;
  host = await openHost(stage, {
    ...{ diskBytes, joinToken: token, signal: stop.signal },
    ...(small ? { diskDirectory: join(room, "disks") } : {}),
  });
  await writeFile(join(directory, "small.raw"), image);
  await json(0, "image", "add", join(directory, "small.raw"));
}, 60_000);

afterAll(async () => {
  await host?.[Symbol.asyncDispose]();
  await stage?.[Symbol.asyncDispose]();
  if (small) spawnSync("umount", [join(directory, "room")]);
  await rm(directory, { recursive: true, force: true });
});

const disk = (index: number) => host.disks.disks[index]!;
const onto = (...indices: number[]) => [
  ...["demo-host", "--image", "small"],
  ...indices.flatMap((index) => ["--disk", formatDiskSelector(disk(index).selector)]),
];
async function contentOf(index: number): Promise<Buffer> {
  await using file = await open(disk(index).backing, "r");
  const bytes = Buffer.alloc(image.length);
  await file.read(bytes, 0, bytes.length, 0);
  return bytes;
}

test("a plan shows a table for each disk; one named twice is refused with exit code 3", async () => {
  const plan = await bedplate("deploy", ...onto(0, 1), "--plan", "--limit-fetch", "50M");
  expect(plan.code, plan.stderr).toBe(0);
  expect(plan.stdout).toMatch(/^disk 1 of 2: +\S+/m);
  expect(plan.stdout).toMatch(/^disk 2 of 2: +\S+/m);
  expect(plan.stdout).toContain("fetches at most 50 MiB a second");
  for (const index of [0, 1]) expect(plan.stdout).toMatch(new RegExp(`^${disk(index).path}:$`, "m"));
  expect(plan.stdout.match(/^mounted +ok/gm)).toHaveLength(2);
  // A guard is let pass for the disk that stands before it, and for no other.
  const { stdout } = await bedplate("deploy", ...onto(0, 1), "--override", "member", "--plan");
  expect(stdout.match(/^OVERRIDES: +the guards member$/gm)).toHaveLength(1);
  expect(stdout.indexOf("OVERRIDES")).toBeGreaterThan(stdout.indexOf("disk 2 of 2"));
  const twice = await json<{ error: { code: string } }>(3, "deploy", ...onto(0, 1, 0), "--plan");
  expect(twice.error.code).toBe("deploy.same-disk");
}, 60_000);

test("paused from the command line it stands still, says why and what helps; resumed it goes on", {
  timeout: 120_000,
}, async () => {
  const ended = bedplate("deploy", ...onto(2), "--yes", "--limit-write", "2M");
  let running: CommandView | undefined;
  await expect
    .poll(
      async () => {
        const { commands } = await json<{ commands: CommandView[] }>(0, "commands", "--state", "running");
        running = commands.find(({ progress }) => progress?.phase === "write" && progress.done > 0);
        return running !== undefined;
      },
      { timeout: 60_000, interval: 300 },
    )
    .toBe(true);
  const { id } = running!;
  const paused = await json<CommandView>(0, "command", "pause", id);
  expect(paused).toMatchObject({
    state: "running",
    pausedAt: expect.any(Number),
    progress: { paused: true, rate: 0 },
    reason: expect.stringMatching(/^An operator paused it at /),
    next: expect.stringMatching(/resumed/),
    suggest: `bedplate command resume ${id}`,
  });
  await sleep(1500);
  const before = await contentOf(2);
  await sleep(1500);
  expect((await contentOf(2)).equals(before)).toBe(true);
  expect((await bedplate("command", "show", id)).stdout).toMatch(/^paused: /m);
  const resumed = await json<CommandView>(0, "command", "resume", id);
  expect(resumed.pausedAt).toBeNull();
  expect((await ended).code).toBe(0);
  expect((await contentOf(2)).equals(image)).toBe(true);
  const late = await json<{ error: { code: string } }>(3, "command", "pause", id);
  expect(late.error.code).toBe("command.not-pausable");
  // Room for the next.
  spawnSync("fallocate", ["--punch-hole", "--offset", "0", "--length", `${diskBytes}`, disk(2).backing]);
});

test("what has no safe points is not paused", async () => {
  const { commands } = await json<{ commands: CommandView[] }>(0, "commands");
  const plan = commands.find(({ mode }) => mode === "plan")!;
  const { error } = await json<{ error: { code: string } }>(3, "command", "pause", plan.id);
  expect(error.code).toBe("command.not-pausable");
}, 30_000);

test.runIf(isRoot)(
  "one disk fails under way: exit code 5, and the other one holds the image",
  async () => {
    const run = await bedplate("deploy", ...onto(0, 1), "--yes");
    expect(run.code, run.stderr).toBe(5);
    expect(run.stderr).toContain("deploy.partly");
    expect(run.stderr).toContain("1 of 2 disks holds the image");
    expect(run.stdout).toMatch(/^outcome: +succeeded/m);
    expect(run.stdout).toMatch(/^outcome: +failed/m);
    expect(run.stdout).toMatch(/\(disk\.io\)/);
    expect((await contentOf(0)).equals(image)).toBe(true);
    expect((await contentOf(1)).subarray(0, 27).toString()).toBe("BEDPLATE DEPLOY IN PROGRESS");
  },
  90_000,
);
