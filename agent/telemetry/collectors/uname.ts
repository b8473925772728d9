// /proc/sys/kernel: what uname(2) says, as the labels of a series that is always 1.
import { machine } from "node:os";
import { type ConstantCollector, gauge } from "./collector.ts";

// Label to file. Kernels before 6.1 have no `arch`.
const fields = {
  domainname: "sys/kernel/domainname",
  machine: "sys/kernel/arch",
  nodename: "sys/kernel/hostname",
  release: "sys/kernel/osrelease",
  sysname: "sys/kernel/ostype",
  version: "sys/kernel/version",
} as const;

export const uname: ConstantCollector = {
  name: "uname",
  files: Object.values(fields),
  constants(texts) {
    const labels: Record<string, string> = {};
    for (const [label, file] of Object.entries(fields)) {
      const text = texts.get(file) ?? (label === "machine" ? machine() : undefined);
      if (text === undefined) return [];
      labels[label] = (text.split("\n")[0] ?? "").trim().slice(0, 512);
    }
    const help = "Labeled system information as provided by the uname system call.";
    return [{ series: gauge("node_uname_info", help, { labels }), value: 1n }];
  },
};
