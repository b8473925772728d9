// Selecting a disk that may still be on its way: drivers and links give disks up to half a minute after the host is up.
import type { DiskSelector } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { Clock } from "../host/clock.ts";
import type { DiskListing, ListedDisk } from "./disks.ts";
import { selectDisk } from "./select.ts";

export interface AwaitDiskOptions {
  readonly selector: DiskSelector;
  /** The disks as they are now, listed afresh at each call. */
  readonly list: () => DiskListing;
  /** How long it may take to appear; 0 is one look. */
  readonly waitSeconds: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

const pollMs = 500;

/**
 * Waits for none to become one. Several are refused at once: waiting makes them no fewer.
 * @throws `disk.not-found` after the wait, with the candidates of the last look; `disk.ambiguous`; the signal's reason
 */
export async function awaitDisk({
  selector,
  list,
  waitSeconds,
  clock,
  signal,
}: AwaitDiskOptions): Promise<ListedDisk> {
  const startedMs = clock.monotonic();
  for (;;) {
    try {
      return selectDisk(list(), selector);
    } catch (error) {
      if (!(error instanceof BedplateError) || error.code !== "disk.not-found") throw error;
      const leftMs = startedMs + waitSeconds * 1000 - clock.monotonic();
      if (leftMs <= 0) throw waitSeconds === 0 ? error : late(error, waitSeconds);
      await clock.sleep(Math.min(pollMs, leftMs), signal);
    }
  }
}

function late(error: BedplateError, waitSeconds: number): BedplateError {
  return new BedplateError(error.code, `${error.message} None appeared within ${waitSeconds} s.`, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    details: { ...error.details, waitSeconds },
    cause: error,
  });
}
