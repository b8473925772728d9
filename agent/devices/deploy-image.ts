// Writes an image to an open disk in the one order that never leaves a half-written disk able to boot:
// marker, groups, read-back, and only then the real first MiB.
import { type GroupKernel, mergeGroups } from "../../assembly/index.ts";
import { equalBytes, hex } from "../../protocol/bytes.ts";
import type { DeployOutput } from "../../protocol/commands.ts";
import type { DiskContent } from "../../protocol/disk-content.ts";
import type { Disk, Fingerprint } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { sectorBytesOf } from "../../protocol/image-sectors.ts";
import { groupCount, type Manifest } from "../../protocol/manifest.ts";
import type { Clock } from "../host/clock.ts";
import type { Pause } from "../host/pause.ts";
import type { Processes } from "../host/processes.ts";
import type { Random } from "../host/random.ts";
import { type OpenDisk, syncDisk } from "./direct-file.ts";
import {
  fingerprintOf,
  identityOf,
  requireSameContent,
  requireSameDisk,
  requireSameFingerprint,
} from "./fingerprint.ts";
import type { Work } from "./group-work.ts";
import { countOf, extentOf, groupsEnd, type ImageJob, slots } from "./image-job.ts";
import { createImageRun, type ImageRun, type ImageWorkers, type PhaseOptions } from "./image-run.ts";
import { lazyConnections } from "./lazy-connections.ts";
import type { UsableSource } from "./open-sources.ts";
import { createPace } from "./pace.ts";
import type { ProvedImage } from "./proved-image.ts";
import {
  endGroupOf,
  loadSealed,
  markInProgress,
  seal,
  showsMarker,
  showsOwnMark,
  type Target,
} from "./seal.ts";
import { shareImage } from "./share-image.ts";
import { accountsOf, moveAccounts } from "./source-account.ts";
import { fetchingOf } from "./sources.ts";
import { describeWrong, wrongCount, wrongGroups } from "./wrong-groups.ts";
import { zeroRuns, zeroRunsOf } from "./zero-runs.ts";

/** What the operation remembers across its runs. Each change is durable when its method returns. */
export interface DeployJournal {
  /** An earlier run may have written to the disk. */
  readonly began: boolean;
  /** An earlier run may have replaced the marker by the real first MiB. */
  readonly sealing: boolean;
  /** The groups that are right and durable on the disk, and how many were claimed by then. */
  readonly good: { readonly bitmap: Uint8Array; readonly claimed: number } | undefined;
  begin(): void;
  saveGood(bitmap: Uint8Array, claimed: number): void;
  seal(): void;
}

export interface DeployRequest {
  /** For the marker: the operation's id, and which of its disks this is. */
  readonly operation: string;
  /** Counts from 1. */
  readonly run: number;
  readonly manifest: Manifest;
  readonly image: ProvedImage;
  readonly sources: readonly UsableSource[];
  readonly ca: string;
  /** Of what is written, and of what is fetched; undefined: as fast as it goes. */
  readonly bytesPerSecondMax?: number | undefined;
  readonly fetchBytesPerSecondMax?: number | undefined;
  /** With it, a block device zeroes long runs by itself. */
  readonly processes?: Processes;
  readonly log?: (text: string) => void;
  readonly disk: Disk;
  readonly open: OpenDisk;
  readonly planned: Fingerprint;
  readonly bootId: string;
  /** What lies on the disk now. */
  readonly content: () => Promise<DiskContent>;
  /** Of this thread. */
  readonly kernel: GroupKernel;
  readonly workers: ImageWorkers;
  readonly clock: Clock;
  readonly random: Random;
  readonly journal: DeployJournal;
  readonly signal: AbortSignal;
  readonly pause: Pause;
  /** When the operation's run began, by the monotonic clock. */
  readonly startedMs: number;
  readonly phase: (name: string, total: number, done: () => number) => void;
  /** Throws when it is cancelled already; after it nothing can be cancelled. */
  readonly pointOfNoReturn: (why: string) => void;
}

const digestWindow = 0;

