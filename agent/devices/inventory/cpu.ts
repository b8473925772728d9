// The processors: /proc/cpuinfo, and topology, caches, frequencies and vulnerabilities in sysfs.
import type { Cpu } from "../../../protocol/inventory-devices.ts";
import { cleanLine, type Facts } from "../facts.ts";
import { bounded, countOf, lineOf, type Source } from "./source.ts";

const at = "/sys/devices/system/cpu";
const cpusMax = 8192;
const flagsMax = 1024;
const policiesMax = 64;
const vulnerabilitiesMax = 128;

export const cpu: Source<Cpu> = {
  sources: [
    "/proc/cpuinfo",
    `${at}/{online,offline,isolated,smt/control}`,
    `${at}/cpu*/topology/*`,
    `${at}/cpu*/cache/index*/*`,
    `${at}/cpufreq/policy*/*`,
    `${at}/vulnerabilities/*`,
  ],
  collect({ facts, note }) {
    const info = parseCpuinfo(facts.text("/proc/cpuinfo") ?? "");
    const online = parseCpuList(facts.text(`${at}/online`) ?? "");
    const topology = readTopology(facts, online);
    const nodes = facts.list("/sys/devices/system/node").filter((name) => /^node\d+$/.test(name));
    const flags = (info.get("flags") ?? info.get("Features") ?? "")
      .split(/\s+/)
      .filter((flag) => flag !== "");
    const names = bounded(facts.list(`${at}/vulnerabilities`), vulnerabilitiesMax, "vulnerabilities", note);
    return {
      model: lineIn(info, "model name") ?? lineIn(info, "Model"),
      vendor: lineIn(info, "vendor_id") ?? lineIn(info, "CPU implementer"),
      sockets: topology.sockets,
      cores: topology.cores,
      threads: online.length,
      flags: flags.slice(0, flagsMax).map((flag) => cleanLine(flag, 64)),
      microcode: lineIn(info, "microcode"),
      numaNodes: Math.max(1, nodes.length),
      dies: topology.dies,
      online: listOf(facts, `${at}/online`),
      offline: listOf(facts, `${at}/offline`),
      isolated: listOf(facts, `${at}/isolated`),
      threading: lineOf(facts, `${at}/smt/control`),
      ...readFrequencies(facts),
      caches: readCaches(facts, online),
      vulnerabilities: Object.fromEntries(
        names.flatMap((name) => {
          const state = lineOf(facts, `${at}/vulnerabilities/${name}`);
          return state === null ? [] : [[cleanLine(name, 64), state]];
        }),
      ),
    };
  },
  absent: {
    model: null,
    vendor: null,
    sockets: 0,
    cores: 0,
    threads: 0,
    flags: [],
    microcode: null,
    numaNodes: 1,
  },
};

/** As the kernel writes it, where it is one. */
function listOf(facts: Facts, path: string): string | null {
  const line = lineOf(facts, path, 4096);
  return line !== null && /^[\d,-]+$/.test(line) ? line : null;
}

function readTopology(
  facts: Facts,
  online: readonly number[],
): { readonly sockets: number; readonly dies: number; readonly cores: number } {
  const sockets = new Set<string>();
  const dies = new Set<string>();
  const cores = new Set<string>();
  for (const number of online) {
    const read = (name: string) => facts.optionalText(`${at}/cpu${number}/topology/${name}`);
    const socket = read("physical_package_id") ?? "0";
    const die = `${socket}:${read("die_id") ?? "0"}`;
    sockets.add(socket);
    dies.add(die);
    // A core is named by its number within its package and die.
    cores.add(`${die}:${read("core_id") ?? number}`);
  }
  return { sockets: sockets.size, dies: dies.size, cores: cores.size };
}

type Cache = NonNullable<Cpu["caches"]>[number];

const levelsMax = 8;

/**
 * Every cache once: its first thread stands for it, and those that share it are not asked again (a machine of 256
 * threads would have 4000 files more to read).
 */
