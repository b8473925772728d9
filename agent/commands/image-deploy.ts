// image.deploy: the plan evaluates everything and changes nothing; apply does what was planned, on those very disks.

import { compileKernel, createGroupKernel } from "../../assembly/index.ts";
import {
  type AppliedDisk,
  type CommandOf,
  type DeployOutput,
  type DeployPlanArguments,
  type DeployPlanOutput,
  type DiskPlan,
  disksOf,
} from "../../protocol/commands.ts";
import { type DiskSelector, formatDiskSelector } from "../../protocol/disks.ts";
import { assert, BedplateError } from "../../protocol/errors.ts";
import { paddedBytes } from "../../protocol/groups.ts";
import type { Manifest } from "../../protocol/manifest.ts";
import { deployImage } from "../devices/deploy-image.ts";
import type { OpenDisk } from "../devices/direct-file.ts";
import type { ListedDisk } from "../devices/disks.ts";
import { type ImageWorkers, startImageWorkers } from "../devices/image-run.ts";
import { markerBytes } from "../devices/marker.ts";
import { openSources, type UsableSource } from "../devices/open-sources.ts";
import { tailOf } from "../devices/seal.ts";
import { bootIdOf } from "../devices/system.ts";
import type { Command, CommandContext, CommandEnd } from "./command.ts";
import { type DiskNotes, diskNotes } from "./deploy-notes.ts";
import { type DiskEnd, endOfAll, mayMend, outcomeOf } from "./deploy-outcome.ts";
import { findDisks, lookAt, openTarget } from "./deploy-target.ts";
import { fetchCheckedManifest } from "./image-checks.ts";

type ApplyCommand = Extract<CommandOf<"image.deploy">, { mode: "apply" }>;

export const imageDeploy: Command<"image.deploy"> = {
  async run(command, context, signal) {
    if (command.mode === "apply") return await apply(command, context, signal);
    const output = await plan(command.arguments, context, signal);
    const { image, fingerprint, also, guards } = output;
    const given = command.arguments;
    return {
      output,
      plan: {
        arguments: {
          ...given,
          image,
          fingerprint,
          ...(also === undefined
            ? {}
            : { also: given.also?.map((each, at) => ({ ...each, fingerprint: also[at]!.fingerprint })) }),
        },
        facts: { ...factsOf(output), ...(also === undefined ? {} : { also: also.map(factsOf) }) },
        findings: guards,
      },
    };
  },
};

function factsOf({ disk, bytesToFetchMax, bytesToWriteMax }: DiskPlan) {
  return { disk, bytesToFetchMax, bytesToWriteMax };
}

async function plan(
  given: DeployPlanArguments,
  context: CommandContext,
  signal: AbortSignal,
): Promise<DeployPlanOutput> {
  const { image, waitSeconds = 0, also = [] } = given;
  const asked = [given, ...also];
  const found = await findDisks(asked, waitSeconds, context, signal);
  using sources = openSources(context.sources, context.policy.imageSources);
  const manifest = await fetchCheckedManifest(image, sources, context, signal, "signed");
  const means = { manifest, window: await makeWindow(), context, signal };
  const bytesToFetchMax = manifest.frameBytes.reduce((sum, bytes) => sum + bytes, 0);
  const guards: DeployPlanOutput["guards"] = [];
  const planned: NonNullable<DeployPlanOutput["also"]> = [];
  for (const [index, listed] of found.entries()) {
    const { disk } = listed;
    const { guards: findings, fingerprint } = await lookAt(listed, asked[index]!, means);
    guards.push(...(found.length === 1 ? findings : findings.map((each) => ({ ...each, disk: disk.path }))));
    const bytesToWriteMax = bytesToWrite(manifest, disk);
    planned.push({ disk, fingerprint, bytesToFetchMax, bytesToWriteMax });
  }
  const [first, ...others] = planned;
  assert(first !== undefined, "a deploy has a disk");
  return {
    image,
    ...first,
    ...(others.length === 0 ? {} : { also: others }),
    guards,
    allowed: guards.every(({ ok }) => ok),
  };
}

function bytesToWrite({ sizeBytes }: Manifest, disk: ListedDisk["disk"]): number {
  const sectorBytes = disk.logicalSectorBytes;
  return paddedBytes(sizeBytes, sectorBytes) + markerBytes(disk.sizeBytes) + tailOf(disk.sizeBytes).length;
}

async function makeWindow(): Promise<Uint8Array> {
  const { windows } = await createGroupKernel();
  return windows[0]!;
}

