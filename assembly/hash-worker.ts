// The worker of hash-file.ts: claims groups of a file, reads each into its own WebAssembly memory and hashes it there.
import { createHash } from "node:crypto";
import { readSync } from "node:fs";
import { workerData } from "piscina";
import { BedplateError, type ErrorReport, reportOf } from "../protocol/errors.ts";
import { groupKernelOf } from "./group-kernel.ts";
import { claimGroups, finishGroup, type HashJob, type HashWorkerData, runPart, stopped } from "./hash-job.ts";
import { digestBytes, groupBytes } from "./memory-map.ts";

const kernel = groupKernelOf((workerData as HashWorkerData).kernel);
const window = kernel.windows[0]!;
/** Between reads of this size a worker looks whether it should stop, so that a slow disk does not hold it. */
const readBytes = groupBytes / 4;

/** Works until no group is left or the job is stopped. An error is returned, not thrown: only so its code survives. */
export default function hashJob(job: HashJob): ErrorReport | undefined {
  try {
    runPart(job, job.algorithm === "blake3" ? hashGroups : hashWhole);
    return undefined;
  } catch (error) {
    return reportOf(error);
  }
}

function hashGroups(job: HashJob): void {
  const groups = Math.ceil(job.bytes / groupBytes);
  const root = groups === 1;
  claimGroups(job, groups, (group) => {
    const length = readGroup(job, group);
    if (length === undefined) return false;
    job.output.set(kernel.chainingValue(0, length, group, { root }), group * digestBytes);
    return true;
  });
}

/**
 * SHA-256 has no tree, so one worker reads in order. By node:crypto on the view: OpenSSL uses the processor's SHA
 * instructions, and four-lane SHA-256 in WebAssembly reaches 0.38 of them.
 */
function hashWhole(job: HashJob): void {
  const hash = createHash("sha256");
  for (let group = 0; group * groupBytes < job.bytes; group++) {
    const length = readGroup(job, group);
    if (length === undefined) return;
    hash.update(window.subarray(0, length));
    finishGroup(job);
  }
  job.output.set(hash.digest());
}

/** Fills the window; returns how many bytes the group has, or undefined when the job is stopped. */
function readGroup(job: HashJob, group: number): number | undefined {
  const { path, fd, bytes } = job;
  const start = group * groupBytes;
  const length = Math.min(groupBytes, bytes - start);
  let filled = 0;
  while (filled < length) {
    if (stopped(job)) return undefined;
    const read = readPiece(path, {
      fd,
      offset: filled,
      length: Math.min(readBytes, length - filled),
      position: start + filled,
    });
    if (read === 0) throw new BedplateError("file.changed", `${path} became shorter while it was read.`);
    filled += read;
  }
  return length;
}

function readPiece(
  path: string,
  { fd, offset, length, position }: { fd: number; offset: number; length: number; position: number },
): number {
  try {
    return readSync(fd, window, offset, length, position);
  } catch (cause) {
    throw new BedplateError(
      "file.unreadable",
      `${path} cannot be read (${(cause as NodeJS.ErrnoException).code}).`,
      { cause },
    );
  }
}
