// By which time things are too old to wait on or to be kept, pure: a clock that is wrong must not make years of them old at once.

const dayMs = 86_400_000;
/** Faster than time itself, so that what was missed while the controller did not run is made up for. */
const paceMax = 2;
/** A clock that has said so for as long as this is believed: it was before that it was wrong. */
const believedAfterMs = 30 * dayMs;

/** What a controller has lived through. It is kept with its state: events that are told of under a wrong clock say nothing. */
export interface Lived {
  /** By its clock, as far as that was believed. */
  readonly until: number;
  /** How long it has run since the clock was more than a day beyond that. */
  readonly doubtedMs: number;
}

/** @param elapsedMs since `lived` was so, by the time that no clock moves */
export function live(
  { until, doubtedMs }: Lived,
  { now, elapsedMs }: { readonly now: number; readonly elapsedMs: number },
): Lived {
  const reached = Math.min(now, until + paceMax * elapsedMs);
  if (now <= reached + dayMs) return { until: reached, doubtedMs: 0 };
  const doubted = doubtedMs + elapsedMs;
  return doubted < believedAfterMs ? { until: reached, doubtedMs: doubted } : { until: now, doubtedMs: 0 };
}

/** What the clock says, but never far beyond what the controller has lived through: a server may wake up in 2040. */
export function patientTime({ until }: Lived, now: number): number {
  return Math.min(now, until + dayMs);
}
