// /proc/stat: time of each processor by mode, interrupts, context switches, processes, and when the host booted.
import { counter, type FileCollector, gauge } from "./collector.ts";
import { describeLines, type Line } from "./lines.ts";

/** USER_HZ, what the kernel shows its ticks in: 100 on every architecture that Node runs on. */
const tickSeconds = 0.01;

// The columns of a processor's line. Guest time is in user and nice too.
const modes = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"] as const;
const guestModes = ["user", "nice"] as const;

/** Lines of one number by their first word. Of the many on the line of interrupts only the first, the total, counts. */
const single = new Map([
  ["intr", counter("node_intr_total", "Total number of interrupts serviced.")],
  ["ctxt", counter("node_context_switches_total", "Total number of context switches.")],
  ["processes", counter("node_forks_total", "Total number of forks.")],
  ["btime", gauge("node_boot_time_seconds", "Node boot time, in unixtime.")],
  ["procs_running", gauge("node_procs_running", "Number of processes in runnable state.")],
  ["procs_blocked", gauge("node_procs_blocked", "Number of processes blocked waiting for I/O to complete.")],
]);

export const cpu: FileCollector = {
  name: "cpu",
  file: "stat",
  describe: (text) =>
    describeLines(text, (line) => {
      const first = line.words[0]!;
      const processor = /^cpu(\d+)$/.exec(first)?.[1];
      if (processor !== undefined) return processorSeries(processor, line);
      const series = single.get(first);
      return series === undefined ? [] : [series];
    }),
};

function processorSeries(processor: string, line: Line) {
  if (line.numbers.length !== line.words.length - 1) return [];
  return [
    ...modes.map((mode) =>
      counter("node_cpu_seconds_total", "Seconds the CPUs spent in each mode.", {
        labels: { cpu: processor, mode },
        scale: tickSeconds,
      }),
    ),
    ...guestModes.map((mode) =>
      counter("node_cpu_guest_seconds_total", "Seconds the CPUs spent in guests (VMs) for each mode.", {
        labels: { cpu: processor, mode },
        scale: tickSeconds,
      }),
    ),
  ];
}
