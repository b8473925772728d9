// What a worker does with one group: read it from the disk, compare it, decode and verify a frame, write it.
import { constants, zstdDecompressSync } from "node:zlib";
import type { GroupKernel } from "../../assembly/group-kernel.ts";
import { equalBytes, hex } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { groupBytes, groupCount } from "../../protocol/groups.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import { readFully, writeFully } from "./direct-file.ts";
import type { Frame, FrameAt } from "./frame-stream.ts";
import { digestOf, extentOf, type ImageJob, isZeroGroup, slots } from "./image-job.ts";
import type { Pace } from "./pace.ts";
import type { Fetching } from "./sources.ts";

/** A frame may ask for a window of 128 MiB by default, which it needs for no group: 8 MiB. */
const decoding = { [constants.ZSTD_d_windowLogMax]: 23 };

/** Buffers above this have memory of their own. */
const sharedPoolBytesMax = 65_536;

export interface Work {
  readonly job: ImageJob;
  readonly kernel: GroupKernel;
  readonly fetching: Fetching;
  readonly signal: AbortSignal;
  /** Aborts the signal, in a worker that has failed: what it still waits for is of no use any more. */
  readonly abandon?: (why: unknown) => void;
  /** Waits until so many more bytes may be written. */
  readonly pace: Pace;
}

/** Between two groups: waits while the operation is paused. @throws the signal's reason, when the operation is stopped */
export async function safePoint({ job, signal }: Work): Promise<void> {
  const { control } = job.shared;
  for (;;) {
    signal.throwIfAborted();
    // A worker whose reads and writes hold its thread may not have come to hear of it.
    if (Atomics.load(control, slots.stop) === 1) throw new Stopped();
    const change = Atomics.waitAsync(control, slots.pause, 1);
    if (!change.async) return;
    await change.value;
  }
}

/** The operation is being stopped; why is the main thread's to say. */
export class Stopped extends Error {}

export async function readGroup({ job, kernel }: Work, group: number, window: number): Promise<void> {
  const { padded } = extentOf(job, group);
  await readFully(job.disk, kernel.windows[window]!.subarray(0, padded), group * groupBytes);
}

/** SAFETY: the caller has verified the window's content against the group's digest (see {@link verifyGroup}). */
export async function writeGroup(work: Work, group: number, window: number): Promise<void> {
  const { job, kernel, pace } = work;
  const { padded } = extentOf(job, group);
  await pace(padded);
  // A bound on writing may have let it wait for long.
  await safePoint(work);
  await writeFully(job.disk, kernel.windows[window]!.subarray(0, padded), group * groupBytes);
}

/** SAFETY: the proving phase has found the digest of every group of zeroes to be that. */
export async function writeZeroGroup(work: Work, group: number): Promise<void> {
  const { job, kernel } = work;
  const { padded } = extentOf(job, group);
  await work.pace(padded);
  await safePoint(work);
  await writeFully(job.disk, kernel.zeroes.subarray(0, padded), group * groupBytes);
}

export function digestOfWindow(
  { job, kernel }: Pick<Work, "job" | "kernel">,
  group: number,
  window: number,
): Uint8Array {
  return kernel.chainingValue(window, extentOf(job, group).length, group, {
    root: groupCount(job.sizeBytes) === 1,
  });
}

/** Whether the window holds the group as it must stand on the disk, the padding of the last sector included. */
export function isRight(work: Work, group: number, window: number): boolean {
  const { job, kernel } = work;
  const { length, padded } = extentOf(job, group);
  if (isZeroGroup(job.shared, group)) return kernel.isZero(window, padded);
  if (kernel.windows[window]!.subarray(length, padded).some((byte) => byte !== 0)) return false;
  return equalBytes(digestOfWindow(work, group, window), digestOf(job.shared, group));
}

export function frameAt({ shared }: ImageJob, group: number): FrameAt {
  return { group, start: shared.frameStarts[group]!, bytes: shared.frameBytes[group]! };
}

/**
 * Decodes a frame into the window, where {@link verifyGroup} then looks at it.
 * @returns the error when it does not decode to the group's length
 */
export function decodeFrame(
  work: Work,
  { group, data, source }: Pick<Frame, "group" | "data" | "source">,
  window: number,
): BedplateError | undefined {
  const { job, kernel } = work;
  const { length } = extentOf(job, group);
  let decoded: Uint8Array<ArrayBuffer>;
  try {
    // One byte more than it needs: with a full chunk node would take a second one to see that nothing follows.
    const chunkSize = Math.max(64, length + 1);
    decoded = zstdDecompressSync(data, { maxOutputLength: length, chunkSize, params: decoding });
  } catch (cause) {
    return corrupt(work, group, source, `its frame does not decode (${(cause as Error).message})`, cause);
  }
  if (decoded.length !== length)
    return corrupt(work, group, source, `its frame decodes to ${decoded.length} bytes, not ${length}`);
  kernel.windows[window]!.set(decoded);
  // Given back now, not when the collector comes: 50 MB less for two workers. Small ones lie in node's common pool.
  if (decoded.length > sharedPoolBytesMax) decoded.buffer.transfer(0);
  return undefined;
}

/**
 * Verifies the group in the window, and zeroes its padding: what follows writes from that memory.
 * @returns the error when the bytes are not the group's; the window then holds nothing that may be written
 */
export function verifyGroup(
  work: Work,
  group: number,
  source: ImageSource,
  window: number,
): BedplateError | undefined {
  const { job, kernel } = work;
  const { length, padded } = extentOf(job, group);
  kernel.windows[window]!.fill(0, length, padded);
  const found = digestOfWindow(work, group, window);
  if (equalBytes(found, digestOf(job.shared, group))) return undefined;
  return corrupt(work, group, source, `its digest is ${hex(found)}`, undefined, hex(found));
}

function corrupt(
  { job }: Work,
  group: number,
  source: ImageSource,
  why: string,
  cause?: unknown,
  found?: string,
): BedplateError {
  const offset = group * groupBytes;
  const expected = hex(digestOf(job.shared, group));
  return new BedplateError(
    "image.corrupt",
    `Group ${group} (from byte ${offset}) as ${source.url} sent it is not the image's: ${why}; expected ${expected}. It was not written.`,
    {
      hint: "The source's copy, or the way to it, is damaged: import the image again there, or offer another source.",
      details: {
        group,
        offset,
        length: extentOf(job, group).length,
        expected,
        found: found ?? null,
        source: source.url,
      },
      ...(cause === undefined ? {} : { cause }),
    },
  );
}
