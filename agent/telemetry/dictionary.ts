// The dictionary: which series stand in the table of values, in which order, within the wire's bounds.
import { createHash } from "node:crypto";
import { limits } from "../../protocol/limits.ts";
import type { Series } from "../../protocol/messages.ts";

export interface Dictionary {
  /**
   * From a hash of the series: the same series have the same id, in any run of any agent, so that a receiver never
   * takes a batch for one of another dictionary.
   */
  readonly id: number;
  readonly series: readonly Series[];
}

/** What a message around the series takes, and some. */
const envelopeBytesMax = 64 * 1024;
export const dictionaryBytesMax: number = limits.frameBytesMax - envelopeBytesMax;

/** Takes series one after another while there is room. */
export interface DictionaryBuilder {
  add(series: Series): "taken" | "full" | "duplicate";
  readonly length: number;
  finish(): Dictionary;
}

export function createDictionaryBuilder(): DictionaryBuilder {
  const series: Series[] = [];
  const keys = new Set<string>();
  const names = new Set<string>();
  const hash = createHash("sha256");
  let bytes = 0;
  return {
    add(candidate) {
      const key = JSON.stringify([candidate.name, Object.entries(candidate.labels).sort(byName)]);
      if (keys.has(key)) return "duplicate";
      // The help stands with the first of a family only: it would be a third of the dictionary.
      const { help: _, ...short } = candidate;
      const stored = names.has(candidate.name) ? short : candidate;
      // As JSON it is longer than as MessagePack.
      const json = JSON.stringify(stored);
      if (series.length === limits.seriesMax || bytes + Buffer.byteLength(json) > dictionaryBytesMax)
        return "full";
      bytes += Buffer.byteLength(json);
      keys.add(key);
      names.add(candidate.name);
      series.push(stored);
      hash.update(json);
      return "taken";
    },
    get length() {
      return series.length;
    },
    finish: () => ({ id: hash.copy().digest().readUIntBE(0, 6), series }),
  };
}

function byName([a]: readonly [string, string], [b]: readonly [string, string]): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
