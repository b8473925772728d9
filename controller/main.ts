// `bedplate controller`: options → configuration → runs until the signal aborts.
import type { BackupView } from "../protocol/api.ts";
import { backupStopped as backupStoppedOf } from "./backup.ts";
import { type ConfigOptions, checkControllerConfig } from "./config.ts";
import { type ControllerAddress, type ControllerParts, startController } from "./controller.ts";
import { type Log, openLog, silentLog } from "./machine/log.ts";
import { systemClock } from "./machine/system.ts";

export { type RestoreOptions, restoreController } from "./backup.ts";
export { clientFileName } from "./client-file.ts";
export type { ControllerConfig } from "./config.ts";
export { checkControllerConfig, defaultStateDirectory } from "./config.ts";
export type { ControllerAddress } from "./controller.ts";

export interface ControllerOptions extends ConfigOptions {
  /** Instead of JSON lines on stderr. */
  readonly log?: Log | undefined;
}

/**
 * Runs a controller until `signal` aborts; then sends its agents away with a time to come back, and closes what it has open.
 * @throws `config.invalid`, `config.unreadable`, `state.unsafe`, `state.in-use`, `state.newer`
 */
export async function runController(
  options: ControllerOptions,
  signal: AbortSignal,
  onReady?: (address: ControllerAddress) => void,
): Promise<void> {
  const config = checkControllerConfig(options);
  const parts: ControllerParts = { log: options.log ?? openLog(config.logLevel, systemClock) };
  await using controller = await startController(config, parts);
  onReady?.(controller.address);
  if (!signal.aborted)
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  parts.log.info({}, "the controller stops");
}

/** A backup of the controller in `directory`, which must not run. @throws `state.in-use`, `state.backup-invalid` */
export function backupStopped(directory: string): Promise<BackupView> {
  return backupStoppedOf(directory, silentLog);
}
