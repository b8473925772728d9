// Where a command prints: one JSON document on stdout with --json, else text; notes and errors on stderr.
import { reportOf } from "../protocol/errors.ts";
import { errorText, harmless, jsonText } from "./output.ts";

export interface Terminal {
  readonly json: boolean;
  /** A person is at the keyboard and sees the questions. */
  readonly interactive: boolean;
  /** stdout may be coloured and rewritten. */
  readonly fancy: boolean;
  readonly columns: number;
  /** Lines on stdout, for people, without what could steer a terminal. Nothing with --json. */
  print(text: string): void;
  /** A line on stderr, for people. Nothing with --json. */
  note(text: string): void;
  /** The one document (or one line of several, when following) on stdout. Nothing without --json. */
  document(value: unknown): void;
  /** A line that the next one replaces, on a terminal's stderr only; "" takes it away. */
  status(text: string): void;
  /** The error, as the mode wants it. `extra` goes beside it in the JSON document. */
  fail(error: unknown, extra?: Readonly<Record<string, unknown>>): void;
}

export interface TerminalOptions {
  readonly json: boolean;
  /** Several documents follow each other, one a line. */
  readonly lines?: boolean;
}

export function openTerminal({ json, lines = false }: TerminalOptions): Terminal {
  const { stdin, stdout, stderr } = process;
  let statusShown = false;
  const fancy =
    !json && stdout.isTTY === true && process.env.NO_COLOR === undefined && process.env.TERM !== "dumb";
  const clear = () => {
    if (statusShown) stderr.write("\r\u001b[K");
    statusShown = false;
  };
  return {
    json,
    interactive: !json && stdin.isTTY === true && stderr.isTTY === true,
    fancy,
    get columns() {
      // A terminal that does not know its size says 0.
      return stderr.columns || 100;
    },
    print(text) {
      if (json) return;
      clear();
      stdout.write(`${harmless(text, fancy)}\n`);
    },
    note(text) {
      if (json) return;
      clear();
      stderr.write(`${harmless(text)}\n`);
    },
    document(value) {
      if (json) stdout.write(`${jsonText(value, lines)}\n`);
    },
    status(text) {
      if (json || stderr.isTTY !== true) return;
      clear();
      if (text === "") return;
      // What is wrapped could not be taken away again.
      stderr.write(harmless(text).slice(0, (stderr.columns || 100) - 1));
      statusShown = true;
    },
    fail(error, extra = {}) {
      const report = reportOf(error);
      if (json) {
        stdout.write(`${jsonText({ error: report, ...extra }, lines)}\n`);
        return;
      }
      clear();
      stderr.write(`${errorText(report)}\n`);
    },
  };
}
