// Pausing an operation at its safe points, and what a lost link means for it.
import type { CommandLimits } from "../../protocol/commands.ts";
import type { Pause } from "../commands/command.ts";

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
    async safePoint() {
      signal.throwIfAborted();
      if (!paused) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      const wake = () => resolve();
      listeners.add(wake);
      signal.addEventListener("abort", wake, { once: true });
      await promise;
      listeners.delete(wake);
      signal.removeEventListener("abort", wake);
      return this.safePoint();
    },
    follow(listener) {
      listeners.add(listener);
      listener(paused);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
  };
}

/** How long nobody may say that the link is up until it counts as lost. */
export const linkLostMs = 30_000;

/** What an operation before its point of no return does about its link. */
export function linkDuty(
  onLinkLost: CommandLimits["onLinkLost"],
  { nowMs, upAtMs }: { readonly nowMs: number; readonly upAtMs: number },
): "go-on" | "pause" | "abort" {
  if (onLinkLost === undefined || onLinkLost === "continue") return "go-on";
  return nowMs - upAtMs > linkLostMs ? onLinkLost : "go-on";
}