/** A disk that is still to be written. */
interface Target {
  readonly index: number;
  readonly asked: AppliedDisk;
  readonly notes: DiskNotes;
  readonly listed: ListedDisk;
  readonly open: OpenDisk;
}

async function apply(
  command: ApplyCommand,
  context: CommandContext,
  signal: AbortSignal,
): Promise<CommandEnd> {
  const given = command.arguments;
  const startedMs = context.host.clock.monotonic();
  context.phase({ name: "prepare", total: 0, unit: "bytes", done: () => 0 });
  // Before they are needed: they take a while to start.
  await using workers = startImageWorkers();
  using sources = openSources(context.sources, context.policy.imageSources);
  const manifest = await fetchCheckedManifest(given.image, sources, context, signal, "signed");
  const ends: (DiskEnd | undefined)[] = disksOf(given).map(() => undefined);
  // SAFETY: every disk is held, locked and checked before the first byte is written to any of them.
  await using holding = new AsyncDisposableStack();
  const targets = await openAll(given, { manifest, context, signal, holding, ends });
  let passed = false;
  const pointOfNoReturn = (why: string) => {
    context.pointOfNoReturn(why);
    passed = true;
  };
  const write = (target: Target, left: number) =>
    writeOne(target, {
      ...{ command, manifest, sources: sources.all, workers, context, signal, startedMs, left },
      // While another one is still to be written, what is asked for can be cancelled.
      pointOfNoReturn: left === 1 ? pointOfNoReturn : () => signal.throwIfAborted(),
    });

  const [only] = targets;
  if (given.also === undefined) {
    assert(only !== undefined, "a single disk is open or has thrown");
    return { output: await write(only, 1) };
  }
  // Past the point of no return nothing could stop another try.
  const mayTry = (error: unknown) => mayMend(error) && !signal.aborted && !passed;
  await writeAll(targets, { ends, write, mayTry, context, signal });
  // Only what did not come to an end of its own was stopped.
  const cut = ends.some((end) => end === undefined || wasStopped(end));
  const stopped = cut ? (signal.reason as BedplateError) : undefined;
  // To be resumed: what was done is in the notes.
  if (stopped?.code === "executor.lost") throw stopped;
  return endOfAll(
    disksOf(given).map(({ disk }, index) => ends[index] ?? untouched(index, disk, targets)),
    stopped,
  );
}

interface Opening {
  readonly manifest: Manifest;
  readonly context: CommandContext;
  readonly signal: AbortSignal;
  readonly holding: AsyncDisposableStack;
  /** Filled in for disks that are done with already. */
  readonly ends: (DiskEnd | undefined)[];
}

/**
 * Opens every disk that is still to be written. As long as nothing was written to any of them, one that cannot be is
 * thrown, and refuses them all; later it is that disk's own failure.
 */
async function openAll(
  given: ApplyCommand["arguments"],
  { manifest, context, signal, holding, ends }: Opening,
): Promise<Target[]> {
  const { waitSeconds = 0, also = [] } = given;
  const several = also.length > 0;
  const all = [given, ...also].map((asked, index) => ({
    index,
    asked,
    notes: diskNotes(context.notes, index),
  }));
  for (const { index, notes } of all) {
    const { done } = notes;
    if (done !== undefined) ends[index] = { disk: done.disk, outcome: "succeeded", output: done };
  }
  const begun = all.some(({ index, notes }) => ends[index] !== undefined || notes.journal().began);
  const todo = all.filter(({ index }) => ends[index] === undefined);
  const means = { manifest, window: await makeWindow(), context, signal };
  const targets: Target[] = [];
  const found = begun
    ? undefined
    : await findDisks(
        todo.map(({ asked }) => asked),
        waitSeconds,
        context,
        signal,
      );
  for (const [at, { index, asked, notes }] of todo.entries()) {
    try {
      const listed = found?.[at] ?? (await findDisks([asked], waitSeconds, context, signal))[0]!;
      const open = holding.use(await openTarget(listed, asked, notes.journal().began, means));
      targets.push({ index, asked, notes, listed, open });
    } catch (error) {
      signal.throwIfAborted();
      if (!several) throw error;
      if (!begun) throw noneTouched(error, asked.disk);
      ends[index] = failure(nameOf(asked.disk), error, signal);
      context.log(`${formatDiskSelector(asked.disk)}: ${(error as Error).message}`);
    }
  }
  return targets;
}

interface WritingAll {
  readonly ends: (DiskEnd | undefined)[];
  /** @param left disks that are to be written, this one included, as far as is known */
  readonly write: (target: Target, left: number) => Promise<DeployOutput>;
  readonly mayTry: (error: unknown) => boolean;
  readonly context: CommandContext;
  readonly signal: AbortSignal;
}

