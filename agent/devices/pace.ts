// A bound on what is written, read or fetched in a second: a bucket that fills steadily, and holds a quarter of a second's worth.
import type { Clock } from "../host/clock.ts";

/** Resolves when so many bytes may pass. @throws the signal's reason */
export type Pace = (bytes: number) => Promise<void>;

const bucketSeconds = 0.25;

export function createPace(bytesPerSecondMax: number | undefined, clock: Clock, signal: AbortSignal): Pace {
  if (bytesPerSecondMax === undefined) return async () => {};
  const most = bytesPerSecondMax * bucketSeconds;
  let held = most;
  let filledMs = clock.monotonic();
  return async (bytes) => {
    const nowMs = clock.monotonic();
    held = Math.min(most, held + ((nowMs - filledMs) / 1000) * bytesPerSecondMax);
    filledMs = nowMs;
    // Taken at once, also more than there is: who comes next waits for this one's too.
    held -= bytes;
    if (held < 0) await clock.sleep((-held / bytesPerSecondMax) * 1000, signal);
  };
}
