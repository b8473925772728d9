// A deploy's phases (read or fetch over TLS, verify, write, journal, read back) against dd, which only copies; what a
// deploy of a slightly changed image moves; and the memory that the executor takes. By real processes: a controller that
// serves the image, an executor that writes it, as root to a loop device, else to a file.
import { execFile, execFileSync, spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { createReadStream, existsSync, readFileSync } from "node:fs";
import { copyFile, mkdir, open, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { ExecutorRequest } from "../agent/executor/contract.ts";
import { createExecutorLauncher } from "../agent/host/executor-process.ts";
import { cleanEnvironment } from "../agent/host/processes.ts";
import { groupBytes } from "../assembly/index.ts";
import { mintCommandId } from "../cli/clock.ts";
import { parseClientFile } from "../cli/connection.ts";
import { openPrivateHost } from "../cli/demo/private-host.ts";
import { openStage } from "../cli/demo/stage.ts";
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
import { type Bench, wallTimed } from "./harness.ts";

const groups = 512;
const bytes = groups * groupBytes;
const diskBytes = bytes + 4 * groupBytes;
/** Groups that the changed image has otherwise: 1 %. */
const changed = Math.round(groups / 100);
const hostId = "be".repeat(32);
const built = fileURLToPath(new URL("../dist/executor.js", import.meta.url));
const run = promisify(execFile);
const checkPlan = checker(DeployPlanOutput, "message.invalid", "plan");
const checkOutput = checker(DeployOutput, "message.invalid", "deploy's output");

const kinds = ["full", "half-zero", "changed"] as const;
type Kind = (typeof kinds)[number];

export const deploy: Bench = {
  name: "deploy",
  title: `Deploy of ${groups} MiB to ${isRoot() ? "a loop device" : "a file (no root here)"}, against dd oflag=direct conv=fsync, as nice`,
  async prepare() {
    const signal = new AbortController().signal;
    await using stack = new AsyncDisposableStack();
    const stage = stack.use(await openStage({ signal }));
    const images = {} as Record<Kind, ImageReference>;
    for (const kind of kinds) images[kind] = await addImage(stage, kind, signal);
    const executor = stack.use(await openExecutor(stage));
    // What the disk holds: an image that is there already is not written.
    let holds: Kind | undefined;
    let peakBytes = 0;
    const deployOnce = async (kind: Kind, from: "file" | "controller"): Promise<DeployOutput> => {
      const image = images[kind];
      const mirror = from === "file" ? rawPath(stage, kind) : undefined;
      const { fingerprint } = checkPlan((await executor.run("plan", { image }, mirror)).output);
      const { output, peakResidentBytes } = await executor.run("apply", { image, fingerprint }, mirror);
      peakBytes = Math.max(peakBytes, peakResidentBytes);
      holds = kind;
      return checkOutput(output);
    };
    const deployNew = async (kind: "full" | "half-zero", from: "file" | "controller" = "file") => {
      if (holds !== "full" && holds !== "half-zero") await copy("half-zero");
      if (holds === kind) await copy(kind === "full" ? "half-zero" : "full");
      return (await deployOnce(kind, from)).seconds;
    };
    const copy = async (kind: "full" | "half-zero") => {
      const places = [`if=${rawPath(stage, kind)}`, `of=${executor.disk}`];
      // As the executor, which gives way to whatever else runs.
      const dd = ["dd", ...places, "bs=1M", "oflag=direct", "conv=fsync,notrunc"];
      await run("nice", ["-n", "10", ...dd]);
      holds = kind;
    };
    const kept = stack.move();
    return {
      rounds: 3,
      sliceSeconds: 0,
      candidates: {
        dd: wallTimed(() => copy("half-zero"), bytes),
        "write phase": { measure: async () => (await deployNew("full")).write, bytes },
        "write and read-back": {
          measure: async () => {
            const { write, readback } = await deployNew("full");
            return write + readback;
          },
          bytes,
        },
        "half zero, write phase": { measure: async () => (await deployNew("half-zero")).write, bytes },
        "over TLS, write phase": {
          measure: async () => (await deployNew("full", "controller")).write,
          bytes,
        },
      },
      rows: [
        {
          name: "write phase of a local raw image against dd (aim 0.85)",
          subject: "write phase",
          peer: "dd",
          floor: 0.25,
        },
        {
          name: "with the whole read-back, against dd (aim 0.5)",
          subject: "write and read-back",
          peer: "dd",
          floor: 0.15,
        },
        {
          name: "half zero, one run, against dd (aim 1.7)",
          subject: "half zero, write phase",
          peer: "dd",
          floor: 0.25,
        },
        // Bound by decompression and TLS, with the server on the same cores, where the disk is as fast as memory.
        {
          name: "write phase over TLS against dd",
          subject: "over TLS, write phase",
          peer: "dd",
          floor: 0.05,
        },
        {
          name: "1 % changed: fetched or written, of the image (aim 1.1)",
          unit: "%",
          async measure() {
            if (holds !== "full") await copy("full");
            const { bytesFetched, bytesWritten, bytesZeroed } = await deployOnce("changed", "file");
            return (100 * Math.max(bytesFetched, bytesWritten + bytesZeroed)) / bytes;
          },
          most: 2,
        },
        ...(existsSync(built)
          ? [
              {
                name: "the executor's peak, resident (60 MB of it Node's own code; aim 120)",
                unit: "MB",
                measure: () => peakBytes / 1e6,
                most: 230,
              },
            ]
          : []),
      ],
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  },
};

function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

function rawPath(stage: Awaited<ReturnType<typeof openStage>>, kind: Kind): string {
  return join(stage.directory, `${kind}.raw`);
}

/** Half of each group is random; of `half-zero` the second half of the image is zeroes. */
async function addImage(
  stage: Awaited<ReturnType<typeof openStage>>,
  kind: Kind,
  signal: AbortSignal,
): Promise<ImageReference> {
  const input = rawPath(stage, kind);
  const store = join(stage.directory, `store-${kind}`);
  if (kind === "changed") await copyFile(rawPath(stage, "full"), input);
  {
    await using file = await open(input, kind === "changed" ? "r+" : "wx");
    const group = new Uint8Array(groupBytes);
    for (let k = 0; k < (kind === "changed" ? changed : groups); k++) {
      const zero = kind === "half-zero" && k >= groups / 2;
      const content = zero ? group.fill(0) : randomFillSync(group.fill(k % 256), 0, groupBytes / 2);
      const at = kind === "changed" ? 1 + Math.floor((k * groups) / changed) : k;
      await file.write(content, 0, groupBytes, at * groupBytes);
    }
  }
  const { root, sizeBytes } = await importImage({ input, store, name: kind, signal });
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
async function openExecutor(stage: Awaited<ReturnType<typeof openStage>>): Promise<BenchExecutor> {
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
  const policy = isRoot()
    ? `allowDisks = ["loop:${disk}"]\n${common}`
    : `allowDisks = ["file:bench"]\n${common}[[fileDisks]]\nname = "bench"\npath = "${disk}"\nsizeBytes = ${diskBytes}\n`;
  await writeFile(paths.policy, policy, { mode: 0o600 });
  const program = existsSync(built)
    ? built
    : fileURLToPath(new URL("../agent/executor/executor.ts", import.meta.url));
  let argv: readonly string[] = [
    process.execPath,
    program,
    "--policy",
    paths.policy,
    "--state",
    paths.stateDirectory,
    "--run",
    paths.runDirectory,
  ];
  await using stack = new AsyncDisposableStack();
  let target = disk;
  if (isRoot()) {
    target = execFileSync("losetup", ["--find", "--show", disk], { encoding: "utf8" }).trim();
    stack.defer(() => void execFileSync("losetup", ["--detach", target]));
    const host = await openPrivateHost([
      { source: at("etc"), target: "/etc/bedplate" },
      { source: paths.stateDirectory, target: "/var/lib/bedplate/executor" },
      { source: paths.runDirectory, target: "/run/bedplate" },
    ]);
    if (typeof host === "string") throw new Error(host);
    stack.use(host);
    argv = host.wrap([process.execPath, program]);
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
        arguments: { ...args, disk: isRoot() ? { loop: disk } : { file: "bench" } },
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
        stdio: ["pipe", "ignore", "ignore"],
        env: cleanEnvironment,
      });
      const ended = new Promise((resolve) => child.on("close", resolve));
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
      throw new Error(`the executor ended without a result: exit ${child.exitCode}`);
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}
