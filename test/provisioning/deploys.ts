// Deploys by processes of the built executor: planned, applied, killed, taken up again; and what may stand on a disk after.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { createStreamHasher } from "../../assembly/index.ts";
import { hex } from "../../protocol/bytes.ts";
import type {
  Command,
  CommandLimits,
  DeployArguments,
  DeployOutput,
  DeployPlanOutput,
  Result,
} from "../../protocol/commands.ts";
import type { DiskSelector } from "../../protocol/disks.ts";
import { groupBytes, groupCount } from "../../protocol/groups.ts";
import { builtExecutor } from "../contract/programs.ts";
import {
  attach,
  type Executor,
  type ExecutorHost,
  type Follower,
  hostId,
  mintId,
  openExecutorHost,
  type RunOptions,
  resultOf,
  runRequest,
} from "../support/executor-host.ts";
import { fastDirectory } from "../support/fast-directory.ts";
import type { TestImage } from "../support/test-image.ts";
import { bootFindings } from "./boot-findings.ts";
import { type LoopDisk, type LoopOptions, openLoopDisk } from "./loop-disk.ts";

export type Source = NonNullable<RunOptions["sources"]>[number];

export interface Host extends AsyncDisposable {
  readonly executors: ExecutorHost;
  /** For disks and files of a test: in memory where that can be. */
  readonly directory: string;
  /** A loop device, allowed by the policy from now on. */
  makeDisk(options: Omit<LoopOptions, "backing">): Promise<LoopDisk>;
  allow(disk: LoopDisk): Promise<void>;
  /** Lists the places that images may come from, instead of those before. */
  listSources(places: readonly string[]): Promise<void>;
}

export async function openHost(mounts: Parameters<typeof openExecutorHost>[0] = []): Promise<Host> {
  const executors = await openExecutorHost(mounts, builtExecutor);
  const directory = mkdtempSync(join(fastDirectory, "bedplate-disks-"));
  const disks: LoopDisk[] = [];
  const allowed: string[] = [];
  let listed: readonly string[] = [];
  const writePolicy = () =>
    executors.writePolicy(
      [
        `allowDisks = ${JSON.stringify(allowed.map((backing) => `loop:${backing}`))}`,
        'unsigned = ["image.deploy"]',
        `imageSources = ${JSON.stringify(listed)}`,
        "",
      ].join("\n"),
    );
  const allow = async ({ backing }: LoopDisk) => {
    allowed.push(backing);
    await writePolicy();
  };
  return {
    executors,
    directory,
    allow,
    async makeDisk(options) {
      const disk = openLoopDisk({ ...options, backing: join(directory, `disk-${disks.length}.img`) });
      disks.push(disk);
      await allow(disk);
      return disk;
    },
    async listSources(places) {
      listed = places;
      await writePolicy();
    },
    async [Symbol.asyncDispose]() {
      await executors[Symbol.asyncDispose]();
      for (const disk of disks) disk[Symbol.dispose]();
      rmSync(directory, { recursive: true });
    },
  };
}

export interface Deploy {
  readonly image: TestImage;
  readonly disk: DiskSelector;
  readonly offer: RunOptions;
  readonly limits?: CommandLimits;
  readonly arguments?: Partial<DeployArguments>;
}

export const onLoop = ({ backing }: LoopDisk): DiskSelector => ({ loop: backing });

export function planCommand({ image, disk }: Deploy): Command {
  return {
    ...{ id: mintId(), host: hostId, kind: "image.deploy", mode: "plan", limits: {} },
    arguments: { image: image.reference, disk },
  };
}

/** Plans, and gives the command that applies the plan. */
export async function planned(host: Host, deploy: Deploy, by = deploy.offer): Promise<Command> {
  const { result } = await runCommand(host, planCommand(deploy), by);
  if (result.outcome !== "succeeded") throw new Error(`no plan: ${JSON.stringify(result.error)}`);
  const { fingerprint } = result.output as DeployPlanOutput;
  return {
    ...{ id: mintId(), host: hostId, kind: "image.deploy", mode: "apply", limits: deploy.limits ?? {} },
    arguments: { image: deploy.image.reference, disk: deploy.disk, ...deploy.arguments, fingerprint },
  };
}

/** As if it had been planned for what lies on the disk now: a plan of its own would say the same, in half a second. */
export async function plannedAnew(command: Command, image: TestImage, disk: LoopDisk): Promise<Command> {
  const given = command.arguments as DeployArguments;
  const hasher = await createStreamHasher();
  const bytes = disk.bytes();
  const edge = Math.min(groupBytes, bytes.length);
  hasher.update(bytes.subarray(0, edge));
  hasher.update(bytes.subarray(bytes.length - edge));
  // What lies within is not compared then, as in the plan of an older agent.
  const { content: _, ...planned } = given.fingerprint;
  const fingerprint = { ...planned, edges: hex(hasher.digest()) };
  return {
    ...command,
    id: mintId(),
    arguments: { ...given, image: image.reference, fingerprint },
  } as Command;
}

export interface Ended {
  readonly result: Result;
  readonly output: DeployOutput;
  readonly executor: Executor;
  readonly events: Follower["events"];
}

/** As the agent does it: an executor that is gone before it told the end is asked for the very same again. */
export async function runCommand(
  host: Pick<Host, "executors">,
  command: Command,
  offer: RunOptions,
  under: readonly string[] = [],
): Promise<Ended> {
  const request = runRequest(command, offer);
  for (let tries = 1; ; tries++) {
    const executor = host.executors.start(request, under);
    try {
      const follower = await follow(host, command, executor);
      const last = await follower.last;
      follower.close();
      await executor.ended;
      const result = resultOf(last);
      return { result, output: result.output as DeployOutput, executor, events: follower.events };
    } catch (error) {
      const how = await executor.ended;
      if (tries === 3 || (how !== 0 && how !== "SIGKILL")) throw error;
      console.warn(`${command.id}: its executor ended (${how}) before it told the end`);
    }
  }
}

