// When the agent dials again after a connection ended, and what each close code of the protocol means for that. Pure; a
// simulator drives this very function.
import { closeCodes, type Retry } from "../../protocol/codes.ts";
import type { Backoff } from "./backoff.ts";

/** After another connection with this host's key took over: rare and slow, so that two copies never fight. */
export const replacedMs = 60_000;
/** After the controller said that it wants this agent no more. */
export const byeMs = 3_600_000;

export interface Ended {
  readonly code: number;
  /** From the newest welcome or goaway of the connection; undefined when it never got so far. */
  readonly reconnectWindowMs: number | undefined;
  /** We closed it: nobody else was sent away. */
  readonly ours: boolean;
}

/** Milliseconds until the next attempt. `fraction` gives uniform numbers in [0, 1). */
export function redialMs(ended: Ended, backoff: Backoff, fraction: () => number): number {
  switch (retryOf(ended)) {
    case "window":
      // Everyone else was sent away too: come back spread over the window, and no sooner than after any other failure.
      return Math.max(fraction() * (ended.reconnectWindowMs ?? 0), backoff.next(fraction()));
    case "minute":
      return replacedMs;
    case "hour":
      return byeMs;
    case "backoff":
      return backoff.next(fraction());
  }
}

/**
 * A connection that the controller's side ended without a word of ours, or that broke, may be the end of a controller that
 * all agents were connected to: they come back as if it had said so.
 */
export function retryOf({ code, ours, reconnectWindowMs }: Ended): Retry {
  const known = Object.values(closeCodes).find((close) => close.code === code);
  if (known !== undefined && !ours) return known.retry;
  return ours || reconnectWindowMs === undefined ? "backoff" : "window";
}
