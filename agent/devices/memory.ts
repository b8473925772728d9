// Inventory of the memory, from /proc/meminfo.
import type { Inventory } from "../../protocol/inventory.ts";
import type { Facts } from "./facts.ts";

export function readMemory(facts: Facts): Inventory["memory"] {
  const values = parseMeminfo(facts.text("/proc/meminfo") ?? "");
  return { totalBytes: values.get("MemTotal") ?? 0, swapBytes: values.get("SwapTotal") ?? 0 };
}

/** In bytes: `MemTotal:       24675344 kB`. */
export function parseMeminfo(text: string): ReadonlyMap<string, number> {
  const values = new Map<string, number>();
  for (const line of text.split("\n")) {
    const match = /^([A-Za-z0-9_()]+):\s+(\d{1,12}) kB$/.exec(line.trim());
    if (match !== null) values.set(match[1]!, Number(match[2]) * 1024);
  }
  return values;
}
