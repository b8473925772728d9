// One run for all who ask while another is under way: how many waiting commits share one sync of the disk.

/**
 * Wraps `run` so that each call resolves when a run that began after the call has ended. Calls that come during a run
 * share the next one. A run that fails fails all its callers, and every later call at once: what it left is not known.
 */
export function sharedRun(run: () => Promise<void>): () => Promise<void> {
  let current: Promise<void> = Promise.resolve();
  let next: Promise<void> | undefined;
  return () => {
    next ??= current.then(() => {
      current = next!;
      next = undefined;
      return run();
    });
    return next;
  };
}
