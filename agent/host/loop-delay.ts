// How late the event loop is, watched while somebody asks: watching costs more than all else that an agent at rest does.
import { monitorEventLoopDelay } from "node:perf_hooks";

const resolutionMs = 20;
const watchedMs = 60_000;

export interface LoopDelay extends Disposable {
  /** Its 99th percentile since the call before, in milliseconds; 0 when that was more than a minute ago. */
  takeP99Ms(): number;
}

export function createLoopDelay(): LoopDelay {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  let rest: NodeJS.Timeout | undefined;
  const stop = () => {
    clearTimeout(rest);
    rest = undefined;
    histogram.disable();
    histogram.reset();
  };
  return {
    takeP99Ms() {
      const watched = rest !== undefined;
      // The histogram counts from the timer's own period.
      const delayMs = watched ? Math.max(0, histogram.percentile(99) / 1e6 - resolutionMs) : 0;
      clearTimeout(rest);
      rest = setTimeout(stop, watchedMs).unref();
      histogram.reset();
      if (!watched) histogram.enable();
      return delayMs;
    },
    [Symbol.dispose]: stop,
  };
}
