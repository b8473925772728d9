// The machine's clock, timers and randomness behind interfaces: the only file of the controller that may touch them.
import { randomFillSync } from "node:crypto";

export interface Clock {
  /** Milliseconds since 1970 by the wall clock, which may jump. */
  now(): number;
  /** Milliseconds from some moment on, never backwards: for intervals and deadlines. */
  monotonicMs(): number;
  /** Calls `action` once, unless disposed of before. */
  after(delayMs: number, action: () => void): Disposable;
  /** Calls `action` again and again until disposed of. */
  every(intervalMs: number, action: () => void): Disposable;
}

export interface Random {
  /** Unpredictable bytes. */
  bytes(count: number): Uint8Array;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, action) {
    const timer = setTimeout(action, delayMs);
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  },
  every(intervalMs, action) {
    const timer = setInterval(action, intervalMs);
    return { [Symbol.dispose]: () => clearInterval(timer) };
  },
};

export const systemRandom: Random = {
  bytes: (count) => randomFillSync(new Uint8Array(count)),
};
