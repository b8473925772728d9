// The memory: how much, its huge pages, and the controllers that watch it; by node in numa.ts.
import type { Memory } from "../../../protocol/inventory-devices.ts";
import type { Facts } from "../facts.ts";
import { bounded, countOf, lineOf, type Source } from "./source.ts";

const mib = 1 << 20;
const controllersMax = 64;
const modulesMax = 256;
const edac = "/sys/devices/system/edac/mc";

export const memory: Source<Memory> = {
  sources: ["/proc/meminfo", "/sys/kernel/mm/hugepages/*/nr_hugepages", `${edac}/mc*/**`],
  collect({ facts, note }) {
    const values = parseMeminfo(facts.text("/proc/meminfo") ?? "");
    return {
      totalBytes: values.get("MemTotal") ?? 0,
      swapBytes: values.get("SwapTotal") ?? 0,
      hugePages: readHugePages(facts, "/sys/kernel/mm/hugepages"),
      errorDetection: bounded(controllers(facts), controllersMax, "memory controllers", note).map((name) => {
        const at = `${edac}/${name}`;
        const modules = facts.list(at).filter((entry) => /^(dimm|rank)\d+$/.test(entry));
        return {
          controller: name,
          name: lineOf(facts, `${at}/mc_name`),
          sizeBytes: mebibytes(countOf(facts, `${at}/size_mb`)),
          modules: bounded(modules, modulesMax, "memory modules", note).map((module) => ({
            label: lineOf(facts, `${at}/${module}/dimm_label`),
            type: lineOf(facts, `${at}/${module}/dimm_mem_type`),
            mode: lineOf(facts, `${at}/${module}/dimm_edac_mode`),
            sizeBytes: mebibytes(countOf(facts, `${at}/${module}/size`)),
          })),
        };
      }),
    };
  },
  absent: { totalBytes: 0, swapBytes: 0 },
};

/** Memory controllers of the kernel's error detection: `mc0`. */
export function controllers(facts: Facts): readonly string[] {
  return facts.list(edac).filter((name) => /^mc\d+$/.test(name));
}

/** Pools of a directory with `hugepages-2048kB` and the like. */
export function readHugePages(facts: Facts, directory: string): { pageBytes: number; pages: number }[] {
  return facts
    .list(directory)
    .flatMap((name) => {
      const kib = /^hugepages-(\d{1,9})kB$/.exec(name)?.[1];
      const pages = kib === undefined ? null : countOf(facts, `${directory}/${name}/nr_hugepages`);
      return pages === null ? [] : [{ pageBytes: Number(kib) * 1024, pages }];
    })
    .sort((a, b) => a.pageBytes - b.pageBytes)
    .slice(0, 16);
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

function mebibytes(count: number | null): number | null {
  return count === null || count > Number.MAX_SAFE_INTEGER / mib ? null : count * mib;
}
