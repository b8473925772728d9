// image.deploy: the plan evaluates everything and changes nothing; apply does what was planned, on that very disk.
import { compileKernel, createGroupKernel } from "../../assembly/index.ts";
import type { DeployArguments, DeployPlanArguments, DeployPlanOutput } from "../../protocol/commands.ts";
import type { DiskContent } from "../../protocol/disk-content.ts";
import type { Disk, DiskSelector, OverridableGuard } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { Manifest } from "../../protocol/manifest.ts";
import { awaitDisk } from "../devices/await-disk.ts";
import { type DeployJournal, deployImage } from "../devices/deploy-image.ts";
import { type DirectFile, lockDisk, openDisk, readStretch } from "../devices/direct-file.ts";
import type { ListedDisk } from "../devices/disks.ts";
import { fingerprintOf, identityOf, requireSameDisk } from "../devices/fingerprint.ts";
import { evaluateGuards, paddedBytes, requireGuards } from "../devices/guards.ts";
import { markerBytes } from "../devices/marker.ts";
import { openSources } from "../devices/open-sources.ts";
import { tailOf } from "../devices/seal.ts";
import { selectDisk } from "../devices/select.ts";
import { probeDisk } from "../devices/signatures/probe.ts";
import { bootIdOf } from "../devices/system.ts";
import { statusOfOpen } from "../host/files.ts";
import type { Command, CommandContext, Notes } from "./command.ts";
import { fetchCheckedManifest, openForReading } from "./image-checks.ts";

export const imageDeploy: Command<"image.deploy"> = {
  async run(command, context, signal) {
    if (command.mode === "apply")
      return { output: await apply(command.id, command.arguments, context, signal) };
    const output = await plan(command.arguments, context, signal);
    const { image, disk, fingerprint, guards, bytesToFetchMax, bytesToWriteMax } = output;
    return {
      output,
      plan: {
        arguments: { ...command.arguments, image, fingerprint },
        facts: { disk, bytesToFetchMax, bytesToWriteMax },
        findings: guards,
      },
    };
  },
};

async function plan(
  given: DeployPlanArguments,
  context: CommandContext,
  signal: AbortSignal,
): Promise<DeployPlanOutput> {
  const { image } = given;
  const listed = await awaitListed(given, context, signal);
  const facts = context.host.facts();
  const { disk } = listed;
  using sources = openSources(context.sources, context.policy.imageSources);
  const manifest = await fetchCheckedManifest(image, sources.all, context, signal);
  const { open, window } = await openForReading(disk);
  await using _closing = open;
  const content = await contentOf(disk, open, window, signal);
  const guards = guardFindings(listed, { manifest, content, ...given }, context);
  const fingerprint = await fingerprintOf(disk, open, bootIdOf(facts), window);
  const sectorBytes = disk.logicalSectorBytes;
  return {
    image,
    disk,
    fingerprint,
    guards,
    allowed: guards.every(({ ok }) => ok),
    bytesToFetchMax: manifest.frameBytes.reduce((sum, bytes) => sum + bytes, 0),
    bytesToWriteMax:
      paddedBytes(manifest.sizeBytes, sectorBytes) +
      markerBytes(disk.sizeBytes) +
      tailOf({ sizeBytes: manifest.sizeBytes, sectorBytes }, disk.sizeBytes).length,
  };
}

async function apply(
  operation: string,
  given: DeployArguments,
  context: CommandContext,
  signal: AbortSignal,
) {
  const { image, disk: selector, fingerprint, limits } = given;
  const { host } = context;
  const startedMs = host.clock.monotonic();
  context.phase({ name: "prepare", total: 0, unit: "bytes", done: () => 0 });
  using sources = openSources(context.sources, context.policy.imageSources);
  const manifest = await fetchCheckedManifest(image, sources.all, context, signal);
  const listed = await awaitListed(given, context, signal);
  const facts = host.facts();
  const { disk } = listed;
  const journal = deployJournal(context.notes);
  const { windows } = await createGroupKernel();
  const content = journal.began ? null : await contentNow(disk, signal);
  requireGuards(guardFindings(listed, { manifest, content, ...given }, context), disk);
  requireSameDisk(fingerprint, identityOf(disk));
  await using open = await openDisk({
    path: disk.path,
    kind: disk.type === "file" ? "file" : "block",
    access: "write",
    window: windows[0]!,
  });
  if (!open.direct)
    context.log(
      `${disk.path}: its file system takes no direct reads; the read-back may come from the page cache`,
    );
  const unlocked = await lockDisk(open, host.processes, signal);
  if (unlocked !== undefined) context.log(unlocked);
  requireSameOpenDisk(open, listed, selector, context);
  const padding = paddedBytes(image.sizeBytes, disk.logicalSectorBytes) - image.sizeBytes;
  if (padding > 0)
    context.log(
      `the image is no multiple of the disk's sectors: ${padding} zero bytes are written after its end`,
    );
  // Awaited here: the disk closes when this function returns.
  return await deployImage({
    operation,
    run: context.run,
    manifest,
    sources: sources.all,
    ca: context.ca,
    bytesPerSecondMax: limits?.bytesPerSecondMax,
    processes: host.processes,
    log: context.log,
    disk,
    open,
    planned: fingerprint,
    bootId: bootIdOf(facts),
    kernel: await compileKernel(),
    clock: host.clock,
    random: host.random,
    journal,
    signal,
    pause: context.pause,
    startedMs,
    phase: (name, total, done) => context.phase({ name, total, unit: "bytes", done }),
    pointOfNoReturn: context.pointOfNoReturn,
  });
}

