// Ticks at fixed distances from the first: they do not drift, and one that comes too late is left out, never doubled.
import type { Clock } from "../host/clock.ts";

export interface TickOptions {
  readonly intervalMs: number;
  readonly clock: Pick<Clock, "monotonic" | "sleep">;
  /** `skipped`: how many ticks were left out just before this one. */
  readonly onTick: (skipped: number) => void;
}

/** Ticks at once and then every `intervalMs`, until the signal aborts. */
export async function tick({ intervalMs, clock, onTick }: TickOptions, signal: AbortSignal): Promise<void> {
  let due = clock.monotonic();
  let skipped = 0;
  for (;;) {
    // Sleeping even when it is late lets the thread's other events in: without, a stop would not be heard.
    try {
      await clock.sleep(Math.max(0, Math.ceil(due - clock.monotonic())), signal);
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    if (signal.aborted) return;
    const late = clock.monotonic() - due;
    // A timer may fire a little early.
    if (late < 0) continue;
    if (late > intervalMs / 2) {
      // Beyond half an interval the tick would come closer to the next one than to its own time.
      const missed = Math.ceil(late / intervalMs);
      skipped += missed;
      due += missed * intervalMs;
      continue;
    }
    onTick(skipped);
    skipped = 0;
    due += intervalMs;
  }
}
