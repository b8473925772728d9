// Inventory of the processors, from /proc/cpuinfo and the topology in sysfs.
import type { Inventory } from "../../protocol/inventory.ts";
import type { Facts } from "./facts.ts";

export function readCpu(facts: Facts): Inventory["cpu"] {
  const info = parseCpuinfo(facts.text("/proc/cpuinfo") ?? "");
  const online = parseCpuList(facts.text("/sys/devices/system/cpu/online") ?? "");
  const topology = (cpu: number, name: string) =>
    facts.optionalText(`/sys/devices/system/cpu/cpu${cpu}/topology/${name}`);
  const sockets = new Set(online.map((cpu) => topology(cpu, "physical_package_id") ?? "0"));
  // A core is named by its number within its package and die.
  const cores = new Set(
    online.map((cpu) =>
      [topology(cpu, "physical_package_id"), topology(cpu, "die_id"), topology(cpu, "core_id") ?? cpu].join(
        ":",
      ),
    ),
  );
  const nodes = facts.list("/sys/devices/system/node").filter((name) => /^node\d+$/.test(name));
  return {
    model: info.get("model name") ?? info.get("Model") ?? null,
    vendor: info.get("vendor_id") ?? info.get("CPU implementer") ?? null,
    sockets: sockets.size,
    cores: cores.size,
    threads: online.length,
    flags: (info.get("flags") ?? info.get("Features") ?? "").split(/\s+/).filter((flag) => flag !== ""),
    microcode: info.get("microcode") ?? null,
    numaNodes: Math.max(1, nodes.length),
  };
}

/** The first value of each name: the processors of a host are alike. */
export function parseCpuinfo(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    const at = line.indexOf(":");
    if (at < 0) continue;
    const name = line.slice(0, at).trim();
    const value = line.slice(at + 1).trim();
    if (name !== "" && value !== "" && !values.has(name)) values.set(name, value);
  }
  return values;
}

const cpusMax = 8192;

/** `0-3,8,10-11` as the numbers themselves; what is no such list gives none. */
export function parseCpuList(text: string): readonly number[] {
  const cpus: number[] = [];
  for (const range of text.trim().split(",")) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(range);
    if (match === null) continue;
    const last = Math.min(Number(match[2] ?? match[1]), cpusMax - 1);
    for (let cpu = Number(match[1]); cpu <= last; cpu++) cpus.push(cpu);
  }
  return cpus;
}
