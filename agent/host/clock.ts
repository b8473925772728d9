// Time as the agent sees it; the only place that reads clocks or sets timers.
import { setTimeout as sleepFor } from "node:timers/promises";

export interface Clock {
  /** Milliseconds since 1970, by the wall clock: a label, never a duration. */
  now(): number;
  /** Milliseconds that never step back. */
  monotonic(): number;
  /** Resolves after `ms`, or rejects with the signal's reason. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** A signal that aborts with `reason` after `ms`, or with `signal`. */
  deadline(ms: number, signal: AbortSignal, reason: Error): AbortSignal & Disposable;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) => sleepFor(ms, undefined, { signal }),
  deadline(ms, signal, reason) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(reason), ms);
    timer.unref();
    const any = AbortSignal.any([signal, controller.signal]);
    return Object.assign(any, { [Symbol.dispose]: () => clearTimeout(timer) });
  },
};