function readCaches(facts: Facts, online: readonly number[]): Cache[] {
  const seen = Array.from({ length: levelsMax }, () => new Set<number>());
  const caches = new Map<string, Cache>();
  for (const number of online) {
    for (let index = 0; index < levelsMax; index++) {
      if (seen[index]!.has(number)) continue;
      const cache = `${at}/cpu${number}/cache/index${index}`;
      const shared = facts.optionalText(`${cache}/shared_cpu_list`);
      if (shared === null) break;
      const threads = parseCpuList(shared);
      for (const thread of threads) seen[index]!.add(thread);
      const sizeBytes = parseSize(facts.optionalText(`${cache}/size`) ?? "");
      const level = countOf(facts, `${cache}/level`);
      if (sizeBytes === null || level === null) continue;
      const type = lineOf(facts, `${cache}/type`, 32) ?? "unknown";
      const sharedBy = Math.max(1, threads.length);
      const key = `${level} ${type} ${sizeBytes} ${sharedBy}`;
      const known = caches.get(key);
      if (known !== undefined) caches.set(key, { ...known, count: known.count + 1 });
      else if (caches.size < 64)
        caches.set(key, {
          level,
          type: type.toLowerCase(),
          sizeBytes,
          count: 1,
          sharedBy,
          ways: countOf(facts, `${cache}/ways_of_associativity`),
          lineBytes: countOf(facts, `${cache}/coherency_line_size`),
        });
    }
  }
  return [...caches.values()].sort((a, b) => a.level - b.level || (a.type < b.type ? -1 : 1));
}

type Frequencies = Pick<Cpu, "minMhz" | "baseMhz" | "maxMhz" | "scalingDriver" | "governor">;

/** Over all policies: the lowest lowest and the highest highest, since cores may differ. */
function readFrequencies(facts: Facts): Frequencies {
  const policies = facts
    .list(`${at}/cpufreq`)
    .filter((name) => /^policy\d+$/.test(name))
    .slice(0, policiesMax);
  const mhz = (name: string) =>
    policies.flatMap((policy) => {
      const khz = countOf(facts, `${at}/cpufreq/${policy}/${name}`);
      return khz === null ? [] : [Math.round(khz / 1000)];
    });
  const [first] = policies;
  const [lowest, base, highest] = [mhz("cpuinfo_min_freq"), mhz("base_frequency"), mhz("cpuinfo_max_freq")];
  return {
    minMhz: lowest.length === 0 ? null : Math.min(...lowest),
    baseMhz: base[0] ?? null,
    maxMhz: highest.length === 0 ? null : Math.max(...highest),
    scalingDriver: first === undefined ? null : lineOf(facts, `${at}/cpufreq/${first}/scaling_driver`),
    governor: first === undefined ? null : lineOf(facts, `${at}/cpufreq/${first}/scaling_governor`),
  };
}

function lineIn(info: ReadonlyMap<string, string>, name: string): string | null {
  return cleanLine(info.get(name) ?? "", 256) || null;
}

/** The first value of each name: the processors of a host are alike. */
export function parseCpuinfo(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 0) continue;
    const name = line.slice(0, colon).trim();
    if (values.has(name)) continue;
    const value = line.slice(colon + 1).trim();
    if (name !== "" && value !== "") values.set(name, value);
  }
  return values;
}

/** `0-3,8,10-11` as the numbers themselves; what is no such list gives none. */
export function parseCpuList(text: string): readonly number[] {
  const cpus: number[] = [];
  for (const range of text.trim().split(",")) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(range);
    if (match === null) continue;
    const last = Math.min(Number(match[2] ?? match[1]), cpusMax - 1);
    for (let number = Number(match[1]); number <= last && cpus.length < cpusMax; number++) cpus.push(number);
  }
  return cpus;
}

/** `32K`, `1024K`, `36M` in bytes. */
export function parseSize(text: string): number | null {
  const match = /^(\d{1,9})([KMG]?)$/.exec(text.trim());
  if (match === null) return null;
  return Number(match[1]) * { "": 1, K: 1 << 10, M: 1 << 20, G: 1 << 30 }[match[2] as "" | "K" | "M" | "G"];
}
