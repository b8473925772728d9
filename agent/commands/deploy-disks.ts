// The disks of one deploy: opened all or none, written each for itself, and what came of them.
import type { AppliedDisk, DeployArguments, DeployOutput } from "../../protocol/commands.ts";
import { type DiskSelector, formatDiskSelector } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { OpenDisk } from "../devices/direct-file.ts";
import type { ListedDisk } from "../devices/disks.ts";
import type { CommandContext, CommandEnd, Notes } from "./command.ts";
import { type DiskNotes, diskNotes } from "./deploy-notes.ts";
import { type DiskEnd, endOfAll, outcomeOf } from "./deploy-outcome.ts";
import { findDisks, openTarget, type TargetMeans } from "./deploy-target.ts";

/** One of them, with what the journal has of it. */
export interface DeployDisk {
  readonly index: number;
  readonly asked: AppliedDisk;
  readonly notes: DiskNotes;
}

export interface DeployDisks {
  readonly all: readonly DeployDisk[];
  /** In the same order: undefined where it is not known yet. */
  readonly ends: (DiskEnd | undefined)[];
  /** What was found for each: at first, all that is known is what was asked for. */
  readonly names: DiskEnd["disk"][];
  /** An earlier run may have written to one of them. */
  readonly begun: boolean;
}

/** A disk that is to be written, held exclusively. */
export interface Target extends DeployDisk {
  readonly listed: ListedDisk;
  readonly open: OpenDisk;
}

export function deployDisks(given: DeployArguments, notes: Notes): DeployDisks {
  const all = [given, ...(given.also ?? [])].map((asked, index) => ({
    ...{ index, asked, notes: diskNotes(notes, index) },
  }));
  const ends = all.map(({ notes: { done } }): DiskEnd | undefined =>
    done === undefined ? undefined : { disk: done.disk, outcome: "succeeded", output: done },
  );
  const begun = all.some(({ index, notes }) => ends[index] !== undefined || notes.journal().began);
  return { all, ends, names: all.map(({ asked }) => nameOf(asked.disk)), begun };
}

/**
 * Opens every disk that is still to be written. As long as nothing was written to any of them, one that cannot be is
 * thrown, and refuses them all; later it is that disk's own failure.
 */
export async function openAll(
  { all, ends, names, begun }: DeployDisks,
  waitSeconds: number,
  holding: AsyncDisposableStack,
  means: TargetMeans,
): Promise<Target[]> {
  const { context, signal } = means;
  const asked = all.map((disk) => disk.asked);
  const found = begun ? undefined : await findDisks(asked, waitSeconds, context, signal);
  const targets: Target[] = [];
  for (const disk of all.filter(({ index }) => ends[index] === undefined)) {
    const { index, asked, notes } = disk;
    try {
      const listed = found?.[index] ?? (await findDisks([asked], waitSeconds, context, signal))[0]!;
      const { path, serial, backing } = listed.disk;
      names[index] = { path, serial, backing };
      const { began } = notes.journal();
      const opening = () => openTarget(listed, asked, began, means);
      const open = holding.use(await (began ? onceLetGo(opening, means) : opening()));
      targets.push({ ...disk, listed, open });
    } catch (thrown) {
      signal.throwIfAborted();
      const error = notes.journal().began ? leftBegun(thrown, names[index]!) : thrown;
      if (all.length === 1) throw error;
      if (!begun) throw noneTouched(error, asked.disk);
      ends[index] = failure(names[index]!, error, signal);
      context.log(`${formatDiskSelector(asked.disk)}: ${(error as Error).message}`);
    }
  }
  return targets;
}

/** What is refused now was let through once: that the disk holds half an image must not be lost. */
function leftBegun(error: unknown, disk: DeployDisks["names"][number]): unknown {
  if (!(error instanceof BedplateError)) return error;
  return new BedplateError(
    error.code,
    `${error.message} An earlier run of this operation had begun to write to the disk of its plan, which is not known to hold the whole image.`,
    {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      details: { ...error.details, left: { ...disk, begun: true } },
      cause: error,
    },
  );
}

/** For so long a disk may still be held by what an earlier run, which was killed, had it zero by itself: that is never broken off. */
const letGoMs = 60_000;
const letGoPollMs = 250;

async function onceLetGo<T>(
  opening: () => Promise<T>,
  { context: { host, log }, signal }: TargetMeans,
): Promise<T> {
  const { clock } = host;
  const startedMs = clock.monotonic();
  for (let tries = 0; ; tries++) {
    try {
      return await opening();
    } catch (error) {
      const isHeld = error instanceof BedplateError && error.code === "disk.held";
      if (!isHeld || clock.monotonic() - startedMs > letGoMs) throw error;
      if (tries === 0) log(`waits until the disk is let go of: ${error.message}`);
    }
    await clock.sleep(letGoPollMs, signal);
  }
}

export interface WriteAll {
  readonly disks: DeployDisks;
  /** @param left disks that are to be written, this one included, as far as is known */
  readonly write: (target: Target, left: number) => Promise<DeployOutput>;
  /** Whether what went wrong may go right at another try. */
  readonly mayTry: (error: unknown) => boolean;
  readonly log: CommandContext["log"];
  readonly signal: AbortSignal;
}

/** One after the other: what a deploy takes of memory does not grow with its disks. What may be mended is tried once more. */
export async function writeAll(
  targets: readonly Target[],
  { disks: { ends, names }, write, mayTry, log, signal }: WriteAll,
): Promise<void> {
  const waiting = [...targets];
  const again = new Set<Target>();
  for (let target = waiting.shift(); target !== undefined && !signal.aborted; target = waiting.shift()) {
    const { index, listed, notes } = target;
    const { path } = listed.disk;
    try {
      const output = await write(target, waiting.length + 1);
      notes.finish(output);
      ends[index] = { disk: output.disk, outcome: "succeeded", output };
      log(`${path}: holds the image`);
    } catch (error) {
      const once = !again.has(target) && mayTry(error);
      log(`${path}: ${(error as Error).message}${once ? " It is tried again after the others." : ""}`);
      if (once) {
        again.add(target);
        waiting.push(target);
      } else ends[index] = failure(names[index]!, error, signal);
    }
  }
}

/**
 * @param error what kept the run from disks that have no end yet
 * @throws the signal's reason when the operation is to be resumed: what was done is in the notes
 */
export function endOf({ all, ends, names }: DeployDisks, signal: AbortSignal, error?: unknown): CommandEnd {
  const known = all.map(({ index, notes }): DiskEnd => {
    const end = ends[index];
    if (end !== undefined) return end;
    const disk = names[index]!;
    if (error !== undefined && !signal.aborted) return failure(disk, error, signal);
    // One that an earlier run or try had begun stands with the marker on it.
    return { disk, outcome: notes.journal().began ? outcomeOf(signal.reason, signal) : "untouched" };
  });
  // Only what did not come to an end of its own was stopped.
  const cut = known.some(({ outcome }) => outcome !== "succeeded" && outcome !== "failed");
  const stopped = cut ? (signal.reason as BedplateError) : undefined;
  if (stopped?.code === "executor.lost") throw stopped;
  return endOfAll(known, stopped);
}

function failure(disk: DiskEnd["disk"], error: unknown, signal: AbortSignal): DiskEnd {
  const thrown = error instanceof Error ? error : new Error(String(error));
  return { disk, outcome: outcomeOf(error, signal), error: thrown };
}

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
