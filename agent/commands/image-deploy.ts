// image.deploy: the plan evaluates everything and changes nothing; apply does what was planned, on those very disks.
import { compileKernel, createGroupKernel, type GroupKernel, groupKernelOf } from "../../assembly/index.ts";
import type {
  CommandOf,
  DeployOutput,
  DeployPlanArguments,
  DeployPlanOutput,
  DiskPlan,
} from "../../protocol/commands.ts";
import { assert } from "../../protocol/errors.ts";
import { paddedBytes } from "../../protocol/groups.ts";
import type { Manifest } from "../../protocol/manifest.ts";
import { deployImage } from "../devices/deploy-image.ts";
import type { ListedDisk } from "../devices/disks.ts";
import { type ImageWorkers, startImageWorkers } from "../devices/image-run.ts";
import { markerBytes } from "../devices/marker.ts";
import { openSources, type UsableSource } from "../devices/open-sources.ts";
import { type ProvedImage, proveImage } from "../devices/proved-image.ts";
import { tailOf } from "../devices/seal.ts";
import { bootIdOf } from "../devices/system.ts";
import type { Command, CommandContext, CommandEnd } from "./command.ts";
import { deployDisks, endOf, openAll, type Target, writeAll } from "./deploy-disks.ts";
import { mayMend } from "./deploy-outcome.ts";
import { contentOf, findDisks, lookAt } from "./deploy-target.ts";
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
  const { windows } = await createGroupKernel();
  const means = { manifest, window: windows[0]!, context, signal };
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

async function apply(
  command: ApplyCommand,
  context: CommandContext,
  signal: AbortSignal,
): Promise<CommandEnd> {
  const given = command.arguments;
  const startedMs = context.host.clock.monotonic();
  const disks = deployDisks(given, context.notes);
  let passed = false;
  const pointOfNoReturn = (why: string) => {
    context.pointOfNoReturn(why);
    passed = true;
  };
  const prepareAndWrite = async () => {
    context.phase({ name: "prepare", total: 0, unit: "bytes", done: () => 0 });
    const compiled = await compileKernel();
    // Before they are needed: they take a while to start.
    await using workers = startImageWorkers({ kernel: compiled });
    const kernel = groupKernelOf(compiled);
    using sources = openSources(context.sources, context.policy.imageSources);
    const manifest = await fetchCheckedManifest(given.image, sources, context, signal, "signed");
    const { clock, random } = context.host;
    // Its zeroes while the disks are looked at; what is to be fetched when none of them was refused.
    await using image = proveImage({
      ...{ manifest, sources: sources.all, ca: context.ca, kernel, workers, clock, random, signal },
      fetchBytesPerSecondMax: given.limits?.fetchBytesPerSecondMax,
      pause: context.pause,
    });
    const means = { manifest, window: kernel.windows[0]!, context, signal };
    // SAFETY: every disk is held, locked and checked before the first byte is written to any of them.
    await using holding = new AsyncDisposableStack();
    const targets = await openAll(disks, given.waitSeconds ?? 0, holding, means);
    const write = (target: Target, left: number) =>
      writeOne(target, {
        ...{
          command,
          manifest,
          image,
          sources: sources.all,
          kernel,
          workers,
          context,
          signal,
          startedMs,
          left,
        },
        // While another one is still to be written, what is asked for can be cancelled.
        pointOfNoReturn: left === 1 ? pointOfNoReturn : () => signal.throwIfAborted(),
      });
    const [only] = targets;
    if (given.also === undefined && only !== undefined) return { output: await write(only, 1) };
    // Past the point of no return nothing could stop another try.
    const mayTry = (error: unknown) => mayMend(error) && !signal.aborted && !passed;
    await writeAll(targets, { disks, write, mayTry, log: context.log, signal });
    return endOf(disks, signal);
  };
  try {
    return await prepareAndWrite();
  } catch (error) {
    // Of several some may hold the image already: that is told, whatever keeps this run from the others.
    if (given.also === undefined || !disks.begun) throw error;
    return endOf(disks, signal, error);
  }
}

interface Writing {
  readonly command: ApplyCommand;
  readonly manifest: Manifest;
  readonly image: ProvedImage;
  readonly sources: readonly UsableSource[];
  readonly kernel: GroupKernel;
  readonly workers: ImageWorkers;
  readonly context: CommandContext;
  readonly signal: AbortSignal;
  readonly startedMs: number;
  readonly pointOfNoReturn: (why: string) => void;
  /** Disks to be written, this one included. */
  readonly left: number;
}

async function writeOne(
  { index, asked, notes, listed: { disk }, open }: Target,
  {
    command,
    manifest,
    image,
    sources,
    kernel,
    workers,
    context,
    signal,
    startedMs,
    pointOfNoReturn,
    left,
  }: Writing,
): Promise<DeployOutput> {
  const { limits, also } = command.arguments;
  const { host } = context;
  const of = 1 + (also?.length ?? 0);
  const before = of - left;
  const at = { number: before + 1, of, name: nameFor(disk) };
  return await deployImage({
    // Disks of one make and without serials may change their names in a reboot: none is taken for another one of the command.
    operation: index === 0 ? command.id : `${command.id} disk ${index + 1}`,
    run: context.run,
    manifest,
    image,
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
    content: () => contentOf(disk, open, { window: kernel.windows[0]!, signal }),
    kernel,
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
