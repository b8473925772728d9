// By which time things are too old to wait on or to be kept, pure: a clock that is wrong must not make years of them old at once.

const dayMs = 86_400_000;
/** Faster than time itself, so that what was missed while the controller did not run is made up for. */
const paceMax = 2;

/**
 * What the clock says, but never far beyond what the controller has lived through: a server may wake up in 2040, or be told
 * so by who gives it the time. `lastKnown`: the newest moment that its state told of when it started, or that start
 * where it was new. `elapsedMs`: since then.
 */
export function patientTime({
  now,
  lastKnown,
  elapsedMs,
}: {
  readonly now: number;
  readonly lastKnown: number;
  readonly elapsedMs: number;
}): number {
  return Math.min(now, lastKnown + dayMs + paceMax * elapsedMs);
}
