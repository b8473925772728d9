// Which bytes of the store's files of frames some image has, and where they go when a file is written anew without the rest.
import { assert } from "../../protocol/errors.ts";
import type { Segment } from "./layout.ts";

/** From `start` up to, not including, `end`. */
export interface Stretch {
  readonly start: number;
  readonly end: number;
}

/** The bytes that any of the segments has: ascending, none touching the next. */
export function unionOf(segments: readonly Pick<Segment, "offset" | "length">[]): Stretch[] {
  const sorted = segments
    .map(({ offset, length }) => ({ start: offset, end: offset + length }))
    .sort((a, b) => a.start - b.start);
  const union: { start: number; end: number }[] = [];
  for (const { start, end } of sorted) {
    const last = union.at(-1);
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end);
    else union.push({ start, end });
  }
  return union;
}

export function bytesOf(stretches: readonly Stretch[]): number {
  return stretches.reduce((sum, { start, end }) => sum + end - start, 0);
}

/** Where a byte of the file lies once the live stretches stand one after the other. */
export function movedBy(live: readonly Stretch[]): (offset: number) => number {
  const targets = new Float64Array(live.length);
  for (let i = 1; i < live.length; i++) targets[i] = targets[i - 1]! + live[i - 1]!.end - live[i - 1]!.start;
  return (offset) => {
    let [low, high] = [0, live.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (live[middle]!.start <= offset) low = middle;
      else high = middle - 1;
    }
    const stretch = live[low];
    assert(stretch !== undefined && offset >= stretch.start && offset < stretch.end, "what moves is live");
    return targets[low]! + offset - stretch.start;
  };
}
