// /proc/vmstat: paging, swapping, page faults and kills for want of memory; the other 150 lines are left out.
import { counter, type FileCollector } from "./collector.ts";
import { describeLines } from "./lines.ts";

/** node_exporter's default. */
const included = /^(oom_kill|pgpg|pswp|pg.*fault).*/;

export const vmstat: FileCollector = {
  name: "vmstat",
  file: "vmstat",
  describe: (text) =>
    describeLines(text, ({ words }) => {
      const [key, , more] = words;
      if (key === undefined || more !== undefined || !included.test(key)) return [];
      return [counter(`node_vmstat_${key}`, `/proc/vmstat information field ${key}.`)];
    }),
};
