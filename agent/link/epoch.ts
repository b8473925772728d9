// The highest epoch that a controller ever showed this host: a lower one means that it was set back in time.

import type { Log } from "../host/log.ts";
import type { StateDirectory } from "../host/state-directory.ts";

const epochFile = "controller-epoch";

export interface EpochMemory {
  /** The highest that was seen; 0 before the first. */
  readonly highest: number;
  /** Remembers the epoch of a proven controller; warns once for each one that is older than what was seen before. */
  seen(epoch: number): void;
}

export function createEpochMemory(state: StateDirectory, log: Pick<Log, "warn">): EpochMemory {
  let highest = read(state);
  let warnedOf: number | undefined;
  return {
    get highest() {
      return highest;
    },
    seen(epoch) {
      if (epoch > highest) {
        state.write(epochFile, Buffer.from(`${epoch}\n`));
        highest = epoch;
      }
      if (epoch >= highest || epoch === warnedOf) return;
      warnedOf = epoch;
      log.warn(
        { code: "link.stale-epoch", epoch, epochSeen: highest },
        `The controller says epoch ${epoch}, this host has seen ${highest}: it is a copy, or was restored from a backup older than another restore. Commands that change something may be refused. Restore it with --epoch ${highest + 1}.`,
      );
    },
  };
}

// What cannot be read counts as nothing seen: the executor's journal keeps its own count, and is the one that refuses.
function read(state: StateDirectory): number {
  const kept = state.read(epochFile);
  const epoch = kept === undefined ? 0 : Number(Buffer.from(kept).toString("utf8").trim());
  return Number.isSafeInteger(epoch) && epoch > 0 ? epoch : 0;
}
