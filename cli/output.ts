// What the command line prints, as text: tables, quantities, progress. Pure.

import type { Static } from "typebox";
import type { Progress } from "../protocol/commands.ts";
import type { ErrorReport } from "../protocol/errors.ts";

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach a terminal
const steering = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text from hosts and servers without what could steer a terminal; a line of it. */
export function plain(text: string): string {
  return text.replace(steering, "·");
}

/** The same for text of several lines, such as a program's; with `painted` our own bold, faint, red and green stay. */
export function harmless(text: string, painted = false): string {
  return text.replace(/\r+\n/g, "\n").replace(steering, (character, at: number, whole: string) => {
    if (character === "\n" || character === "\t") return character;
    return painted && character === "\u001b" && /^\[(?:0|1|2|31|32)m/.test(whole.slice(at + 1, at + 6))
      ? character
      : "·";
  });
}

/** JSON in which nothing can steer a terminal either: it escapes what JSON.stringify leaves. */
export function jsonText(value: unknown, lines: boolean): string {
  return JSON.stringify(value, undefined, lines ? undefined : 2).replace(steering, (character) =>
    character === "\n" ? character : `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** What somebody else has made very long, with its middle left out. */
export function shortened(text: string, charactersMax = 4000): string {
  if (text.length <= charactersMax) return text;
  const tail = Math.floor(charactersMax / 4);
  return `${text.slice(0, charactersMax - tail)} … ${text.slice(-tail)}`;
}

export interface Column<Row> {
  readonly title: string;
  readonly of: (row: Row) => string | null;
  readonly align?: "right";
}

/** Rows under a line of titles, two spaces between columns; `-` for what is not known. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = rows.map((row) => columns.map((column) => plain(column.of(row) ?? "-") || "-"));
  const lines = [columns.map((column) => column.title), ...cells];
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  return lines
    .map((line) =>
      line
        .map((cell, i) =>
          columns[i]!.align === "right" ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!),
        )
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** `name: value` lines with the values aligned; an unknown value is `-`. */
export function facts(pairs: readonly (readonly [string, string | null])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${`${name}:`.padEnd(width + 2)}${plain(value ?? "-")}`).join("\n");
}

const byteUnits = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

/** `192 MiB`, `1.5 GiB`: three significant digits, binary units. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 1023.6 KiB would print as 1024 KiB: move on before that.
  while (value >= 999.5 && unit < byteUnits.length - 1) {
    value /= 1024;
    unit++;
  }
  if (unit === 0) return `${bytes} B`;
  const digits = value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2;
  return `${value.toFixed(digits).replace(/\.0+$|(\.\d)0$/, "$1")} ${byteUnits[unit]}`;
}

/** `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return pair(whole, 60, "min", 1, "s");
  if (whole < 86_400) return pair(whole, 3600, "h", 60, "min");
  return pair(whole, 86_400, "d", 3600, "h");
}

function pair(seconds: number, large: number, largeName: string, small: number, smallName: string): string {
  const first = Math.floor(seconds / large);
  const rest = Math.floor((seconds - first * large) / small);
  return rest === 0 ? `${first} ${largeName}` : `${first} ${largeName} ${rest} ${smallName}`;
}

/** Why something waits, until when, what happens by itself and what helps, as `facts`; nothing where nothing is waited for. */
export function explanationFacts(view: {
  readonly reason: string | null;
  readonly deadline: number | null;
  readonly next: string | null;
  readonly suggest: string | null;
}): (readonly [string, string])[] {
  const pairs = [
    ["reason", view.reason],
    ["deadline", view.deadline === null ? null : formatTime(view.deadline)],
    ["next", view.next],
    ["suggest", view.suggest],
  ] as const;
  return pairs.flatMap(([name, text]) => (text === null ? [] : [[name, text] as const]));
}

/** How long ago, by the clock of this machine: `12 s ago`. */
export function formatAge(at: number | null, now: number): string | null {
  return at === null
    ? null
    : `${formatSeconds(Math.max(0, Math.round((now - at) / 1000)))} ago`.replace(".0 s", " s");
}

/** `2026-03-01 12:00:05Z` */
export function formatTime(at: number): string {
  return new Date(at)
    .toISOString()
    .replace("T", " ")
    .replace(/\.\d+Z$/, "Z");
}

const durationUnits: Readonly<Record<string, number>> = { s: 1, m: 60, min: 60, h: 3600, d: 86_400 };

/** Seconds of `90`, `90s`, `15m`, `1h`, `7d`; undefined when it is none of these. */
export function parseSeconds(text: string): number | undefined {
  const match = /^(\d{1,9})(s|m|min|h|d)?$/.exec(text.trim());
  return match === null ? undefined : Number(match[1]) * durationUnits[match[2] ?? "s"]!;
}

const sizeUnits: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Bytes of `4096`, `192M`, `192MiB`, `2G`; undefined when it is none of these. */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d{1,12})\s*([KMGT]?)(i?B)?$/i.exec(text.trim());
  if (match === null) return undefined;
  const bytes = Number(match[1]) * sizeUnits[match[2]!.toUpperCase()]!;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** `write    [#########.........]  52%  98 MiB of 192 MiB  310 MiB/s  0.3 s left`, cut to `columns`. */
