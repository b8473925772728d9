// Examines this machine: every check in the order they are shown.
import { homedir } from "node:os";
import { accessChecks } from "./access.ts";
import type { Check } from "./check.ts";
import { kernelChecks } from "./kernel.ts";
import { runtimeChecks } from "./runtime.ts";
import { storageChecks } from "./storage.ts";
import { toolChecks } from "./tools.ts";

export interface DoctorOptions {
  /** Default: the agent's. */
  readonly stateDirectory?: string;
}

/** Reads and probes; changes nothing but one probe file, which it removes. */
export async function examine(options: DoctorOptions, signal: AbortSignal): Promise<Check[]> {
  const root = process.geteuid?.() === 0;
  const user = process.env.XDG_STATE_HOME?.startsWith("/")
    ? process.env.XDG_STATE_HOME
    : `${homedir()}/.local/state`;
  const stateDirectory = options.stateDirectory ?? (root ? "/var/lib/bedplate" : `${user}/bedplate`);
  const checks: Check[] = [...runtimeChecks()];
  for (const group of [
    () => accessChecks(root),
    () => storageChecks(stateDirectory),
    kernelChecks,
    () => toolChecks(root),
  ]) {
    signal.throwIfAborted();
    checks.push(...(await group()));
  }
  return checks;
}
