// Pausing work at its safe points: who works asks, who decides says.

export interface Pause {
  /** Resolves at once, or when the work may go on. @throws the reason of the operation's signal, or of `signal` */
  safePoint(signal?: AbortSignal): Promise<void>;
  /** Calls now and at each change: for work in other threads. */
  follow(listener: (paused: boolean) => void): Disposable;
}

export interface PauseControl extends Pause {
  readonly paused: boolean;
  set(paused: boolean): void;
}

/** @param signal whoever waits at a safe point gets its reason when it aborts */
export function createPause(signal: AbortSignal): PauseControl {
  let paused = false;
  const listeners = new Set<(paused: boolean) => void>();
  return {
    get paused() {
      return paused;
    },
    set(next) {
      if (next === paused) return;
      paused = next;
      for (const listener of listeners) listener(paused);
    },
    async safePoint(also) {
      const signals = also === undefined ? [signal] : [signal, also];
      for (;;) {
        for (const each of signals) each.throwIfAborted();
        if (!paused) return;
        const { promise, resolve } = Promise.withResolvers<void>();
        const wake = () => resolve();
        listeners.add(wake);
        for (const each of signals) each.addEventListener("abort", wake, { once: true });
        await promise;
        listeners.delete(wake);
        for (const each of signals) each.removeEventListener("abort", wake);
      }
    },
    follow(listener) {
      listeners.add(listener);
      listener(paused);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
  };
}
