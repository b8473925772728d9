// One disk of a deploy, before anything is written to it: found, guarded, held exclusively, and known to be the planned one.
import type { AppliedDisk, PlannedDisk } from "../../protocol/commands.ts";
import type { DiskContent } from "../../protocol/disk-content.ts";
import { type Disk, type DiskSelector, formatDiskSelector, type GuardFinding } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { paddedBytes } from "../../protocol/groups.ts";
import type { Manifest } from "../../protocol/manifest.ts";
import { awaitDisk } from "../devices/await-disk.ts";
import { type DirectFile, lockDisk, type OpenDisk, openDisk, readStretch } from "../devices/direct-file.ts";
import type { ListedDisk } from "../devices/disks.ts";
import { beyondAnInstant, isHeldByAnother } from "../devices/exclusive-use.ts";
import {
  contentDigest,
  fingerprintOf,
  identityOf,
  requireSameContent,
  requireSameDisk,
  requireSameFingerprint,
} from "../devices/fingerprint.ts";
import { evaluateGuards, requireGuards } from "../devices/guards.ts";
import { selectDisk } from "../devices/select.ts";
import { probeDisk } from "../devices/signatures/probe.ts";
import { bootIdOf } from "../devices/system.ts";
import { writersOf } from "../devices/writers.ts";
import { statusOfOpen } from "../host/files.ts";
import type { CommandContext } from "./command.ts";

export interface TargetMeans {
  readonly manifest: Manifest;
  /** An aligned view of a MiB, whose contents are lost. */
  readonly window: Uint8Array;
  readonly context: CommandContext;
  readonly signal: AbortSignal;
}

/** Finds each disk; what may still appear is waited for by all of them together. @throws what `awaitDisk` throws */
export async function findDisks(
  asked: readonly PlannedDisk[],
  waitSeconds: number,
  { host, disks }: CommandContext,
  signal: AbortSignal,
): Promise<ListedDisk[]> {
  const { clock } = host;
  const startedMs = clock.monotonic();
  const found: ListedDisk[] = [];
  for (const { disk: selector } of asked) {
    const left = Math.max(0, Math.ceil(waitSeconds - (clock.monotonic() - startedMs) / 1000));
    const list = () => disks(host.facts());
    found.push(await awaitDisk({ selector, waitSeconds: left, list, clock, signal }));
  }
  requireDifferent(asked, found);
  return found;
}

/** Names of one disk, whatever selected it: its path, the file behind it, and its wwn, which paths to one disk share. */
function requireDifferent(asked: readonly PlannedDisk[], found: readonly ListedDisk[]): void {
  for (const [index, { disk, number }] of found.entries()) {
    const other = found.findIndex(
      (each, at) =>
        at < index &&
        (each.disk.path === disk.path ||
          (number !== null && each.number === number) ||
          (disk.backing !== null && each.disk.backing === disk.backing) ||
          (disk.wwn !== null && each.disk.wwn === disk.wwn)),
    );
    if (other < 0) continue;
    const names = [other, index].map((at) => formatDiskSelector(asked[at]!.disk));
    throw new BedplateError(
      "deploy.same-disk",
      `${names.join(" and ")} are one disk, ${disk.path}. No disk of this command was touched.`,
      { hint: "Name each disk once.", details: { path: disk.path, selectors: names } },
    );
  }
}

/** What lies on the disk now, every guard's finding, and the fingerprint that an apply must quote. Changes nothing. */
export async function lookAt(listed: ListedDisk, asked: PlannedDisk, means: TargetMeans) {
  const { disk } = listed;
  await using open = await openToRead(disk, means.window);
  const content = await contentOf(disk, open, means);
  const bootId = bootIdOf(means.context.host.facts());
  return {
    guards: await guardFindings(listed, asked, content, means),
    fingerprint: {
      ...(await fingerprintOf(disk, open, bootId, means.window)),
      content: await contentDigest(content),
    },
  };
}

/**
 * Opens the disk to be written, held and locked until it is closed. The fingerprint of one that this operation has begun
 * to write to is left to the deploy itself, which looks for its own marker.
 * @throws the first guard's code, `plan.changed`, `disk.held`, `disk.unavailable`
 */
export async function openTarget(
  listed: ListedDisk,
  asked: AppliedDisk,
  began: boolean,
  means: TargetMeans,
): Promise<DirectFile> {
  const { context, window, signal } = means;
  const { disk } = listed;
  const content = began ? null : await contentNow(disk, means);
  requireGuards(await guardFindings(listed, asked, content, means), disk, began);
  requireSameDisk(asked.fingerprint, identityOf(disk));
  await using opening = new AsyncDisposableStack();
  const kind = disk.type === "file" ? "file" : "block";
  const openIt = () => openDisk({ path: disk.path, kind, access: "write", window });
  const open = opening.use(await beyondAnInstant(openIt, context.host.clock, signal));
  if (!open.direct)
    context.log(
      `${disk.path}: its file system takes no direct reads; the read-back may come from the page cache`,
    );
  const unlocked = await lockDisk(open, context.host.processes, signal);
  if (unlocked !== undefined) context.log(unlocked);
  requireSameOpenDisk(open, listed, asked.disk, context);
  if (!began) {
    const bootId = bootIdOf(context.host.facts());
    requireSameFingerprint(asked.fingerprint, await fingerprintOf(disk, open, bootId, window));
    // Once more, now that nobody else has it: what the guards saw is what is about to be lost.
    const overridden = (asked.overrides ?? []).length > 0;
    await requireSameContent(asked.fingerprint, await contentOf(disk, open, means), overridden);
  }
  const { sizeBytes } = means.manifest;
  const padding = paddedBytes(sizeBytes, disk.logicalSectorBytes) - sizeBytes;
  if (padding > 0)
    context.log(
      `${disk.path}: the image is no multiple of its sectors: ${padding} zero bytes are written after its end`,
    );
  opening.move();
  return open;
}

function openToRead(disk: Disk, window: Uint8Array): Promise<DirectFile> {
  return openDisk({ path: disk.path, kind: disk.type === "file" ? "file" : "block", access: "read", window });
}

/** What the guards judge by, read past the page cache a window at a time. */
export function contentOf(
  { sizeBytes, logicalSectorBytes }: Disk,
  open: OpenDisk,
  { window, signal }: Pick<TargetMeans, "window" | "signal">,
): Promise<DiskContent> {
  return probeDisk({
    sizeBytes,
    sectorBytes: logicalSectorBytes,
    read: (stretch) => readStretch(open, window, { ...stretch, sizeBytes }),
    signal,
  });
}

async function contentNow(disk: Disk, means: TargetMeans): Promise<DiskContent> {
  await using open = await openToRead(disk, means.window);
  return await contentOf(disk, open, means);
}

async function guardFindings(
  { disk, carries, otherPaths = [] }: ListedDisk,
  { overrides = [] }: PlannedDisk,
  content: DiskContent | null,
  { manifest: { sizeBytes, sectorBytes }, context: { policy, host }, signal }: TargetMeans,
): Promise<GuardFinding[]> {
  let heldByAnother = false;
  if (disk.type !== "file") {
    for (const path of [disk.path, ...otherPaths])
      heldByAnother ||= await isHeldByAnother(path, host.clock, signal);
  }
  return evaluateGuards({
    disk,
    carries,
    policy: policy.state,
    policyPath: policy.path,
    protectedByPolicy: policy.protects(disk),
    writers: writersOf(host.files, disk, otherPaths),
    heldByAnother,
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
