// /proc/loadavg: its first three numbers.
import { type FileCollector, gauge } from "./collector.ts";
import { describeLines, isNumber } from "./lines.ts";

export const load: FileCollector = {
  name: "load",
  file: "loadavg",
  describe: (text) =>
    describeLines(text, ({ words }) =>
      words.length < 3 || !words.slice(0, 3).every(isNumber)
        ? []
        : [
            gauge("node_load1", "1m load average."),
            gauge("node_load5", "5m load average."),
            gauge("node_load15", "15m load average."),
          ],
    ),
};
