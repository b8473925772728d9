// Prometheus' text format, version 0.0.4, for the series of a dictionary: all but the values is rendered once.
import type { Series } from "../../protocol/messages.ts";

export interface Exposition {
  /** The page's text; the k-th value is that of the k-th series. */
  write(values: ArrayLike<number>): string;
}

/**
 * Families in the order of their first series, each once: the format forbids a family in two places. What is a counter
 * without `_total` at its name's end (node_vmstat_*) is `untyped`, as node_exporter has it.
 */
export function createExposition(series: readonly Series[]): Exposition {
  const families = Map.groupBy(series.entries(), ([, { name }]) => name);
  const columns: number[] = [];
  // The text before each value, the newline after the value before it included.
  const prefixes: string[] = [];
  let before = "";
  for (const [name, members] of families) {
    const [, first] = members[0]!;
    if (first.help !== undefined) before += `# HELP ${name} ${escapeHelp(first.help)}\n`;
    before += `# TYPE ${name} ${typeOf(first)}\n`;
    for (const [column, { labels }] of members) {
      columns.push(column);
      prefixes.push(`${before}${name}${labelText(labels)} `);
      before = "\n";
    }
  }
  return {
    write(values) {
      let text = "";
      // Concatenation builds a rope: faster here than an array that is joined.
      for (let k = 0; k < prefixes.length; k++)
        text += prefixes[k]! + numberText(values[columns[k]!] ?? Number.NaN);
      return text === "" ? "" : `${text}\n`;
    },
  };
}

/** As Go's strconv 'g' prints the shortest digits, and so node_exporter: 100000, 1e+06, 2.5276502016e+10, 5e-05. */
export function numberText(value: number): string {
  const size = Math.abs(value);
  if ((size >= 1e-4 && size < 1e6) || value === 0) return String(value === 0 ? 0 : value);
  if (Number.isNaN(value)) return "NaN";
  if (size === Number.POSITIVE_INFINITY) return value > 0 ? "+Inf" : "-Inf";
  const [digits, exponent] = value.toExponential().split("e") as [string, string];
  const sign = exponent[0]!;
  return `${digits}e${sign}${exponent.slice(1).padStart(2, "0")}`;
}

function typeOf({ name, type }: Series): string {
  return type === "counter" && !name.endsWith("_total") ? "untyped" : type;
}

function labelText(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