export function progressLine(progress: Static<typeof Progress>, columns: number): string {
  const { done, total, unit, rate, secondsLeft, paused, at } = progress;
  const which = at === undefined ? "" : ` ${at.number}/${at.of}`;
  const phase = `${paused === true ? "paused: " : ""}${progress.phase}${which}`;
  const share = total === 0 ? 1 : Math.min(1, done / total);
  const amount = (count: number) => (unit === "bytes" ? formatBytes(count) : `${count}`);
  // What has no known end, such as a program's output, has no share of it either.
  if (total === 0 && done > 0) {
    const rateNow = rate > 0 ? `  ${amount(Math.round(rate))}/s` : "";
    return `${plain(phase).padEnd(8)} ${amount(done)}${rateNow}`.slice(0, Math.max(0, columns - 1));
  }
  const tail = [
    `${`${Math.floor(share * 100)}`.padStart(3)}%`,
    `${amount(done)} of ${amount(total)}${unit === "bytes" ? "" : ` ${unit}`}`,
    ...(rate > 0 ? [`${amount(Math.round(rate))}/s`] : []),
    ...(secondsLeft === null || done >= total ? [] : [`${formatSeconds(secondsLeft)} left`]),
  ].join("  ");
  const head = plain(phase).padEnd(8);
  const room = Math.min(40, columns - head.length - tail.length - 6);
  if (room < 8) return `${head} ${tail}`.slice(0, Math.max(0, columns - 1));
  const filled = Math.floor(share * room);
  return `${head} [${"#".repeat(filled)}${".".repeat(room - filled)}]  ${tail}`;
}

/** `error: …`, its hint and its code, for people. */
export function errorText(error: ErrorReport): string {
  const lines = [`error: ${plain(shortened(error.message))}`];
  if (error.hint !== undefined) lines.push(`hint: ${plain(shortened(error.hint))}`);
  const candidates = candidateLines(error.details?.candidates);
  if (candidates.length > 0) lines.push("candidates:", ...candidates.map((line) => `  ${plain(line)}`));
  lines.push(`code: ${error.code}`);
  return lines.join("\n");
}

// What a selector could have meant: texts, or objects whose scalar members say it.
function candidateLines(value: unknown): string[] {
  if (!Array.isArray(value)) return [];
  return value.slice(0, 64).map((candidate) => {
    if (candidate === null || typeof candidate !== "object") return String(candidate);
    return Object.entries(candidate)
      .filter(([, member]) => typeof member === "string" || typeof member === "number")
      .map(([key, member]) => `${key}=${member}`)
      .join("  ");
  });
}

/** What there is of these; null where nothing is. */
export function joined(separator: string, ...parts: readonly (string | number | null)[]): string | null {
  const present = parts.filter((part) => part !== null && part !== "");
  return present.length === 0 ? null : present.join(separator);
}

export function prefixed(prefix: string, value: string | null): string | null {
  return value === null ? null : `${prefix}${value}`;
}

export function bracketed(value: string | null): string | null {
  return value === null ? null : `(${value})`;
}
