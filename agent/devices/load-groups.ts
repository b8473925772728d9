// Groups of a stretch brought into windows, to be verified there.
import type { BedplateError } from "../../protocol/errors.ts";
import { type FrameAt, frames, type Opening } from "./frame-stream.ts";
import { decodeFrame, type Work } from "./group-work.ts";
import { extentOf } from "./image-job.ts";
import type { UsableSource } from "./open-sources.ts";

export interface Loaded {
  readonly group: number;
  readonly window: number;
  readonly source: UsableSource;
  /** Why the window holds nothing that could be verified. */
  readonly fault: BedplateError | undefined;
}

/** @param windowFor asked once or more for each group, before the next one is begun */
export async function* load(
  work: Work,
  stretch: readonly FrameAt[],
  windowFor: (group: number) => number,
  ahead?: Opening,
): AsyncGenerator<Loaded, void, void> {
  const target = (group: number) =>
    work.kernel.windows[windowFor(group)]!.subarray(0, extentOf(work.job, group).length);
  for await (const frame of frames(stretch, work.fetching, target, ahead)) {
    const { group, source } = frame;
    const window = windowFor(group);
    yield { group, window, source, fault: frame.raw ? undefined : decodeFrame(work, frame, window) };
  }
}
