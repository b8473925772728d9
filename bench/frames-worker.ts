// A worker of frames.ts: claims frames as a deploy does, and decodes and verifies each as a deploy does before it writes.
import { readSync } from "node:fs";
import { decodeFrame, verifyGroup, type Work } from "../agent/devices/group-work.ts";
import { type ImageJob, slots } from "../agent/devices/image-job.ts";
import { type CompiledKernel, groupKernelOf } from "../assembly/index.ts";

export interface FramesJob extends ImageJob {
  readonly kernel: CompiledKernel;
  /** The file of frames, open. */
  readonly fd: number;
}

const window = 0;
const source = { url: "bench" };

export default function decodeFrames(job: FramesJob): void {
  const { shared } = job;
  // Decoding asks for nothing else of a worker's means.
  const work = { job, kernel: groupKernelOf(job.kernel) } as unknown as Work;
  const buffer = new Uint8Array(Math.max(...shared.frameBytes));
  for (;;) {
    const group = Atomics.add(shared.control, slots.next, 1);
    const bytes = shared.frameBytes[group];
    if (bytes === undefined) return;
    const start = shared.frameStarts[group]!;
    if (readSync(job.fd, buffer, 0, bytes, start) !== bytes)
      throw new Error("the file of frames is too short");
    const data = buffer.subarray(0, bytes);
    const bad =
      decodeFrame(work, { group, data, source }, window) ?? verifyGroup(work, group, source, window);
    if (bad !== undefined) throw bad;
  }
}
