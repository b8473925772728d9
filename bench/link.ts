// The control channel while a deploy runs at full speed on the same cores: how long commands take to be received, accepted
// and answered, how late the agent is, beside the least that could do the same meanwhile.
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { mkdtemp, open, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { groupBytes } from "../assembly/index.ts";
import { mintCommandId } from "../cli/clock.ts";
import { openHost, openStage } from "../cli/demo/stage.ts";
import { importImage } from "../controller/images/import.ts";
import type { CommandView } from "../protocol/api.ts";
import {
  type Command,
  DeployPlanOutput,
  isTerminal,
  type OperationState,
  Ping,
} from "../protocol/commands.ts";
import { checker } from "../protocol/schema.ts";
import { openBareRelay, startBareProcess } from "./bare-peers.ts";
import { type Bench, figuresOf, median } from "./harness.ts";
import { builtProgram, node } from "./processes.ts";

const groups = 512;
const pingEveryMs = 20;
const deploys = 3;
const pingsMin = 80;
const pingsPerRead = 10;
const checkPing = checker(Ping, "message.invalid", "ping");
const checkPlan = checker(DeployPlanOutput, "message.invalid", "plan");

export const link: Bench = {
  name: "link",
  title: `Commands while ${groups} MiB are deployed at full speed: real processes, TLS, durable records`,
  async prepare() {
    const signal = new AbortController().signal;
    await using stack = new AsyncDisposableStack();
    const stage = stack.use(await openStage({ program: [node, builtProgram], signal }));
    const { token } = await stage.client.createJoinToken({ uses: 1 });
    // The disk under test is in memory where that can be: full speed is then the processor's, which the agent must share,
    // and the state of agent and controller has the real disk to itself, as it has on a real host.
    const memory = await mkdtemp(
      existsSync("/dev/shm") ? "/dev/shm/bedplate-bench-" : join(tmpdir(), "bedplate-bench-"),
    );
    stack.defer(() => rm(memory, { recursive: true, force: true }));
    const host = stack.use(
      await openHost(stage, {
        diskBytes: (groups + 8) * groupBytes,
        diskDirectory: join(memory, "disks"),
        joinToken: token,
        signal,
      }),
    );
    const hostId = (await stage.client.host(host.name)).id;
    const images = [await makeImage(stage, "a", signal), await makeImage(stage, "b", signal)] as const;
    const relay = stack.use(await openBareRelay(join(stage.directory, "controller")));
    let runs = 0;
    // Two images were just written several times over: what of it is still on its way to the disk would be in the way of
    // every sync that a record waits for.
    await promisify(execFile)("sync");

    const command = (kind: Command["kind"], mode: Command["mode"], args: object): Command =>
      ({ id: mintCommandId(), host: hostId, kind, mode, arguments: args, limits: {} }) as Command;
    // One stream of events for all: a connection a ping would cost more than the ping.
    const ended = new Map<string, PromiseWithResolvers<void>>();
    const closing = new AbortController();
    const listening = (async () => {
      for await (const { id, event } of stage.client.events(0, closing.signal))
        if (isTerminal(event as OperationState)) ended.get(id)?.resolve();
    })().catch((error: unknown) => {
      for (const { reject } of ended.values()) reject(error);
    });
    stack.defer(async () => {
      closing.abort();
      await listening;
    });
    const run = async (wanted: Command): Promise<CommandView> => {
      const end = Promise.withResolvers<void>();
      ended.set(wanted.id, end);
      await stage.client.submit(wanted);
      await end.promise;
      ended.delete(wanted.id);
      const view = await stage.client.command(wanted.id);
      if (view.state !== "succeeded")
        throw new Error(`${wanted.kind} ended ${view.state}: ${JSON.stringify(view.result?.error)}`);
      return view;
    };

    /** Deploys one image, then the other, so that every group is written, and pings until it is done. */
    const measure = async (): Promise<Figures> => {
      const seen: Samples = {
        ...{ received: [], relayed: [], accepted: [], started: [], answered: [], delays: [] },
      };
      for (let k = 0; k < deploys; k++) await deployAndPing(images[runs++ % 2]!, seen);
      if (seen.answered.length < pingsMin)
        throw new Error(`only ${seen.answered.length} pings during ${deploys} deploys`);
      return {
        receivedRatio: median(seen.relayed) / median(seen.received),
        acceptedRatio: median(seen.started) / median(seen.accepted),
        receivedMedianMs: median(seen.received),
        relayedMedianMs: median(seen.relayed),
        receivedMs: percentile(seen.received, 0.99),
        relayedMs: percentile(seen.relayed, 0.99),
        acceptedMedianMs: median(seen.accepted),
        acceptedMs: percentile(seen.accepted, 0.99),
        answeredMs: percentile(seen.answered, 0.99),
        delayMs: percentile(seen.delays, 0.99),
      };
    };
    const deployAndPing = async (
      image: { root: string; sizeBytes: number },
      seen: Samples,
    ): Promise<void> => {
      const target = { image, disk: host.disks.disks[0]!.selector };
      const plan = checkPlan((await run(command("image.deploy", "plan", target))).result?.output);
      const deploy = command("image.deploy", "apply", { ...target, fingerprint: plan.fingerprint });
      await stage.client.submit(deploy);
      // The event loop's delay is that since the ping before: this one is not counted.
      await run(command("agent.ping", "apply", {}));
      let reads: Promise<unknown> = Promise.resolve();
      for (let pings = 0; ; pings++) {
        const view = await run(command("agent.ping", "apply", {}));
        // As the controller saw it: from the moment it took the command to the moment it had stored what came of it.
        seen.received.push(msUntil(view, "received"));
        seen.answered.push(view.history.at(-1)!.at - view.createdAt);
        seen.delays.push(checkPing(view.result?.output).eventLoopDelayP99Ms);
        seen.relayed.push(await relay.ping());
        // What an executor of its own is started for, one at a time; and then a process that does nothing else.
        if (pings % pingsPerRead === 0) {
          await reads;
          reads = run(command("host.inventory", "apply", {})).then(async (read) => {
            seen.accepted.push(msUntil(read, "accepted"));
            seen.started.push(await startBareProcess(join(stage.directory, "bare-start.sqlite")));
          });
          reads.catch(() => {});
        }
        const { state, result } = await stage.client.command(deploy.id);
        if (state === "succeeded") return void (await reads);
        if (isTerminal(state)) throw new Error(`the deploy ended ${state}: ${JSON.stringify(result?.error)}`);
        await new Promise((resolve) => setTimeout(resolve, pingEveryMs));
      }
    };
    const figure = figuresOf<keyof Figures>(measure);

    const told = (name: string, of: keyof Figures) => ({ name, unit: "ms", measure: () => figure(of) });
    const kept = stack.move();
    return {
      rounds: 0,
      sliceSeconds: 0,
      candidates: {},
      rows: [
        {
          name: "agent.ping received, median, against a bare pair of ws, TLS and SQLite",
          unit: "×",
          measure: () => figure("receivedRatio"),
          least: 0.25,
        },
        {
          name: "host.inventory accepted, median, against a bare Node process that stores a row",
          unit: "×",
          measure: () => figure("acceptedRatio"),
          least: 0.12,
        },
        // How long it takes is the machine's affair as much as ours: told, not judged.
        told("agent.ping received, median (aim 5)", "receivedMedianMs"),
        told("the bare pair, median", "relayedMedianMs"),
        told("agent.ping received, p99 (aim 25)", "receivedMs"),
        told("the bare pair, p99", "relayedMs"),
        told("host.inventory accepted, median", "acceptedMedianMs"),
        told("host.inventory accepted, p99 (aim 400)", "acceptedMs"),
        told("agent.ping answered, p99", "answeredMs"),
        told("the agent's event loop is late, p99", "delayMs"),
      ],
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  },
};

interface Figures {
  readonly receivedRatio: number;
  readonly acceptedRatio: number;
  readonly receivedMedianMs: number;
  readonly relayedMedianMs: number;
  readonly receivedMs: number;
  readonly relayedMs: number;
  readonly acceptedMedianMs: number;
  readonly acceptedMs: number;
  readonly answeredMs: number;
  readonly delayMs: number;
}
type Samples = Record<"received" | "relayed" | "accepted" | "started" | "answered" | "delays", number[]>;

function msUntil({ history, createdAt }: CommandView, state: OperationState): number {
  const entry = history.find((one) => one.state === state);
  if (entry === undefined) throw new Error(`the command was never ${state}`);
  return entry.at - createdAt;
}

async function makeImage(
  stage: Awaited<ReturnType<typeof openStage>>,
  name: string,
  signal: AbortSignal,
): Promise<{ root: string; sizeBytes: number }> {
  const input = join(stage.directory, `${name}.raw`);
  const store = join(stage.directory, `store-${name}`);
  {
    await using file = await open(input, "wx");
    for (let k = 0; k < groups; k++) await file.write(randomBytes(groupBytes));
  }
  const { root, sizeBytes } = await importImage({ input, store, name, signal });
  await stage.client.putManifest(root, await readFile(join(store, root, "manifest")));
  const frames = join(store, root, "frames");
  await stage.client.putFrames(root, createReadStream(frames), (await stat(frames)).size);
  return { root, sizeBytes };
}

function percentile(values: readonly number[], fraction: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(fraction * sorted.length))]!;
}