/** @throws what the executor logged, when it ends before anybody could follow it */
export async function follow(
  host: Pick<Host, "executors">,
  { id }: Command,
  executor: Executor,
): Promise<Follower> {
  const { runDirectory } = host.executors;
  const died = executor.ended.then((how) => {
    throw new Error(`the executor ended (${how}): ${executor.log()}`);
  });
  died.catch(() => {});
  return await Promise.race([attach({ runDirectory }, id), died]);
}

export async function deployed(host: Host, deploy: Deploy, by = deploy.offer): Promise<Ended> {
  return await runCommand(host, await planned(host, deploy, by), deploy.offer);
}

/** What the executor's own journal says of an operation: the very events that followers are told. */
export function journalOf(host: Host, { id }: Command) {
  const path = join(host.executors.stateDirectory, "journal.db");
  if (!existsSync(path)) return { results: [] as Result[], runs: 0, state: undefined, good: undefined };
  using journal = new DatabaseSync(path, { readOnly: true, timeout: 5000 });
  const operation = journal.prepare("select state, runs from operations where id = ?").get(id);
  const events = journal.prepare("select json from events where operation = ? order by seq").all(id);
  const good = journal.prepare("select value from notes where operation = ? and name = 'good'").get(id);
  return {
    results: events
      .map(({ json }) => JSON.parse(json as string) as { type: string; result: Result })
      .filter(({ type }) => type === "result")
      .map(({ result }) => result),
    runs: Number(operation?.runs ?? 0),
    state: operation?.state as string | undefined,
    good: good?.value as Uint8Array | undefined,
  };
}

export async function settled({ inFlight }: LoopDisk): Promise<void> {
  while (inFlight() > 0) await sleep(1);
}

/**
 * Groups that hold neither the image nor what was there before, nor what a deploy may put there meanwhile: the marker,
 * zeroes in the first MiB, zeroes in the disk's last MiB where the image does not reach.
 */
export function strangeGroups(
  disk: Uint8Array,
  image: Uint8Array,
  ...before: readonly Uint8Array[]
): string[] {
  const strange: string[] = [];
  const bytes = Buffer.from(disk.buffer, disk.byteOffset, disk.byteLength);
  const imageEnd = image.length;
  for (let group = 0; group < groupCount(bytes.length); group++) {
    const start = group * groupBytes;
    const end = Math.min(start + groupBytes, bytes.length);
    // A block in which the image ends belongs to both.
    for (let at = start; at < end; ) {
      const next = at < imageEnd && imageEnd < end ? imageEnd : end;
      const found = bytes.subarray(at, next);
      const tail = at >= imageEnd;
      const isThat = (other: Uint8Array) => found.equals(other.subarray(at, next));
      const right =
        (!tail && isThat(image)) ||
        before.some(isThat) ||
        (group === 0 && isMarked(found, at, [image, ...before])) ||
        (tail && isMixOf(found, at, bytes.length, before));
      if (!right) strange.push(`group ${group}, bytes ${at} to ${next}`);
      at = next;
    }
  }
  return strange;
}

/**
 * The marker's head is written before its rest, and the image's rest before its head: between those two writes, each synced,
 * the head stands alone, over what was there and over what comes.
 */
function isMarked(found: Buffer, at: number, others: readonly Uint8Array[]): boolean {
  const isZero = (part: Uint8Array) => part.every((byte) => byte === 0);
  if (at > 0) return isZero(found);
  const rest = found.subarray(4096);
  return (
    found.toString("latin1", 0, 27) === "BEDPLATE DEPLOY IN PROGRESS" &&
    isZero(found.subarray(512, 4096)) &&
    (isZero(rest) || others.some((other) => rest.equals(other.subarray(4096, found.length))))
  );
}

/** Past the image: zeroes up to the next sector and in the last MiB, else what was there. */
function isMixOf(found: Buffer, at: number, diskBytes: number, before: readonly Uint8Array[]): boolean {
  const padded = Math.min(found.length, 4096 - (at % 4096));
  const wiped = Math.max(0, Math.min(found.length, diskBytes - groupBytes - at));
  return found.every(
    (byte, index) =>
      before.some((old) => old[at + index] === byte) || (byte === 0 && (index < padded || index >= wiped)),
  );
}

/** What is wrong with a disk on which a deploy has not ended well. */
export function faultsOfUnfinished(disk: Uint8Array, image: Uint8Array, ...before: readonly Uint8Array[]) {
  const head = Buffer.from(disk.buffer, disk.byteOffset, Math.min(disk.byteLength, groupBytes));
  return [
    ...bootFindings(disk),
    ...strangeGroups(disk, image, ...before),
    ...(isMarked(head, 0, []) ? [] : ["the first MiB is not the marker"]),
  ];
}

/** What is wrong with a disk on which a deploy has succeeded. */
export function faultsOfFinished(
  disk: Buffer,
  image: Uint8Array,
  ...before: readonly Uint8Array[]
): string[] {
  return [
    ...(disk.subarray(0, image.length).equals(image) ? [] : ["it does not hold the image"]),
    ...strangeGroups(disk, image, ...before),
    ...(disk.length - image.length < groupBytes ||
    disk.subarray(Math.max(image.length, disk.length - groupBytes)).every((byte) => byte === 0)
      ? []
      : ["its last MiB is not wiped"]),
  ];
}
