// Whether the kernel would give a block device to us alone: asked and given back at once, nothing is written.
import { closeSync, constants, openSync } from "node:fs";
import { BedplateError } from "../../protocol/errors.ts";
import type { Clock } from "../host/clock.ts";
import { errnoOf } from "../host/files.ts";

const tries = 5;
const pauseMs = 20;

/**
 * True when somebody has the device, or a partition of it, for himself: whoever opened it with O_EXCL, and what is mounted
 * or stacked where this process cannot see it, as in another mount namespace. What else may be wrong is found when it is opened.
 */
export async function isHeldByAnother(path: string, clock: Clock, signal: AbortSignal): Promise<boolean> {
  const ask = () => closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL));
  return await beyondAnInstant(ask, clock, signal).then(
    () => false,
    (error: unknown) => {
      signal.throwIfAborted();
      return isBusy(error);
    },
  );
}

/**
 * Opens what somebody may have for himself. Whoever only asks, as another executor that plans, has it for an instant: whoever
 * holds it has it for longer. @throws what `open` throws
 */
export async function beyondAnInstant<T>(
  open: () => T | Promise<T>,
  clock: Clock,
  signal: AbortSignal,
): Promise<T> {
  for (let k = 1; ; k++) {
    try {
      return await open();
    } catch (error) {
      if (k === tries || !isBusy(error)) throw error;
    }
    await clock.sleep(pauseMs, signal);
  }
}

function isBusy(error: unknown): boolean {
  return errnoOf(error) === "EBUSY" || (error instanceof BedplateError && error.code === "disk.held");
}
