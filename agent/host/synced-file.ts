// A file that somebody else writes, to bring its content to the disk without waiting on this thread.
import { closeSync, fdatasync, fdatasyncSync, openSync } from "node:fs";
import { promisify } from "node:util";
import { sharedRun } from "../../protocol/shared-run.ts";

export interface SyncedFile {
  /** All that was written before the call is on the disk when the promise resolves; calls share a sync. */
  sync(): Promise<void>;
  syncNow(): void;
  /** After the last sync that is under way. */
  close(): void;
}

const syncData = promisify(fdatasync);

export function openSyncedFile(path: string): SyncedFile {
  const descriptor = openSync(path, "r");
  const sync = sharedRun(() => syncData(descriptor));
  return {
    sync,
    syncNow: () => fdatasyncSync(descriptor),
    close: () => void sync().finally(() => closeSync(descriptor)),
  };
}
