// Batches that wait for the controller: newest win, what is dropped is counted, and every delta keeps its key frame.
import { assert } from "../../protocol/errors.ts";

export interface Batch {
  readonly at: number;
  readonly key: boolean;
  readonly dictionary: number;
  readonly data: Uint8Array;
}

export interface NumberedBatch extends Batch {
  readonly seq: number;
}

export interface Gap {
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

export interface SampleQueue {
  readonly bytes: number;
  /** Batches dropped so far. */
  readonly dropped: number;
  add(batch: Batch): void;
  /** A session begins, and the controller has everything up to `stored`, or knows of its gap: what it lacks is queued again. */
  resume(stored: number): void;
  /** The next batch to send; undefined when all are sent. */
  peek(): NumberedBatch | undefined;
  /** The same, and it is sent now; it stays queued until acknowledged. */
  take(): NumberedBatch | undefined;
  acknowledge(seq: number): void;
  /** What was dropped since the last call. */
  takeGaps(): Gap[];
  /** Those that could not be told after all: the next call has them first. */
  returnGaps(untold: readonly Gap[]): void;
}

/** Per batch, for the bookkeeping around its bytes. */
const overheadBytes = 128;

export function createSampleQueue(bytesMax: number): SampleQueue {
  let queue: NumberedBatch[] = [];
  let sent = 0;
  let bytes = 0;
  let nextSeq = 1;
  let numbered = false;
  let gaps: Gap[] = [];
  let droppedCount = 0;
  /** Dropped here while on their way: the controller has them, or the session ends before. */
  let doubtful: { readonly from: number; readonly to: number }[] = [];
  // Nothing that a difference could be added to is queued or known at the other end: only a key frame may come next.
  let needsKey = true;

  const cost = (batch: Batch) => batch.data.length + overheadBytes;

  const tellDropped = (first: number, last: number) => {
    const count = last - first + 1;
    droppedCount += count;
    const previous = gaps.at(-1);
    if (previous?.to === first - 1)
      gaps[gaps.length - 1] = { from: previous.from, to: last, count: previous.count + count };
    else gaps.push({ from: first, to: last, count });
  };

  // Drops from the oldest on, up to and without the next key frame at or after `index`: a delta alone says nothing.
  const dropBefore = (index: number) => {
    let end = index;
    while (end < queue.length && !queue[end]!.key) end++;
    const dropped = queue.slice(0, end);
    const onTheirWay = dropped.slice(0, sent);
    queue = queue.slice(end);
    sent = Math.max(0, sent - end);
    needsKey ||= queue.length === 0;
    if (dropped.length === 0) return;
    bytes -= dropped.reduce((sum, batch) => sum + cost(batch), 0);
    if (onTheirWay.length > 0) doubtful.push({ from: onTheirWay[0]!.seq, to: onTheirWay.at(-1)!.seq });
    if (dropped.length > onTheirWay.length) tellDropped(dropped[onTheirWay.length]!.seq, dropped.at(-1)!.seq);
  };
  const settleDoubt = (stored: number) => {
    doubtful = doubtful
      .filter(({ to }) => to > stored)
      .map(({ from, to }) => ({ from: Math.max(from, stored + 1), to }));
  };

  return {
    get bytes() {
      return bytes;
    },
    get dropped() {
      return droppedCount;
    },
    add(batch) {
      const seq = nextSeq++;
      if (needsKey && !batch.key) {
        tellDropped(seq, seq);
        return;
      }
      needsKey = false;
      queue.push({ ...batch, seq });
      bytes += cost(batch);
      while (bytes > bytesMax) dropBefore(1);
    },
    resume(stored) {
      if (!numbered) {
        // The first session of this process: numbers go on from what the controller has of the process before.
        numbered = true;
        queue = queue.map((batch) => ({ ...batch, seq: batch.seq + stored }));
        gaps = gaps.map((gap) => ({ ...gap, from: gap.from + stored, to: gap.to + stored }));
        nextSeq += stored;
      } else {
        this.acknowledge(stored);
        for (const { from, to } of doubtful) tellDropped(from, to);
        doubtful = [];
      }
      sent = 0;
      // What this end has sent before is no base for the new session.
      dropBefore(0);
    },
    peek: () => queue[sent],
    take() {
      const batch = queue[sent];
      if (batch !== undefined) sent++;
      return batch;
    },
    acknowledge(seq) {
      let count = 0;
      while (count < queue.length && queue[count]!.seq <= seq) bytes -= cost(queue[count++]!);
      queue = queue.slice(count);
      sent = Math.max(0, sent - count);
      settleDoubt(seq);
      assert(bytes >= 0, "a queue never holds less than nothing");
    },
    takeGaps() {
      const taken = gaps;
      gaps = [];
      return taken;
    },
    returnGaps(untold) {
      gaps = [...untold, ...gaps];
    },
  };
}
