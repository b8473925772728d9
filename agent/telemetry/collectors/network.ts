// /proc/net/dev: what each network interface received and sent. All interfaces, as node_exporter's default has it.
import { counter, type FileCollector } from "./collector.ts";
import { describeLines, isNumber } from "./lines.ts";

const columns = [
  ...["bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast"].map(
    (key) => `receive_${key}`,
  ),
  ...["bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed"].map(
    (key) => `transmit_${key}`,
  ),
];

export const network: FileCollector = {
  name: "network",
  file: "net/dev",
  describe: (text) =>
    describeLines(text, ({ text: line, words, numbers }) => {
      const device = line.slice(0, Math.max(0, line.indexOf(":"))).trim();
      // A name with a number for a word could change without the shape changing: such an interface is left out.
      if (device !== words[0] || isNumber(device) || numbers.length !== columns.length) return [];
      return columns.map((key) =>
        counter(`node_network_${key}_total`, `Network device statistic ${key}.`, { labels: { device } }),
      );
    }),
};