function awaitListed(
  { disk: selector, waitSeconds = 0 }: DeployPlanArguments,
  { host, disks }: CommandContext,
  signal: AbortSignal,
): Promise<ListedDisk> {
  return awaitDisk({ selector, waitSeconds, list: () => disks(host.facts()), clock: host.clock, signal });
}

/** What lies on the disk, read past the page cache a window at a time. */
function contentOf(
  { sizeBytes, logicalSectorBytes }: Disk,
  open: DirectFile,
  window: Uint8Array,
  signal: AbortSignal,
): Promise<DiskContent> {
  return probeDisk({
    sizeBytes,
    sectorBytes: logicalSectorBytes,
    read: (stretch) => readStretch(open, window, { ...stretch, sizeBytes }),
    signal,
  });
}

async function contentNow(disk: Disk, signal: AbortSignal): Promise<DiskContent> {
  const { open, window } = await openForReading(disk);
  await using _closing = open;
  return await contentOf(disk, open, window, signal);
}

interface GuardedArguments {
  readonly manifest: Manifest;
  readonly content: DiskContent | null;
  readonly overrides?: readonly OverridableGuard[];
}

function guardFindings(
  { disk, carries }: ListedDisk,
  { manifest: { sizeBytes, sectorBytes }, content, overrides = [] }: GuardedArguments,
  { policy }: CommandContext,
) {
  return evaluateGuards({
    disk,
    carries,
    policy: policy.state,
    policyPath: policy.path,
    protectedByPolicy: policy.protects(disk),
    content,
    overrides,
    allowOverrides: policy.allowOverrides,
    image: { sizeBytes, sectorBytes },
  });
}

/**
 * Between listing and opening, a name may have come to mean another device: what was opened is compared, not the name.
 * @throws `plan.changed`
 */
function requireSameOpenDisk(
  open: DirectFile,
  listed: ListedDisk,
  selector: DiskSelector,
  context: CommandContext,
): void {
  const { files, facts } = context.host;
  const status = statusOfOpen(open.fd);
  const again = selectDisk(context.disks(facts()), selector);
  requireSameDisk(momentOf(listed.disk), momentOf(again.disk));
  if (listed.number === null) {
    const named = files.linkStatus(open.path);
    if (
      named.device === status.device &&
      named.inode === status.inode &&
      status.sizeBytes === listed.disk.sizeBytes
    )
      return;
  } else if (
    again.number === listed.number &&
    status.represents === listed.number &&
    again.disk.diskSequence === listed.disk.diskSequence
  )
    return;
  throw new BedplateError("plan.changed", `${open.path} came to mean another disk while it was opened.`, {
    hint: "Make a new plan.",
  });
}

function momentOf(disk: Disk) {
  return { ...identityOf(disk), diskSequence: disk.diskSequence, bootId: "", edges: "" };
}

const yes = new Uint8Array([1]);

/** The bitmap and the number of claimed groups are one entry: they belong to one moment. */
function deployJournal(notes: Notes): DeployJournal {
  const good = notes.get("good");
  return {
    began: notes.get("began") !== undefined,
    sealing: notes.get("sealing") !== undefined,
    good:
      good === undefined
        ? undefined
        : {
            claimed: Number(new DataView(good.buffer, good.byteOffset).getBigUint64(0)),
            bitmap: good.subarray(8),
          },
    begin: () => notes.set({ began: yes }),
    seal: () => notes.set({ sealing: yes }),
    saveGood(bitmap, claimed) {
      const entry = new Uint8Array(8 + bitmap.length);
      new DataView(entry.buffer).setBigUint64(0, BigInt(claimed));
      entry.set(bitmap, 8);
      notes.set({ good: entry });
    },
  };
}
