// One host and its controller as real processes, for faults: file-backed disks, a program whose starts are counted, images.
import { createHash } from "node:crypto";
import {
  chmodSync,
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { mintCommandId } from "../../cli/clock.ts";
import { importImage } from "../../controller/images/import.ts";
import type { CommandView } from "../../protocol/api.ts";
import { type Command, isTerminal } from "../../protocol/commands.ts";
import { openTestHost, type TestHost } from "./agent-process.ts";
import { type ControllerProcess, startControllerProcess } from "./controller-process.ts";
import { eventually, mountedUnder } from "./programs.ts";

const hastyWaits = fileURLToPath(new URL("./hasty-waits.mjs", import.meta.url));

export interface Image {
  readonly root: string;
  readonly sizeBytes: number;
}

export interface Machine extends AsyncDisposable {
  readonly controller: ControllerProcess;
  readonly host: TestHost;
  /** The host's id. */
  readonly id: string;
  readonly disks: readonly { readonly name: string; readonly path: string }[];
  readonly images: readonly Image[];
  /** Starts the agent again: what it waits by lot, it does not wait. */
  startAgent(wrap?: readonly string[], environment?: Readonly<Record<string, string>>): void;
  /** Pids of living executors. */
  executors(): number[];
  /** `host.exec` of a program that notes its start under `name`, and takes some hundred milliseconds. */
  noteStart(name: string): Pick<Extract<Command, { kind: "host.exec" }>, "kind" | "mode" | "arguments">;
  startsOf(name: string): number;
  /** Sends a command until the controller says that it has it. */
  submit(command: Omit<Command, "id" | "host" | "limits"> & Partial<Command>): Promise<CommandView>;
  /** Waits for its end. */
  ended(id: string, timeoutMs?: number): Promise<CommandView>;
}

const mib = 1 << 20;
/** However busy this machine is: nobody waits that long where all is well. */
const patienceMs = 180_000;

export interface MachineOptions {
  readonly directory: string;
  readonly images?: number;
  readonly imageMib?: number;
  readonly telemetryMs?: number;
  /** In place of a plain directory. */
  readonly heartbeatSeconds?: number;
}

/** A reason as text where this machine cannot have one. */
export async function openMachine(options: MachineOptions): Promise<Machine | string> {
  const { directory, images: imageCount = 0, imageMib = 8 } = options;
  await using stack = new AsyncDisposableStack();
  const controller = stack.use(
    await startControllerProcess(directory, { heartbeatSeconds: options.heartbeatSeconds ?? 1 }),
  );
  const disks = ["one", "two"].map((name) => ({ name, path: join(directory, `${name}.img`) }));
  for (const { path } of disks) {
    await using file = await open(path, "wx", 0o600);
    await file.truncate((imageMib + 8) * mib);
  }
  const starts = join(directory, "starts");
  mkdirSync(starts);
  const program = join(directory, "note-start");
  writeFileSync(program, `#!/bin/sh\necho "$$" >> ${starts}/"$1"\necho "started $1"\nsleep 0.3\n`);
  chmodSync(program, 0o755);
  const host = await openTestHost({
    ...{ directory, name: "machine", controller: controller.url, joinToken: await controller.joinToken() },
    ...{ telemetryMs: options.telemetryMs ?? 500 },
    policy: [
      `allowDisks = ${JSON.stringify(disks.map(({ name }) => `file:${name}`))}`,
      'unsigned = ["image.deploy", "host.exec"]',
      '[kinds."host.exec"]',
      `argv = [["${program}", "*"]]`,
      ...disks.map(
        ({ name, path }) =>
          `[[fileDisks]]\nname = "${name}"\npath = "${path}"\nsizeBytes = ${(imageMib + 8) * mib}`,
      ),
    ].join("\n"),
  });
  if (typeof host === "string") return host;
  stack.use(host);
  const startAgent: Machine["startAgent"] = (wrap = [], environment = {}) =>
    void host.start({ wrap, environment, nodeOptions: ["--import", hastyWaits] });
  startAgent();
  const { id } = await eventually(
    patienceMs,
    async () => (await controller.api.hosts()).find(({ name }) => name === "machine"),
    () => `the agent did not join: ${host.agent.log().slice(-1500)}`,
  );
  const images: Image[] = [];
  for (let k = 0; k < imageCount; k++) images.push(await makeImage(controller, directory, k, imageMib));
  const kept = stack.move();
  return {
    ...{ controller, host, id, disks, images, startAgent },
    executors: () =>
      mountedUnder(directory).filter((pid) => {
        try {
          return readFileSync(`/proc/${pid}/cmdline`, "utf8")
            .split("\0")
            .some((word) => word.endsWith("/executor.js"));
        } catch {
          return false;
        }
      }),
    noteStart: (name) => ({ kind: "host.exec", mode: "apply", arguments: { argv: [program, name] } }),
    startsOf(name) {
      const path = join(starts, name);
      return existsSync(path) ? readFileSync(path, "utf8").trim().split("\n").length : 0;
    },
    async submit(command) {
      const whole = { id: mintCommandId(), host: id, limits: {}, ...command } as Command;
      // The same document again and again is the same command.
      return await eventually(
        patienceMs,
        () => controller.api.submit(whole).catch(refusedForGood),
        () => `the controller does not take ${whole.kind}: ${controller.program.log().slice(-1500)}`,
      );
    },
    ended: (command, timeoutMs = patienceMs) =>
      eventually(
        timeoutMs,
        async () => {
          const view = await controller.api.command(command).catch(() => undefined);
          return view !== undefined && isTerminal(view.state) ? view : undefined;
        },
        () =>
          `${command} did not end: ${host.agent.log().slice(-1500)}; controller: ${controller.program.log().slice(-1500)}`,
      ),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** No answer is asked for again, and one that says not now; one that says no is an answer. */
function refusedForGood(error: unknown): undefined {
  const { code } = error as { code?: string };
  if (code !== "controller.unreachable" && code !== "state.unwritable") throw error;
  return undefined;
}

async function makeImage(
  controller: ControllerProcess,
  directory: string,
  number: number,
  sizeMib: number,
): Promise<Image> {
  const input = join(directory, `image-${number}.raw`);
  const bytes = Buffer.alloc(sizeMib * mib);
  for (let at = 0; at < bytes.length; at += 32)
    createHash("sha256").update(`${number} ${at}`).digest().copy(bytes, at);
  writeFileSync(input, bytes);
  const store = join(directory, `store-${number}`);
  const { root, sizeBytes } = await importImage({
    ...{ input, store, name: `image-${number}`, signal: new AbortController().signal },
  });
  await controller.api.putManifest(root, await readFile(join(store, root, "manifest")));
  const frames = join(store, root, "frames");
  await controller.api.putFrames(root, createReadStream(frames), (await stat(frames)).size);
  return { root, sizeBytes };
}

/** Whether the disk begins with these very bytes. */
export function holdsImage(diskPath: string, directory: string, number: number): boolean {
  const image = readFileSync(join(directory, `image-${number}.raw`));
  return readFileSync(diskPath).subarray(0, image.length).equals(image);
}

export function filesIn(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}
