// What this host says of itself when it connects.
import { readFileSync } from "node:fs";
import { hostname } from "node:os";

export function hostName(): string {
  return hostname();
}

/** The kernel's id of this boot; "unknown" where /proc does not have it. */
export function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim() || "unknown";
  } catch {
    return "unknown";
  }
}
