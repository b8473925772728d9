// A deploy's write phase (fetch over TLS, decode, verify, write, journal) against dd, which only copies; and the memory
// that the executor takes. By real processes: a controller that serves the image, an executor that writes it.
import { execFile, spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { createReadStream, existsSync, readFileSync } from "node:fs";
import { mkdir, open, readFile, stat, writeFile } from "node:fs/promises";
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

const groups = 256;
const bytes = groups * groupBytes;
const diskBytes = bytes + 4 * groupBytes;
const hostId = "be".repeat(32);
const built = fileURLToPath(new URL("../dist/executor.js", import.meta.url));
const run = promisify(execFile);
const checkPlan = checker(DeployPlanOutput, "message.invalid", "plan");
const checkOutput = checker(DeployOutput, "message.invalid", "deploy's output");

export const deploy: Bench = {
  name: "deploy",
  title: `Deploy of ${groups} MiB (half of it compressible) to a file, against dd oflag=direct conv=fsync`,
  async prepare() {
    const signal = new AbortController().signal;
    await using stack = new AsyncDisposableStack();
    const stage = stack.use(await openStage({ signal }));
    const raw = join(stage.directory, "a.raw");
    // Two in turn, so that every group is written each time.
    const images = [await addImage(stage, "a", signal), await addImage(stage, "b", signal)] as const;
    const executor = stack.use(await openExecutor(stage));
    let runs = 0;
    let peakBytes = 0;
    const deployNext = async (): Promise<DeployOutput> => {
      const image = images[runs++ % 2]!;
      const { fingerprint } = checkPlan((await executor.run("plan", { image })).output);
      const { output, peakResidentBytes } = await executor.run("apply", { image, fingerprint });
      peakBytes = Math.max(peakBytes, peakResidentBytes);
      return checkOutput(output);
    };
    const target = join(stage.directory, "dd.img");
    const copy = () =>
      run("dd", [`if=${raw}`, `of=${target}`, "bs=1M", "oflag=direct", "conv=fsync,notrunc"]);
    const kept = stack.move();
    return {
      rounds: 3,
      sliceSeconds: 0,
      candidates: {
        "ours write phase": { measure: async () => (await deployNext()).seconds.write, bytes },
        dd: wallTimed(copy, bytes),
      },
      rows: [
        // Bound by decompression and TLS, with the server on the same cores, where the disk is as fast as memory.
        { name: "write phase against dd", subject: "ours write phase", peer: "dd", floor: 0.05 },
        ...(existsSync(built)
          ? [
              {
                name: "the executor's peak, resident (60 MB of it Node's own code)",
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

async function addImage(
  stage: Awaited<ReturnType<typeof openStage>>,
  name: string,
  signal: AbortSignal,
): Promise<ImageReference> {
  const input = join(stage.directory, `${name}.raw`);
  const store = join(stage.directory, `store-${name}`);
  {
    await using file = await open(input, "wx");
    const group = new Uint8Array(groupBytes);
    for (let k = 0; k < groups; k++) await file.write(randomFillSync(group.fill(k % 256), 0, groupBytes / 2));
  }
  const { root, sizeBytes } = await importImage({ input, store, name, signal });
  await stage.client.putManifest(root, await readFile(join(store, root, "manifest")));
  const frames = join(store, root, "frames");
  await stage.client.putFrames(root, createReadStream(frames), (await stat(frames)).size);
  return { root, sizeBytes };
}

interface BenchExecutor extends AsyncDisposable {
  run(
    mode: "plan" | "apply",
    args: { readonly image: ImageReference; readonly fingerprint?: Fingerprint },
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
  const policy = `allowDisks = ["file:bench"]\nunsigned = ["image.deploy"]\n[[fileDisks]]\nname = "bench"\npath = "${disk}"\nsizeBytes = ${diskBytes}\n`;
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
  if (process.geteuid?.() === 0) {
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
    async run(mode, args) {
      const id = mintCommandId();
      const command = {
        id,
        host: hostId,
        kind: "image.deploy",
        mode,
        arguments: { ...args, disk: { file: "bench" } },
        limits: {},
      } as Command;
      const request: ExecutorRequest = {
        request: "run",
        document: Buffer.from(encodeCommand(command)).toString("base64"),
        signatures: [],
        generation: ++generations,
        epoch: 1,
        sources: [{ url: `${stage.controllerUrl}/v1/images/${args.image.root}`, bearer: token }],
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
