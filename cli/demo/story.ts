// How the demo speaks: numbered acts with what happens and why it matters, in colour only where there is some.
import { stripVTControlCharacters } from "node:util";
import type { Terminal } from "../terminal.ts";

export interface Story {
  /** A new act: what happens, then why that matters. */
  act(title: string, why: string): void;
  /** One thing that happened. */
  say(text: string): void;
  /** An empty line. */
  gap(): void;
  /** Several lines, indented as they are. */
  show(text: string): void;
  /** Something that must hold: said with a mark when it does, and when it does not. */
  proof(holds: boolean, text: string): void;
}

export function createStory(terminal: Terminal): Story {
  let acts = 0;
  const paint = (code: number, text: string) => (terminal.fancy ? `\u001b[${code}m${text}\u001b[0m` : text);
  const bold = (text: string) => paint(1, text);
  const wrapped = (text: string, indent: string) =>
    wrap(text, Math.max(40, Math.min(100, terminal.columns) - indent.length))
      .map((line) => `${indent}${line}`)
      .join("\n");
  return {
    act(title, why) {
      acts++;
      terminal.print(`\n${bold(`${acts}. ${title}`)}\n${paint(2, wrapped(why, "   "))}\n`);
    },
    gap: () => terminal.print(""),
    say: (text) => terminal.print(wrapped(text, "   ")),
    show: (text) =>
      terminal.print(
        text
          .split("\n")
          .map((line) => `     ${line}`.trimEnd())
          .join("\n"),
      ),
    proof: (holds, text) => terminal.print(`   ${holds ? paint(32, "ok ") : paint(31, "NOT")} ${text}`),
  };
}

/** Lines of at most `width` characters, broken at spaces. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(/\s+/)) {
    const last = lines.at(-1);
    if (last !== undefined && stripVTControlCharacters(`${last} ${word}`).length <= width)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
