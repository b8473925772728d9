// /proc/meminfo: every line of it.
import { type FileCollector, gauge } from "./collector.ts";
import { describeLines } from "./lines.ts";

// "Active(anon):   1552 kB"; pages of a fixed size ("HugePages_Free:  0") are counts and have no unit.
const field = /^([A-Za-z]\w*)(?:\((\w+)\))?:[ \t]+\d+(?:[ \t]+(kB))?[ \t]*$/;

export const memory: FileCollector = {
  name: "memory",
  file: "meminfo",
  describe: (text) =>
    describeLines(text, ({ text: line, numbers }) => {
      const [, name, part, unit] = field.exec(line) ?? [];
      if (name === undefined || numbers.length !== 1) return [];
      const key = `${name}${part === undefined ? "" : `_${part}`}${unit === undefined ? "" : "_bytes"}`;
      return [
        gauge(`node_memory_${key}`, `Memory information field ${key}.`, {
          scale: unit === undefined ? 1 : 1024,
        }),
      ];
    }),
};
