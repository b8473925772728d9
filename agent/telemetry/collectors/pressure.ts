// /proc/pressure/* (Documentation/accounting/psi.rst): how long work stood still for want of a resource.
import type { Series } from "../../../protocol/messages.ts";
import { counter, type FileCollector } from "./collector.ts";
import { describeLines } from "./lines.ts";

/** "some": at least one task waited; "full": no task could go on. For the whole host "full" of the cpu means nothing. */
type Lines = { readonly some?: Series; readonly full?: Series };

export const pressures: readonly FileCollector[] = [
  pressure("cpu", {
    some: total("cpu_waiting", "Total time in seconds that processes have waited for CPU time"),
  }),
  pressure("io", {
    some: total("io_waiting", "Total time in seconds that processes have waited due to IO congestion"),
    full: total("io_stalled", "Total time in seconds no process could make progress due to IO congestion"),
  }),
  pressure("memory", {
    some: total("memory_waiting", "Total time in seconds that processes have waited for memory"),
    full: total(
      "memory_stalled",
      "Total time in seconds no process could make progress due to memory congestion",
    ),
  }),
  // Only with CONFIG_IRQ_TIME_ACCOUNTING.
  pressure(
    "irq",
    {
      full: total(
        "irq_stalled",
        "Total time in seconds no process could make progress due to IRQ congestion",
      ),
    },
    { optional: true },
  ),
];

function total(what: string, help: string): Series {
  return counter(`node_pressure_${what}_seconds_total`, help, { scale: 1e-6 });
}

function pressure(resource: string, lines: Lines, { optional = false } = {}): FileCollector {
  return {
    name: `pressure-${resource}`,
    file: `pressure/${resource}`,
    optional,
    // "some avg10=0.30 avg60=1.65 avg300=2.47 total=25601456"
    describe: (text) =>
      describeLines(text, ({ words }) => {
        const series = words[0] === "some" ? lines.some : words[0] === "full" ? lines.full : undefined;
        if (series === undefined || words.length !== 9 || words[7] !== "total") return [];
        return [null, null, null, series];
      }),
  };
}
