// The newest lines that the agent logged, in memory: what agent.logs answers with.

export interface LogLines {
  /** Takes one line, with its newline or without. */
  add(line: string): void;
  /** The newest so many, oldest first; `truncated` when there were more before them, also such that are not kept. */
  newest(count: number): { readonly lines: readonly string[]; readonly truncated: boolean };
}

/** Of all lines together, as UTF-16. */
const keptBytesMax = 512 << 10;
const lineLengthMax = 16 << 10;

export function createLogLines(bytesMax: number = keptBytesMax): LogLines {
  let lines: string[] = [];
  let bytes = 0;
  /** Lines before this are dropped; cut off now and then, not for each. */
  let first = 0;
  let dropped = false;
  return {
    add(line) {
      const text = line.replace(/\n$/, "").slice(0, lineLengthMax);
      lines.push(text);
      bytes += 2 * text.length;
      while (bytes > bytesMax && first < lines.length - 1) {
        bytes -= 2 * lines[first]!.length;
        first++;
        dropped = true;
      }
      if (first > 1024 && first > lines.length / 2) {
        lines = lines.slice(first);
        first = 0;
      }
    },
    newest(count) {
      const from = Math.max(first, lines.length - count);
      return { lines: lines.slice(from), truncated: dropped || from > first };
    },
  };
}
