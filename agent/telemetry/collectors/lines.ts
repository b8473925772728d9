// Texts of the kernel cut into lines, words and numbers exactly as the meter (assembly/kernels/meter.ts) cuts them.
import type { Series } from "../../../protocol/messages.ts";

export interface Line {
  readonly text: string;
  /** Runs of anything but space, tab, ':', '=', '(', ')', ',' and '/'. */
  readonly words: readonly string[];
  /** Those words that the meter takes for numbers. */
  readonly numbers: readonly string[];
}

const separators = /[ \t:=(),/]+/;
const number = /^-?\d+(?:\.(\d+))?$/;
const seriesName = /^[a-zA-Z_][a-zA-Z0-9_]{0,255}$/;
const labelCharactersMax = 512;

/**
 * One entry for each number of the text. `seriesOf` gives the series of the first numbers of a line; those it leaves out
 * have none. The meter reads "0.52" as 52, so a series' scale is made smaller by its number's decimals.
 */
export function describeLines(
  text: string,
  seriesOf: (line: Line) => readonly (Series | null)[],
): (Series | null)[] {
  return text.split("\n").flatMap((line) => {
    const words = line.split(separators).filter((word) => word !== "");
    const numbers = words.filter(isNumber);
    if (numbers.length === 0) return [];
    const series = seriesOf({ text: line, words, numbers });
    return numbers.map((word, k) => inDecimals(word, series[k] ?? null));
  });
}

export function isNumber(word: string): boolean {
  return number.test(word);
}

function inDecimals(word: string, series: Series | null): Series | null {
  if (series === null || !valid(series)) return null;
  const decimals = number.exec(word)?.[1]?.length ?? 0;
  return decimals === 0 ? series : { ...series, scale: series.scale / 10 ** decimals };
}

function valid({ name, labels }: Series): boolean {
  return seriesName.test(name) && Object.values(labels).every((value) => value.length <= labelCharactersMax);
}
