// An operator's day at the command line: a real controller, a real agent, and `bedplate` as a process of its own.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type DemoHost, openHost, openStage } from "../../cli/demo/stage.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { formatDiskSelector } from "../../protocol/disks.ts";
import { programPath } from "../support/programs.ts";

const program = programPath("bedplate");
const mib = 1 << 20;
const imageBytes = 24 * mib;
const stop = new AbortController();
let directory: string;
let stage: Awaited<ReturnType<typeof openStage>>;
let host: DemoHost;
let image: Buffer;

interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(argv: readonly string[]): { child: ChildProcess; ended: Promise<Run> } {
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
  const ended = new Promise<Run>((resolve) =>
    child.once("close", (code) => resolve({ code, stdout, stderr })),
  );
  return { child, ended };
}

const bedplate = (...argv: string[]) => start(argv).ended;
async function json<T>(code: number, ...argv: string[]): Promise<T> {
  const run = await bedplate(...argv, "--json");
  expect(run.code, `${argv.join(" ")}: ${run.stdout}${run.stderr}`).toBe(code);
  return JSON.parse(run.stdout) as T;
}
interface Failure {
  readonly error: { code: string; message: string; hint?: string; details?: Record<string, unknown> };
  readonly plan?: { allowed: boolean };
}

const disk = (index: number) => host.disks.disks[index]!;
const selector = (index: number) => formatDiskSelector(disk(index).selector);

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-operator-"));
  stage = await openStage({ signal: stop.signal });
  const { token } = await stage.client.createJoinToken({});
  host = await openHost(stage, { diskBytes: 32 * mib, joinToken: token, signal: stop.signal });
  image = Buffer.concat([randomBytes(9 * mib), Buffer.alloc(6 * mib), randomBytes(9 * mib)]);
  await writeFile(join(directory, "small.raw"), image);
  await writeFile(join(directory, "large.raw"), Buffer.concat([image, image]));
  for (const name of ["small", "large"]) {
    const sha256 = createHash("sha256")
      .update(name === "small" ? image : Buffer.concat([image, image]))
      .digest("hex");
    await json(0, "image", "add", join(directory, `${name}.raw`), "--sha256", sha256);
  }
}, 60_000);

