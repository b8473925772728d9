// How long to wait before dialling again: decorrelated jitter, the cap before the jitter so that no fleet ever marches in step.

export const backoffLimits = { baseMs: 500, capMs: 90_000, stableMs: 300_000 } as const;

export interface Backoff {
  /** The next wait, in milliseconds; `fraction` is uniform in [0, 1). */
  next(fraction: number): number;
  /** Told how long a session lived; only a stable one starts the waits over. */
  sessionEnded(livedMs: number): void;
}

export function createBackoff(): Backoff {
  let previousMs: number = backoffLimits.baseMs;
  return {
    next(fraction) {
      const ceiling = Math.min(backoffLimits.capMs, previousMs * 3);
      previousMs = backoffLimits.baseMs + fraction * (ceiling - backoffLimits.baseMs);
      return previousMs;
    },
    sessionEnded(livedMs) {
      if (livedMs >= backoffLimits.stableMs) previousMs = backoffLimits.baseMs;
    },
  };
}
