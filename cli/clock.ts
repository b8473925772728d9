// Time and randomness as the command line sees them; the only place here that reads clocks, sets timers or draws lots.
import { randomBytes } from "node:crypto";
import { setTimeout as sleepFor } from "node:timers/promises";
import { uuidV7 } from "../protocol/identifiers.ts";

/** Milliseconds since 1970. */
export const now = (): number => Date.now();

/** Milliseconds that never step back. */
export const monotonic = (): number => performance.now();

/** Resolves after `ms`; rejects with the signal's reason when that comes first. */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleepFor(ms, undefined, { signal });
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}

/** A signal that aborts with `reason` after `ms`, unless disposed of before. */
export function deadline(ms: number, reason: Error): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(reason), Math.min(ms, 2 ** 31 - 1));
  return { signal: controller.signal, [Symbol.dispose]: () => clearTimeout(timer) };
}

/** Calls `tick` every `ms` until disposed. */
export function every(ms: number, tick: () => void): Disposable {
  const timer = setInterval(tick, ms);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** A new command id. */
export function mintCommandId(): string {
  return uuidV7(now(), new Uint8Array(randomBytes(10)));
}
