// A strict reader of Prometheus' text format 0.0.4: throws at anything that is not exactly as the format says.

export interface Family {
  readonly name: string;
  help: string | undefined;
  type: string;
  readonly samples: Map<string, number>;
}

const number = String.raw`(?:[+-]Inf|NaN|-?\d+(?:\.\d+)?(?:e[+-]\d\d+)?)`;
const sampleLine = new RegExp(String.raw`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (${number})$`);
const pair = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)/y;

export function parseTextFormat(text: string): Map<string, Family> {
  if (text !== "" && !text.endsWith("\n")) throw new Error("the last line is not ended");
  const families = new Map<string, Family>();
  let current: Family | undefined;
  for (const line of text.split("\n").slice(0, -1)) {
    if (line === "") continue;
    const meta = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line);
    if (meta !== null) {
      const [, kind, name, rest] = meta as unknown as [string, string, string, string];
      if (current?.name !== name) {
        if (families.has(name)) throw new Error(`family ${name} stands in two places`);
        current = { name, help: undefined, type: "", samples: new Map() };
        families.set(name, current);
      }
      if (current.samples.size > 0 || current.type !== "") throw new Error(`${line}: out of order`);
      if (kind === "HELP") {
        if (current.help !== undefined) throw new Error(`${name} has help twice`);
        if (!/^(?:[^\\]|\\[\\n])*$/.test(rest)) throw new Error(`${line}: bad escape`);
        current.help = rest;
      } else {
        if (!/^(counter|gauge|untyped|histogram|summary)$/.test(rest)) throw new Error(`${line}: bad type`);
        current.type = rest;
      }
      continue;
    }
    const sample = sampleLine.exec(line);
    if (sample === null) throw new Error(`not a sample: ${line}`);
    const [, name, labels = "", value] = sample as unknown as [string, string, string | undefined, string];
    if (name !== current?.name || current.type === "")
      throw new Error(`${line}: not under its family's TYPE`);
    const key = `${name}{${labelsOf(labels, line)}}`;
    if (current.samples.has(key)) throw new Error(`${key} stands twice`);
    current.samples.set(key, value === "+Inf" ? Infinity : value === "-Inf" ? -Infinity : Number(value));
  }
  return families;
}

/** Sorted, so that two writers agree. */
function labelsOf(text: string, line: string): string {
  const pairs: string[] = [];
  pair.lastIndex = 0;
  while (pair.lastIndex < text.length) {
    const match = pair.exec(text);
    if (match === null) throw new Error(`bad labels: ${line}`);
    pairs.push(`${match[1]}="${match[2]}"`);
  }
  return pairs.sort().join(",");
}