afterAll(async () => {
  await host?.[Symbol.asyncDispose]();
  await stage?.[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

test("hosts, ping, host show and host watch", { timeout: 60_000 }, async () => {
  const list = await bedplate("hosts");
  expect(list.stdout).toMatch(/^NAME +ID +FINGERPRINT +STANDING +CONNECTION/);
  expect(list.stdout).toMatch(/^demo-host +[0-9a-f]{12} +([0-9A-F]{4}-){3}[0-9A-F]{4} +approved +online/m);

  const ping = await json<{ roundTripMs: number; ping: { uptimeSeconds: number } }>(0, "ping", "demo-host");
  expect(ping.roundTripMs).toBeGreaterThan(0);
  expect(ping.ping.uptimeSeconds).toBeGreaterThan(0);

  const show = await bedplate("host", "show", "demo-host");
  expect(show.code, show.stderr).toBe(0);
  for (const index of [0, 1, 2]) expect(show.stdout).toContain(selector(index));
  const { inventory } = await json<{ inventory: { disks: { allowed: boolean }[] } }>(
    0,
    "host",
    "show",
    "demo-host",
  );
  expect(inventory.disks.filter((listed) => listed.allowed).length).toBe(3);

  const watch = start(["host", "watch", "demo-host", "--json"]);
  let shown = "";
  watch.child.stdout!.on("data", (chunk: Buffer) => {
    shown += chunk;
  });
  await vi.waitFor(() => expect(shown.split("\n").length).toBeGreaterThan(2), { timeout: 60_000 });
  watch.child.kill("SIGINT");
  const { code, stdout } = await watch.ended;
  expect(code).toBe(0);
  const lines = stdout.trim().split("\n");
  expect(lines.length).toBeGreaterThan(1);
  for (const line of lines) JSON.parse(line);
});

test("a plan shows every guard and changes nothing; apply asks; the disk then holds the image", {
  timeout: 90_000,
}, async () => {
  const what = ["--image", "small", "--disk", selector(0)];
  const before = await contentOf(0, 32 * mib);
  const plan = await bedplate("deploy", "demo-host", ...what, "--plan");
  expect(plan.code, plan.stderr).toBe(0);
  expect(plan.stdout).toMatch(/^allowed +ok/m);
  expect(plan.stdout).toMatch(/^to write: +at most/m);
  expect((await contentOf(0, 32 * mib)).equals(before)).toBe(true);

  const done = await json<{
    deploy: { readback: { root: string }; bytesZeroed: number };
    command: { id: string };
  }>(...([0, "deploy", "demo-host", ...what, "--yes"] as [number, ...string[]]));
  expect((await contentOf(0, imageBytes)).equals(image)).toBe(true);
  const images = await json<{ images: { name: string; root: string }[] }>(0, "images");
  expect(done.deploy.readback.root).toBe(images.images.find(({ name }) => name === "small")!.root);

  const verify = await json<{ verify: { matches: boolean } }>(0, "verify", "demo-host", ...what);
  expect(verify.verify.matches).toBe(true);
  await spoil(0, 3 * mib + 17);
  const wrong = await json<Failure>(1, "verify", "demo-host", ...what);
  expect(wrong.error.code).toBe("disk.readback-mismatch");
  const differing = await bedplate("verify", "demo-host", ...what, "--limit-read", "200M");
  expect(differing.stdout).toMatch(
    /LBA 6144 to 8191, group 3 from byte 3145728: [0-9a-f]{64}, not [0-9a-f]{64}/,
  );

  const shown = await json<{ state: string; kind: string }>(0, "command", "show", done.command.id);
  expect(shown).toMatchObject({ state: "succeeded", kind: "image.deploy" });
  const late = await json<Failure>(3, "command", "cancel", done.command.id);
  expect(late.error.code).toBe("command.not-cancellable");
  const listed = await bedplate("commands", "--host", "demo-host", "--state", "failed");
  expect(listed.stdout).toContain("disk.readback-mismatch");
});

test("what is refused says why, changes nothing and exits with 3", { timeout: 60_000 }, async () => {
  const before = await contentOf(1, 32 * mib);
  const large = await json<Failure>(
    ...([3, "deploy", "demo-host", "--image", "large", "--disk", selector(1), "--yes"] as [
      number,
      ...string[],
    ]),
  );
  expect(large.error.code).toBe("disk.too-small");
  expect(large.plan).toMatchObject({ allowed: false });
  expect((await contentOf(1, 32 * mib)).equals(before)).toBe(true);

  const none = await bedplate(
    "deploy",
    "demo-host",
    "--image",
    "small",
    "--disk",
    "serial=NO-SUCH-DISK",
    "--plan",
  );
  expect(none.code).toBe(3);
  expect(none.stderr).toContain("code: disk.not-found");
  expect(none.stderr).toContain(basename(disk(1).backing));
});

test("an operation goes on when its follower leaves", { timeout: 90_000 }, async () => {
  const run = start(["deploy", "demo-host", "--image", "small", "--disk", selector(1), "--yes", "--json"]);
  // Past the plan, into the operation itself.
  await expect
    .poll(
      async () => {
        const [newest] = await stage.client.commands({ limit: 1 });
        return newest?.mode === "apply" && newest.kind === "image.deploy" && !isTerminal(newest.state);
      },
      { timeout: 30_000, interval: 20 },
    )
    .toBe(true);
  run.child.kill("SIGINT");
  const { code, stdout } = await run.ended;
  expect(code).toBe(6);
  const { error } = JSON.parse(stdout) as Failure;
  expect(error.message).toContain("goes on");
  const id = error.details!.command as string;
  expect(error.hint).toContain(`bedplate command show ${id} --follow`);
  const followed = await bedplate("command", "show", id, "--follow", "--json");
  expect(followed.code, followed.stdout).toBe(0);
  expect((await contentOf(1, imageBytes)).equals(image)).toBe(true);
});

test.runIf(spawnSync("sh", ["-c", "command -v script"]).status === 0)(
  "on a terminal it asks for the disk's name, and takes no other",
  { timeout: 90_000 },
  async () => {
    const answer = async (typed: string) => {
      const shell = [
        process.execPath,
        program,
        "deploy",
        "demo-host",
        "--image",
        "small",
        "--disk",
        selector(2),
      ].join(" ");
      const child = spawn("script", ["--quiet", "--flush", "--return", "--command", shell, "/dev/null"], {
        stdio: ["pipe", "pipe", "ignore"],
        env: { PATH: process.env.PATH, HOME: directory, BEDPLATE_CLIENT: stage.clientFile, TERM: "dumb" },
      });
      let text = "";
      child.stdout.on("data", (chunk: Buffer) => {
        const asked = text.includes("to go on:");
        text += chunk;
        if (!asked && text.includes("to go on:")) child.stdin.write(`${typed}\n`);
      });
      const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
      return { code, text };
    };
    const wrong = await answer("yes");
    expect(wrong.code, wrong.text).toBe(7);
    expect(wrong.text).toContain("nothing was changed");
    expect((await contentOf(2, imageBytes)).equals(image)).toBe(false);
    const right = await answer(basename(disk(2).backing));
    expect(right.code, right.text).toBe(0);
    expect(right.text).toContain("the same");
    expect((await contentOf(2, imageBytes)).equals(image)).toBe(true);
  },
);

async function contentOf(index: number, length: number): Promise<Buffer> {
  await using file = await open(disk(index).backing, "r");
  const bytes = Buffer.alloc(length);
  await file.read(bytes, 0, length, 0);
  return bytes;
}

async function spoil(index: number, at: number): Promise<void> {
  await using file = await open(disk(index).path, "r+");
  const one = Buffer.alloc(1);
  await file.read(one, 0, 1, at);
  one[0] = one[0]! ^ 1;
  await file.write(one, 0, 1, at);
  await file.sync();
}
