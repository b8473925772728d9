// The simulated world: one clock, one queue of what is to happen, and processes that can die at any moment of it.

/** A program that runs: what was planned for it does not happen after its death. */
export interface Process {
  readonly name: string;
  alive: boolean;
}

/** Thrown through a process that has just died in the middle of something; caught by the world alone. */
export class Died extends Error {}

interface Planned {
  readonly at: number;
  readonly order: number;
  readonly owner: Process | undefined;
  readonly work: () => void;
}

export class World {
  /** Milliseconds of true time since the start. */
  now = 0;
  #order = 0;
  /** A binary heap by time, then by order of planning: the same run, every time. */
  readonly #heap: Planned[] = [];
  happened = 0;

  /** Plans `work`; nothing comes of it when `owner` has died by then. */
  after(delayMs: number, owner: Process | undefined, work: () => void): void {
    const planned = { at: this.now + Math.max(0, delayMs), order: this.#order++, owner, work };
    const heap = this.#heap;
    let index = heap.push(planned) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!isBefore(planned, heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = planned;
  }

  /** Until this moment has passed or nothing is planned any more. */
  run(untilMs: number): void {
    while (this.#heap.length > 0 && this.#heap[0]!.at <= untilMs) {
      const { at, owner, work } = this.#next();
      this.now = at;
      if (owner?.alive === false) continue;
      this.happened += 1;
      try {
        work();
      } catch (error) {
        if (!(error instanceof Died)) throw error;
      }
    }
    this.now = Math.max(this.now, untilMs);
  }

  #next(): Planned {
    const heap = this.#heap;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isBefore(heap[child]!, last)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
    return first;
  }
}

function isBefore(a: Planned, b: Planned): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