/** One after the other: what a deploy takes of memory does not grow with its disks. What may be mended is tried once more. */
async function writeAll(
  targets: readonly Target[],
  { ends, write, mayTry, context: { log }, signal }: WritingAll,
): Promise<void> {
  const waiting = [...targets];
  const again = new Set<Target>();
  for (let target = waiting.shift(); target !== undefined && !signal.aborted; target = waiting.shift()) {
    const { index, listed, notes } = target;
    try {
      const output = await write(target, waiting.length + 1);
      notes.finish(output);
      ends[index] = { disk: output.disk, outcome: "succeeded", output };
      log(`${listed.disk.path}: holds the image`);
    } catch (error) {
      const mended = !again.has(target) && mayTry(error);
      log(
        `${listed.disk.path}: ${(error as Error).message}${mended ? " It is tried again after the others." : ""}`,
      );
      if (mended) {
        again.add(target);
        waiting.push(target);
      } else ends[index] = failure(listed.disk, error, signal);
    }
  }
}

interface Writing {
  readonly command: ApplyCommand;
  readonly manifest: Manifest;
  readonly sources: readonly UsableSource[];
  readonly workers: ImageWorkers;
  readonly context: CommandContext;
  readonly signal: AbortSignal;
  readonly startedMs: number;
  readonly pointOfNoReturn: (why: string) => void;
  /** Disks to be written, this one included. */
  readonly left: number;
}

async function writeOne(
  { asked, notes, listed: { disk }, open }: Target,
  { command, manifest, sources, workers, context, signal, startedMs, pointOfNoReturn, left }: Writing,
): Promise<DeployOutput> {
  const { limits, also } = command.arguments;
  const { host } = context;
  const of = 1 + (also?.length ?? 0);
  const before = of - left;
  const at = { number: before + 1, of, name: nameFor(disk) };
  return await deployImage({
    operation: command.id,
    run: context.run,
    manifest,
    sources,
    ca: context.ca,
    bytesPerSecondMax: limits?.bytesPerSecondMax,
    fetchBytesPerSecondMax: limits?.fetchBytesPerSecondMax,
    processes: host.processes,
    log: context.log,
    disk,
    open,
    planned: asked.fingerprint,
    bootId: bootIdOf(host.facts()),
    kernel: await compileKernel(),
    workers,
    clock: host.clock,
    random: host.random,
    journal: notes.journal(),
    signal,
    pause: context.pause,
    startedMs: of === 1 ? startedMs : host.clock.monotonic(),
    phase: (name, total, done) =>
      context.phase({
        name,
        total: of * total,
        unit: "bytes",
        done: () => before * total + done(),
        ...(of === 1 ? {} : { at }),
      }),
    pointOfNoReturn,
  });
}

function nameFor({ path, serial, backing }: ListedDisk["disk"]): string {
  const name = serial ?? backing;
  return (name === null || name === path ? path : `${path} ${name}`).slice(0, 256);
}

function wasStopped({ outcome }: DiskEnd): boolean {
  return outcome !== "succeeded" && outcome !== "failed";
}

function failure(disk: DiskEnd["disk"], error: unknown, signal: AbortSignal): DiskEnd {
  const { path, serial, backing } = disk;
  const thrown = error instanceof Error ? error : new Error(String(error));
  return { disk: { path, serial, backing }, outcome: outcomeOf(error, signal), error: thrown };
}

/** Of a disk that was not come to. Where an earlier run or try had begun, it stands with the marker on it. */
function untouched(index: number, selector: DiskSelector, targets: readonly Target[]): DiskEnd {
  const target = targets.find((each) => each.index === index);
  if (target === undefined) return { disk: nameOf(selector), outcome: "untouched" };
  const { path, serial, backing } = target.listed.disk;
  const began = target.notes.journal().began;
  return { disk: { path, serial, backing }, outcome: began ? "cancelled" : "untouched" };
}

/** Of a disk that was not found: all that is known is what was asked for. */
function nameOf(selector: DiskSelector): DiskEnd["disk"] {
  return { path: formatDiskSelector(selector), serial: selector.serial ?? null, backing: null };
}

/** Says of a refusal which of several disks it is about, and that it holds for all. */
function noneTouched(error: unknown, selector: DiskSelector): unknown {
  if (!(error instanceof BedplateError)) return error;
  const name = formatDiskSelector(selector);
  return new BedplateError(error.code, `${name}: ${error.message} No disk of this command was touched.`, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    details: { ...error.details, selector: name },
    cause: error,
  });
}
