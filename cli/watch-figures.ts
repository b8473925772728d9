// What the live view shows, computed from a host's last two samples. Pure.
import type { LiveDictionary, LiveSample } from "../protocol/api.ts";

export interface WatchState {
  readonly host: string;
  readonly online: boolean;
  readonly series: LiveDictionary["series"];
  /** Where in the samples each family's values stand. */
  readonly byName: ReadonlyMap<string, readonly number[]>;
  readonly before: LiveSample | null;
  readonly now: LiveSample | null;
  /** Seconds since the last sample came. */
  readonly quietSeconds: number;
}

/** Shares of a processor's time, 0 to 1; their sum is the busy share. */
export interface CpuShares {
  readonly user: number;
  readonly system: number;
  readonly irq: number;
  readonly steal: number;
  /** Not busy: idle but for input and output that is awaited. */
  readonly iowait: number;
}

export interface DiskRates {
  readonly device: string;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly operations: number;
  /** Share of the time in which it had something to do. */
  readonly busy: number;
}

export interface NetworkRates {
  readonly device: string;
  readonly receivedBytes: number;
  readonly transmittedBytes: number;
  readonly receivedPackets: number;
  readonly transmittedPackets: number;
  /** Errors and drops, both ways. */
  readonly lost: number;
}

/** Rates are per second. What the host does not report, or what needs a second sample, is null or not in its list. */
export interface Figures {
  readonly at: number;
  readonly loads: readonly number[];
  readonly uptimeSeconds: number | null;
  readonly cpu: CpuShares | null;
  readonly cpus: readonly { readonly cpu: string; readonly shares: CpuShares }[];
  readonly memory: { readonly used: number; readonly cached: number; readonly total: number } | null;
  readonly swap: { readonly used: number; readonly total: number } | null;
  /** Share of the time in which something waited for it. */
  readonly pressure: readonly { readonly resource: string; readonly share: number }[];
  readonly running: number | null;
  readonly blocked: number | null;
  readonly contextSwitches: number | null;
  readonly interrupts: number | null;
  readonly forks: number | null;
  readonly disks: readonly DiskRates[];
  readonly networks: readonly NetworkRates[];
}

export function newWatch(host: string, online: boolean): WatchState {
  return { host, online, series: [], byName: new Map(), before: null, now: null, quietSeconds: 0 };
}

export function withDictionary(state: WatchState, { series }: LiveDictionary): WatchState {
  const byName = Map.groupBy(series.keys(), (k) => series[k]!.name);
  return { ...state, series, byName, before: null, now: null };
}

export function withSample(state: WatchState, sample: LiveSample): WatchState {
  // A repeated or earlier one has nothing to say: the host's clock was set back, or the stream came back.
  const before = state.now !== null && sample.at > state.now.at ? state.now : null;
  return { ...state, online: true, before, now: sample, quietSeconds: 0 };
}

/** Null before the first sample. */
export function figuresOf(state: WatchState): Figures | null {
  const { now, before, byName, series } = state;
  if (now === null) return null;
  const value = (k: number) => now.values[k] ?? 0;
  const first = (name: string) => {
    const k = byName.get(name)?.[0];
    return k === undefined ? null : value(k);
  };
  // Some of the kernel's counters step back a little now and then (idle, iowait): that is no negative rate.
  const rateAt = (k: number) =>
    before === null ? 0 : (Math.max(0, value(k) - (before.values[k] ?? 0)) / (now.at - before.at)) * 1000;
  const rate = (name: string) => {
    const k = byName.get(name)?.[0];
    return k === undefined || before === null ? null : rateAt(k);
  };
  const label = (k: number, name: string) => series[k]?.labels[name] ?? "";
  /** Of the families, the rates of each device, in the order of the dictionary. */
  const ratesBy = (name: string, labelName: string) => {
    const rates = new Map<string, number>();
    for (const k of before === null ? [] : (byName.get(name) ?? []))
      rates.set(label(k, labelName), rateAt(k));
    return rates;
  };

  const cpus = cpuShares(byName.get("node_cpu_seconds_total") ?? [], {
    label,
    rateAt,
    known: before !== null,
  });
  const total = first("node_memory_MemTotal_bytes");
  const swapTotal = first("node_memory_SwapTotal_bytes");
  const bootTime = first("node_boot_time_seconds");
  return {
    at: now.at,
    loads: ["node_load1", "node_load5", "node_load15"].map(first).filter((load) => load !== null),
    uptimeSeconds: bootTime === null ? null : Math.max(0, now.at / 1000 - bootTime),
    cpu: cpus.length === 0 ? null : meanOf(cpus.map(({ shares }) => shares)),
    cpus,
    memory:
      total === null
        ? null
        : {
            total,
            used:
              total - (first("node_memory_MemAvailable_bytes") ?? first("node_memory_MemFree_bytes") ?? 0),
            cached: (first("node_memory_Cached_bytes") ?? 0) + (first("node_memory_Buffers_bytes") ?? 0),
          },
    swap:
      swapTotal === null
        ? null
        : { total: swapTotal, used: swapTotal - (first("node_memory_SwapFree_bytes") ?? 0) },
    pressure: ["cpu", "memory", "io"].flatMap((resource) => {
      const share = rate(`node_pressure_${resource}_waiting_seconds_total`);
      return share === null ? [] : [{ resource, share: Math.min(1, share) }];
    }),
    running: first("node_procs_running"),
    blocked: first("node_procs_blocked"),
    contextSwitches: rate("node_context_switches_total"),
    interrupts: rate("node_intr_total"),
    forks: rate("node_forks_total"),
    disks: diskRates(ratesBy),
    networks: networkRates(ratesBy),
  };
}

