// What changes from moment to moment: clock rates, counts of memory errors, and when asked temperatures.
import type { Moment } from "../../../protocol/inventory.ts";
import type { Facts } from "../facts.ts";
import { controllers } from "./memory.ts";
import { countOf, lineOf, type Source } from "./source.ts";

const hwmon = "/sys/class/hwmon";
const sensorsMax = 256;
/** Some sensors hang on slow buses, and drives are asked for theirs. */
const budgetMs = 1500;

export const moment: Source<Moment> = {
  sources: [
    "/proc/cpuinfo",
    "/sys/devices/system/edac/mc/mc*/{ce_count,ue_count}",
    `${hwmon}/hwmon*/{name,temp*_input,temp*_label}`,
  ],
  collect({ facts, slow, clock, note }) {
    return {
      currentMhz: parseCurrentMhz(facts.optionalText("/proc/cpuinfo") ?? ""),
      temperatures: slow ? readTemperatures(facts, clock.monotonic() + budgetMs, clock, note) : [],
      memoryErrors: controllers(facts)
        .slice(0, 64)
        .map((controller) => ({
          controller,
          corrected: countOf(facts, `/sys/devices/system/edac/mc/${controller}/ce_count`) ?? 0,
          uncorrected: countOf(facts, `/sys/devices/system/edac/mc/${controller}/ue_count`) ?? 0,
        })),
      diskHealth: [],
    };
  },
  absent: { currentMhz: null, temperatures: [], memoryErrors: [], diskHealth: [] },
};

/** Over all threads: `cpu MHz		: 2596.990`. */
export function parseCurrentMhz(text: string): Moment["currentMhz"] {
  const rates = [...text.matchAll(/^cpu MHz\s*:\s*(\d{1,6})/gm)].map((match) => Number(match[1]));
  if (rates.length === 0) return null;
  return {
    lowest: rates.reduce((a, b) => Math.min(a, b)),
    highest: rates.reduce((a, b) => Math.max(a, b)),
  };
}

/** Documentation/hwmon/sysfs-interface.rst: thousandths of a degree. */
function readTemperatures(
  facts: Facts,
  deadlineMs: number,
  clock: { monotonic(): number },
  note: (error: string) => void,
): Moment["temperatures"] {
  const found: Moment["temperatures"] = [];
  for (const chip of facts.list(hwmon)) {
    const at = `${hwmon}/${chip}`;
    const sensor = lineOf(facts, `${at}/name`, 64) ?? chip;
    for (const input of facts.list(at).filter((name) => /^temp\d+_input$/.test(name))) {
      if (found.length >= sensorsMax) return found;
      if (clock.monotonic() > deadlineMs) {
        note(`${hwmon}: sensors after ${chip} were not read; those before took ${budgetMs} ms`);
        return found;
      }
      const thousandths = facts.optionalNumber(`${at}/${input}`);
      if (thousandths === null) continue;
      found.push({
        sensor,
        label: lineOf(facts, `${at}/${input.replace("_input", "_label")}`, 64),
        celsius: thousandths / 1000,
      });
    }
  }
  return found;
}
