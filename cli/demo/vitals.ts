// A line of live telemetry: processor, memory, load, disk and network, from two samples of a host. Pure.
import type { LiveDictionary, LiveSample } from "../../protocol/api.ts";
import { formatBytes } from "../output.ts";

/** Undefined for what the host does not report. */
export interface Vitals {
  /** Share of processor time that was not idle, between the samples. */
  readonly processorShare: number | undefined;
  readonly memoryUsedBytes: number | undefined;
  readonly memoryTotalBytes: number | undefined;
  readonly load1: number | undefined;
  /** Bytes a second. */
  readonly diskWriteRate: number | undefined;
  readonly networkReceiveRate: number | undefined;
}

export function vitalsOf({ series }: LiveDictionary, before: LiveSample, after: LiveSample): Vitals {
  const seconds = Math.max(0.001, (after.at - before.at) / 1000);
  const indices = (
    name: string,
    accept: (labels: Readonly<Record<string, string>>) => boolean = () => true,
  ) => [...series.keys()].filter((i) => series[i]!.name === name && accept(series[i]!.labels));
  const sum = (sample: LiveSample, at: readonly number[]) =>
    at.reduce((total, i) => total + (sample.values[i] ?? 0), 0);
  const value = (name: string) => {
    const at = indices(name);
    return at.length === 0 ? undefined : sum(after, at);
  };
  const growth = (at: readonly number[]) =>
    at.length === 0 ? undefined : Math.max(0, sum(after, at) - sum(before, at));
  const rate = (name: string, accept?: (labels: Readonly<Record<string, string>>) => boolean) => {
    const grown = growth(indices(name, accept));
    return grown === undefined ? undefined : grown / seconds;
  };
  const idle = growth(indices("node_cpu_seconds_total", ({ mode }) => mode === "idle" || mode === "iowait"));
  const whole = growth(indices("node_cpu_seconds_total"));
  const total = value("node_memory_MemTotal_bytes");
  const available = value("node_memory_MemAvailable_bytes");
  return {
    processorShare: idle === undefined || whole === undefined || whole === 0 ? undefined : 1 - idle / whole,
    memoryUsedBytes: total === undefined || available === undefined ? undefined : total - available,
    memoryTotalBytes: total,
    load1: value("node_load1"),
    diskWriteRate: rate("node_disk_written_bytes_total"),
    networkReceiveRate: rate("node_network_receive_bytes_total"),
  };
}

export function vitalsLine(vitals: Vitals): string {
  const { processorShare, memoryUsedBytes, memoryTotalBytes, load1, diskWriteRate, networkReceiveRate } =
    vitals;
  const parts = [
    processorShare === undefined ? undefined : `cpu ${`${Math.round(processorShare * 100)}`.padStart(3)}%`,
    load1 === undefined ? undefined : `load ${load1.toFixed(2)}`,
    memoryUsedBytes === undefined || memoryTotalBytes === undefined
      ? undefined
      : `memory ${formatBytes(memoryUsedBytes)} of ${formatBytes(memoryTotalBytes)}`,
    diskWriteRate === undefined ? undefined : `disks written ${formatBytes(Math.round(diskWriteRate))}/s`,
    networkReceiveRate === undefined
      ? undefined
      : `network received ${formatBytes(Math.round(networkReceiveRate))}/s`,
  ];
  return parts.filter((part) => part !== undefined).join("   ");
}