type RatesBy = (name: string, labelName: string) => ReadonlyMap<string, number>;

function diskRates(ratesBy: RatesBy): DiskRates[] {
  const by = (name: string) => ratesBy(`node_disk_${name}`, "device");
  const [read, written] = [by("read_bytes_total"), by("written_bytes_total")];
  const [reads, writes] = [by("reads_completed_total"), by("writes_completed_total")];
  const busy = by("io_time_seconds_total");
  return [...read.keys()].map((device) => ({
    device,
    readBytes: read.get(device)!,
    writtenBytes: written.get(device) ?? 0,
    operations: (reads.get(device) ?? 0) + (writes.get(device) ?? 0),
    busy: Math.min(1, busy.get(device) ?? 0),
  }));
}

function networkRates(ratesBy: RatesBy): NetworkRates[] {
  const by = (name: string) => ratesBy(`node_network_${name}_total`, "device");
  const [received, transmitted] = [by("receive_bytes"), by("transmit_bytes")];
  const [receivedPackets, transmittedPackets] = [by("receive_packets"), by("transmit_packets")];
  const losses = ["receive_errs", "receive_drop", "transmit_errs", "transmit_drop"].map(by);
  return [...received.keys()].map((device) => ({
    device,
    receivedBytes: received.get(device)!,
    transmittedBytes: transmitted.get(device) ?? 0,
    receivedPackets: receivedPackets.get(device) ?? 0,
    transmittedPackets: transmittedPackets.get(device) ?? 0,
    lost: losses.reduce((sum, loss) => sum + (loss.get(device) ?? 0), 0),
  }));
}

interface CpuSource {
  readonly label: (k: number, name: string) => string;
  readonly rateAt: (k: number) => number;
  readonly known: boolean;
}

function cpuShares(at: readonly number[], { label, rateAt, known }: CpuSource): Figures["cpus"] {
  if (!known) return [];
  return [...Map.groupBy(at, (k) => label(k, "cpu"))].map(([cpu, modes]) => {
    const rates = new Map(modes.map((k) => [label(k, "mode"), rateAt(k)]));
    // Ticks never add up to the second exactly: shares are of what was counted.
    const whole = [...rates.values()].reduce((sum, rate) => sum + rate, 0);
    const share = (...names: string[]) =>
      whole === 0 ? 0 : names.reduce((sum, name) => sum + (rates.get(name) ?? 0), 0) / whole;
    return {
      cpu,
      shares: {
        user: share("user", "nice"),
        system: share("system"),
        irq: share("irq", "softirq"),
        steal: share("steal"),
        iowait: share("iowait"),
      },
    };
  });
}

function meanOf(all: readonly CpuShares[]): CpuShares {
  const mean = (key: keyof CpuShares) => all.reduce((sum, shares) => sum + shares[key], 0) / all.length;
  return {
    user: mean("user"),
    system: mean("system"),
    irq: mean("irq"),
    steal: mean("steal"),
    iowait: mean("iowait"),
  };
}

/** The share of the time in which the processor did something. */
export function busyShare({ user, system, irq, steal }: CpuShares): number {
  return Math.min(1, user + system + irq + steal);
}