/** @throws `plan.changed` with nothing written; all else says in the error's details whether the disk shows the marker */
export async function deployImage(request: DeployRequest): Promise<DeployOutput> {
  const { manifest, disk, open, journal, kernel, clock, signal } = request;
  const shared = shareImage(manifest, request.image.shared);
  const good = journal.good;
  if (good !== undefined)
    new Uint8Array(shared.good.buffer).set(good.bitmap.subarray(0, shared.good.byteLength));
  const job = {
    disk: { path: open.path, fd: open.fd, direct: open.direct },
    sectorBytes: disk.logicalSectorBytes,
    sizeBytes: manifest.sizeBytes,
    endGroup: endGroupOf(manifest, disk.sizeBytes),
    claimedBefore: good?.claimed ?? 0,
    shared,
    sources: request.sources,
    ca: request.ca,
    bytesPerSecondMax: request.bytesPerSecondMax,
    fetchBytesPerSecondMax: request.fetchBytesPerSecondMax,
  };
  using connections = lazyConnections(request.ca);
  const work: Work = {
    job: { ...job, phase: "write" },
    kernel,
    signal,
    fetching: fetchingOf(job, { connections, clock, random: request.random, signal }),
    pace: createPace(undefined, clock, signal),
  };
  const target: Target = { disk: open, diskBytes: disk.sizeBytes };
  const times = [request.startedMs];
  const lap = () => times.push(clock.monotonic());
  const steps: Steps = {
    ...request,
    job,
    work,
    target,
    facts: { operation: request.operation, root: hex(manifest.root) },
  };
  const kept = good === undefined ? 0 : countBits(good.bitmap);

  await request.pause.safePoint();
  const first = await provedFirst(steps).catch(async (error: unknown) => {
    throw journal.began ? leftAs(error, disk, await showsMarker(work, target, steps.facts)) : error;
  });
  await requireTarget(steps, first);
  journal.begin();
  try {
    await markInProgress(work, target, steps.facts);
    lap();
    const readRoot = await writeAll(steps, first, lap);
    const seconds = (lapIndex: number) => (times[lapIndex]! - times[lapIndex - 1]!) / 1000;
    return {
      root: hex(readRoot),
      sizeBytes: manifest.sizeBytes,
      disk: { path: disk.path, serial: disk.serial, backing: disk.backing },
      groups: groupCount(manifest.sizeBytes),
      bytesFetched: countOf(shared, "fetched"),
      bytesWritten: countOf(shared, "written"),
      bytesSkipped: countOf(shared, "skipped"),
      bytesZeroed: countOf(shared, "zeroed"),
      resumed: {
        times: request.run - 1,
        groupsKept: kept,
        groupsRechecked: countOf(shared, "rechecked"),
        groupsRewritten: countOf(shared, "rewritten"),
      },
      readback: {
        ...{ root: hex(readRoot), direct: open.direct, rereads: countOf(shared, "rereads") },
        ...{ repaired: wrongCount(shared), repairedGroups: wrongGroups(job) },
      },
      sources: accountsOf(shared, request.sources),
      seconds: {
        prepare: seconds(1),
        write: seconds(2),
        readback: seconds(3),
        seal: seconds(4),
        total: (times[4]! - times[0]!) / 1000,
      },
    };
  } catch (error) {
    throw leftAs(error, disk, await showsMarker(work, target, steps.facts));
  }
}

interface Steps extends DeployRequest {
  readonly job: Omit<ImageJob, "phase">;
  readonly work: Work;
  readonly target: Target;
  readonly facts: { readonly operation: string; readonly root: string };
}

/**
 * What can be known of the image before the first write, and what it is for. @returns the first group as it stands on the
 * disk @throws `disk.sector-size`, `image.bad-manifest`, `image.corrupt` …
 */
async function provedFirst({ disk, manifest, image, job, phase, pause }: Steps): Promise<Uint8Array> {
  if (image.zeroBytes > 0) phase("prove", image.zeroBytes, image.provedBytes);
  const { length, padded } = extentOf(job, 0);
  const first = new Uint8Array(padded);
  first.set(await image.first());
  // The disk that comes first bears what it took.
  moveAccounts(image.shared, job.shared);
  // The manifest's own word, by which the guard judged, is not bound to the image's root.
  const sectorBytes = sectorBytesOf(first.subarray(0, length));
  if (sectorBytes !== null && sectorBytes !== disk.logicalSectorBytes) {
    throw new BedplateError(
      "disk.sector-size",
      `The image's partition table is for sectors of ${sectorBytes} bytes, whatever its manifest says (${manifest.sectorBytes ?? "none"}); those of ${disk.path} have ${disk.logicalSectorBytes}: it would look blank.`,
      { hint: "Use an image that is made for this sector size, and ask where this manifest is from." },
    );
  }
  await pause.safePoint();
  return first;
}

/**
 * The last check before the first write, through the descriptor that is written to.
 * @throws `plan.changed`
 */
async function requireTarget(steps: Steps, first: Uint8Array): Promise<void> {
  const { disk, open, planned, bootId, journal, work, target, facts } = steps;
  requireSameDisk(planned, identityOf(disk));
  const { began, sealing } = journal;
  if (began && (await showsOwnMark(work, target, facts, { sealing, first }))) return;
  const found = await fingerprintOf(disk, open, bootId, work.kernel.windows[digestWindow]!);
  if (!began || found.edges !== planned.edges) return requireSameFingerprint(planned, found);
  // A crash between the journal's entry and the marker: whatever has come onto the disk since was in nobody's plan.
  await requireSameContent(planned, await steps.content(), false);
}

