// Which boot this is: what ties a plan or a note of a device to the moment it was made.
import type { Facts } from "./facts.ts";

/** The same from boot to shutdown. */
export function bootIdOf(facts: Facts): string {
  return facts.text("/proc/sys/kernel/random/boot_id") ?? "";
}
