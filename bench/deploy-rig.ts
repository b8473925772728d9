// What benches of deploys share: a controller that serves images, an executor that writes them, both real processes; the
// disk a loop device for root, else a file.
import { execFile, execFileSync, spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { createReadStream, existsSync, readFileSync } from "node:fs";
import { copyFile, mkdir, open, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { ExecutorRequest } from "../agent/door/contract.ts";
import { createExecutorLauncher, executorFlags } from "../agent/door/executor-process.ts";
import { cleanEnvironment } from "../agent/host/processes.ts";
import { groupBytes } from "../assembly/index.ts";
import { mintCommandId } from "../cli/clock.ts";
import { parseClientFile } from "../cli/connection.ts";
import { openPrivateHost } from "../cli/demo/private-host.ts";
import { openStage, type Stage } from "../cli/demo/stage.ts";
import { importImage } from "../controller/images/import.ts";
import {
  type Command,
  DeployOutput,
  DeployPlanOutput,
  encodeCommand,
  type ImageReference,
} from "../protocol/commands.ts";
import type { Fingerprint } from "../protocol/disks.ts";
import { checker } from "../protocol/schema.ts";
import { builtExecutor } from "./processes.ts";

const hostId = "be".repeat(32);
const run = promisify(execFile);
const checkPlan = checker(DeployPlanOutput, "message.invalid", "plan");
const checkOutput = checker(DeployOutput, "message.invalid", "deploy's output");

/** `changed` is `full` but for one group in a hundred; of `half-zero` the second half is zeroes. */
export type Kind = "full" | "half-zero" | "changed";

export interface DeployOnce {
  readonly output: DeployOutput;
  /** From the executor's start to its result. */
  readonly wallSeconds: number;
  readonly peakResidentBytes: number;
}

export interface DeployRig extends AsyncDisposable {
  /** Of the machine, as dd names it. */
  readonly disk: string;
  readonly bytes: number;
  /** What the disk holds: an image that is there already would not be written. */
  holds: Kind | undefined;
  rawPath(kind: Kind): string;
  /** Plans and applies. @param from the raw image as a file of the host, or the controller over TLS */
  deploy(kind: Kind, from: "file" | "controller"): Promise<DeployOnce>;
  /** Runs a program as the executor runs, which gives way to whatever else does. */
  asNice(...argv: string[]): Promise<void>;
}

export const isRoot = process.geteuid?.() === 0;

export async function openDeployRig(groups: number, kinds: readonly Kind[]): Promise<DeployRig> {
  const { signal } = new AbortController();
  await using stack = new AsyncDisposableStack();
  const stage = stack.use(await openStage({ signal }));
  const images = {} as Record<Kind, ImageReference>;
  const rawPath = (kind: Kind) => join(stage.directory, `${kind}.raw`);
  for (const kind of kinds) {
    await writeImage(rawPath(kind), kind, { groups, full: rawPath("full") });
    images[kind] = await addImage(stage, rawPath(kind), kind, signal);
  }
  const executor = stack.use(await openExecutor(stage, (groups + 4) * groupBytes));
  const kept = stack.move();
  const rig: DeployRig = {
    disk: executor.disk,
    bytes: groups * groupBytes,
    holds: undefined,
    rawPath,
    async deploy(kind, from) {
      const image = images[kind];
      const mirror = from === "file" ? rawPath(kind) : undefined;
      const { fingerprint } = checkPlan((await executor.run("plan", { image }, mirror)).output);
      const begun = performance.now();
      const { output, peakResidentBytes } = await executor.run("apply", { image, fingerprint }, mirror);
      rig.holds = kind;
      return {
        output: checkOutput(output),
        wallSeconds: (performance.now() - begun) / 1e3,
        peakResidentBytes,
      };
    },
    async asNice(...argv) {
      await run("nice", ["-n", "10", ...argv], { maxBuffer: 1 << 24 });
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
  return rig;
}

/** Half of each group is random. */
async function writeImage(
  path: string,
  kind: Kind,
  { groups, full }: { readonly groups: number; readonly full: string },
): Promise<void> {
  const changed = Math.round(groups / 100);
  if (kind === "changed") await copyFile(full, path);
  await using file = await open(path, kind === "changed" ? "r+" : "wx");
  const group = new Uint8Array(groupBytes);
  for (let k = 0; k < (kind === "changed" ? changed : groups); k++) {
    const zero = kind === "half-zero" && k >= groups / 2;
    const content = zero ? group.fill(0) : randomFillSync(group.fill(k % 256), 0, groupBytes / 2);
    const at = kind === "changed" ? 1 + Math.floor((k * groups) / changed) : k;
    await file.write(content, 0, groupBytes, at * groupBytes);
  }
}

async function addImage(
  stage: Stage,
  input: string,
  name: string,
  signal: AbortSignal,
): Promise<ImageReference> {
  const store = join(stage.directory, `store-${name}`);
  const { root, sizeBytes } = await importImage({ input, store, name, signal });
  await stage.client.putManifest(root, await readFile(join(store, root, "manifest")));
  const frames = join(store, root, "frames");
  await stage.client.putFrames(root, createReadStream(frames), (await stat(frames)).size);
  return { root, sizeBytes };
}

interface BenchExecutor extends AsyncDisposable {
  /** Of the machine, as dd names it. */
  readonly disk: string;
  /** @param mirror a file with the raw image, to take its bytes from */
  run(
    mode: "plan" | "apply",
    args: { readonly image: ImageReference; readonly fingerprint?: Fingerprint },
    mirror?: string,
  ): Promise<{ output: unknown; peakResidentBytes: number }>;
}

/** The built program when there is one: types stripped at run time cost memory that users do not pay. */
async function openExecutor(stage: Stage, diskBytes: number): Promise<BenchExecutor> {
  const at = (name: string) => join(stage.directory, name);
  const paths = { policy: at("etc/policy.toml"), stateDirectory: at("state"), runDirectory: at("run") };
  for (const path of [at("etc"), paths.stateDirectory, paths.runDirectory])
    await mkdir(path, { mode: 0o700 });
  const disk = at("disk.img");
  {
    await using file = await open(disk, "wx");
    await file.truncate(diskBytes);
  }
  const common = `unsigned = ["image.deploy"]\nimageSources = ["file:${stage.directory}"]\n`;
  const policy = isRoot
    ? `allowDisks = ["loop:${disk}"]\n${common}`
    : `allowDisks = ["file:bench"]\n${common}[[fileDisks]]\nname = "bench"\npath = "${disk}"\nsizeBytes = ${diskBytes}\n`;
  await writeFile(paths.policy, policy, { mode: 0o600 });
  const program = existsSync(builtExecutor)
    ? builtExecutor
    : fileURLToPath(new URL("../agent/executor/executor.ts", import.meta.url));
  const executor = [process.execPath, ...executorFlags, program] as const;
  let argv: readonly string[] = [
    ...executor,
    "--policy",
    paths.policy,
    "--state",
    paths.stateDirectory,
    "--run",
    paths.runDirectory,
  ];
  await using stack = new AsyncDisposableStack();
  let target = disk;
  if (isRoot) {
    target = execFileSync("losetup", ["--find", "--show", disk], { encoding: "utf8" }).trim();
    stack.defer(() => void execFileSync("losetup", ["--detach", target]));
    const host = await openPrivateHost([
      { source: at("etc"), target: "/etc/bedplate" },
      { source: paths.stateDirectory, target: "/var/lib/bedplate/executor" },
      { source: paths.runDirectory, target: "/run/bedplate" },
    ]);
    if (typeof host === "string") throw new Error(host);
    stack.use(host);
    argv = host.wrap(executor);
  }
  const { token, ca } = parseClientFile(await readFile(stage.clientFile, "utf8"), stage.clientFile);
  const launcher = createExecutorLauncher({ paths, logFile: at("executor.log") });
  const kept = stack.move();
  let generations = 0;
  return {
    disk: target,
    async run(mode, args, mirror) {
      const id = mintCommandId();
      const command = {
        id,
        host: hostId,
        kind: "image.deploy",
        mode,
        arguments: { ...args, disk: isRoot ? { loop: disk } : { file: "bench" } },
        limits: {},
      } as Command;
      const request: ExecutorRequest = {
        request: "run",
        document: Buffer.from(encodeCommand(command)).toString("base64"),
        signatures: [],
        generation: ++generations,
        epoch: 1,
        sources: [
          ...(mirror === undefined ? [] : [{ url: `file://${mirror}`, layout: "raw" as const }]),
          { url: `${stage.controllerUrl}/v1/images/${args.image.root}`, bearer: token },
        ],
        ca,
        host: hostId,
      };
      const child = spawn(argv[0]!, argv.slice(1), {
        stdio: ["pipe", "ignore", "pipe"],
        env: cleanEnvironment,
      });
      const ended = new Promise((resolve) => child.on("close", resolve));
      let said = "";
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        said = (said + text).slice(-2000);
      });
      child.stdin.end(`${JSON.stringify(request)}\n`);
      let following = await launcher.attach(id, { afterSeq: 0, afterOutput: undefined });
      while (following === undefined && child.exitCode === null) {
        await new Promise((resolve) => setTimeout(resolve, 10));
        following = await launcher.attach(id, { afterSeq: 0, afterOutput: undefined });
      }
      for await (const event of following?.events ?? []) {
        if (event.type === "refused") throw new Error(event.error.message);
        if (event.type !== "result") continue;
        // Before it is let go: the peak is the kernel's own account of the whole life.
        const peakResidentBytes =
          1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]);
        following?.close();
        await ended;
        if (event.result.outcome !== "succeeded") throw new Error(event.result.error?.message);
        return { output: event.result.output, peakResidentBytes };
      }
      await ended;
      throw new Error(
        `the executor ended without a result: ${child.signalCode ?? `exit ${child.exitCode}`}; it said ${said}`,
      );
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}