/** From marker to sealed disk. @returns the root of what the disk gave back */
async function writeAll(steps: Steps, first: Uint8Array, lap: () => void): Promise<Uint8Array> {
  const { manifest, open, journal, signal, pause, job, work, target, facts } = steps;
  const { shared } = job;
  const others = othersOf(job);
  const done = () => countOf(shared, "done");
  if (others > 0) {
    const run = createImageRun(steps);
    // Only what was done before a sync began is durable after it.
    const saveGood = async () => {
      const claimed = Math.min(Atomics.load(shared.control, slots.next), groupCount(manifest.sizeBytes));
      const bitmap = new Uint8Array(shared.good.buffer.slice(0));
      await syncDisk(open, "data");
      journal.saveGood(bitmap, claimed);
    };
    const write = { first: 1, pause, onStart: () => steps.phase("write", others, done), onTick: saveGood };
    await writeGroups(steps, run, write);
    await syncDisk(open, "all");
    lap();
    await run.run("readback", {
      first: 1,
      signal,
      pause,
      onStart: () => steps.phase("verify", others, done),
      onTick: async () => {},
    });
    for (const wrong of wrongGroups(job))
      steps.log?.(
        `${open.path} did not give back what was written: ${describeWrong(wrong)}; it was repaired`,
      );
    await syncDisk(open, "all");
  } else lap();
  lap();
  const sealLength = manifest.sizeBytes - others;
  let sealed = 0;
  steps.phase("seal", sealLength, () => sealed);
  await loadSealed(work, target, first);
  await pause.safePoint();
  steps.pointOfNoReturn("the real first MiB is being written: the disk is about to hold the whole image");
  journal.seal();
  await seal(work, target, facts);
  sealed = sealLength;
  const root = mergeGroups(new Uint8Array(shared.found), groupCount(manifest.sizeBytes));
  if (!equalBytes(root, manifest.root)) {
    await markInProgress(work, target, facts);
    throw new BedplateError(
      "disk.readback-mismatch",
      `What ${open.path} gives back has the root ${hex(root)}, not ${hex(manifest.root)}.`,
    );
  }
  lap();
  return root;
}

/** The write phase, the device zeroing long runs meanwhile; what it cannot zero is written by a second round. */
async function writeGroups(steps: Steps, run: ImageRun, write: Omit<PhaseOptions, "signal">): Promise<void> {
  const failed = new AbortController();
  const signal = AbortSignal.any([steps.signal, failed.signal]);
  let zeroing: Promise<boolean> | undefined;
  const onStart = () => {
    write.onStart();
    zeroing ??= zeroLongRuns(steps, signal);
    zeroing?.catch((error: unknown) => failed.abort(error));
  };
  try {
    await run.run("write", { ...write, signal, onStart });
    if (await zeroing) await run.run("write", { ...write, signal });
  } finally {
    // Nothing may touch the disk after this function has returned.
    failed.abort();
    await zeroing?.catch(() => {});
  }
}

/** Bytes of the groups that come before those which are sealed. */
function othersOf(job: Steps["job"]): number {
  let bytes = 0;
  for (let group = 1; group < groupsEnd(job); group++) bytes += extentOf(job, group).length;
  return bytes;
}

/** Begins to have the device zero long runs; resolves to whether the workers have to look again. */
function zeroLongRuns(
  { disk, open, job, processes, pause, log, bytesPerSecondMax }: Steps,
  signal: AbortSignal,
) {
  // A bound on what is written cannot be kept by a device that zeroes by itself.
  if (processes === undefined || disk.type === "file" || bytesPerSecondMax !== undefined) return undefined;
  const runs = zeroRunsOf(job);
  if (runs.length === 0) return undefined;
  return zeroRuns(job, runs, { disk: open, processes, signal, pause }).then((why) => {
    if (why !== undefined) log?.(`${disk.path}: its long runs of zeroes are written: ${why}`);
    return why !== undefined;
  });
}

/** Says what state the disk is left in: what it shows, not what was meant. */
function leftAs(error: unknown, disk: Disk, marker: boolean): unknown {
  if (!(error instanceof BedplateError)) return error;
  const left = marker
    ? "is left with the in-progress marker and boots nothing"
    : "does not show the in-progress marker: what it boots is not known";
  return new BedplateError(error.code, `${error.message} ${disk.path} ${left}.`, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    details: { ...error.details, left: { path: disk.path, serial: disk.serial, marker } },
    cause: error,
  });
}

function countBits(bitmap: Uint8Array): number {
  let count = 0;
  for (let byte of bitmap) for (; byte !== 0; byte &= byte - 1) count++;
  return count;
}
