// The nodes of a machine whose memory is not equally near to all processors.
import type { Numa } from "../../../protocol/inventory-devices.ts";
import { parseMeminfo, readHugePages } from "./memory.ts";
import { bounded, lineOf, type Source } from "./source.ts";

const at = "/sys/devices/system/node";
const nodesMax = 1024;

export const numa: Source<Numa> = {
  sources: [`${at}/node*/{cpulist,meminfo,distance,hugepages/*/nr_hugepages}`],
  collect({ facts, note }) {
    const numbers = facts
      .list(at)
      .flatMap((name) => (/^node\d{1,4}$/.test(name) ? [Number(name.slice(4))] : []))
      .sort((a, b) => a - b);
    return bounded(numbers, nodesMax, "nodes", note).map((node) => {
      // "Node 0 MemTotal:       24675344 kB"
      const meminfo = (facts.optionalText(`${at}/node${node}/meminfo`) ?? "").replaceAll(/^Node \d+ /gm, "");
      return {
        node,
        cpus: lineOf(facts, `${at}/node${node}/cpulist`),
        memoryBytes: parseMeminfo(meminfo).get("MemTotal") ?? null,
        distances: (lineOf(facts, `${at}/node${node}/distance`, 8192) ?? "")
          .split(" ")
          .filter((text) => /^\d{1,5}$/.test(text))
          .map(Number),
        hugePages: readHugePages(facts, `${at}/node${node}/hugepages`),
      };
    });
  },
  absent: [],
};
