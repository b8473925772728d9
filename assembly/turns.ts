// Turns at what only so many may use at once, in the order of asking.

export interface Turns {
  /** Resolves when it is the caller's turn, which it must give back. */
  readonly take: () => Promise<void>;
  readonly give: () => void;
}

/** At most `count` at once, first come, first served. */
export function createTurns(count: number): Turns {
  const waiting: (() => void)[] = [];
  let free = count;
  return {
    async take() {
      if (free > 0) free--;
      else await new Promise<void>((resolve) => waiting.push(resolve));
    },
    give() {
      const next = waiting.shift();
      if (next === undefined) free++;
      else next();
    },
  };
}
