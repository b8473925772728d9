// agent.logs: the newest lines of the agent's own log, or of its executors', with nothing secret in them.
import type { LogsArguments, LogsOutput } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import type { LogLines } from "./log-lines.ts";

export interface LogSources {
  readonly agent: Pick<LogLines, "newest">;
  /** The end of the executors' log file, at most so many bytes, and whether there was more; undefined without such a file. */
  readonly executor: (
    bytesMax: number,
  ) => { readonly bytes: Uint8Array; readonly truncated: boolean } | undefined;
}

const usualLines = 200;
const lineLengthMax = 16 << 10;
/** Of one answer's lines as JSON. */
const answerBytesMax = limits.resultBytesMax / 2;
const fileBytesMax = 512 << 10;

/** @throws `file.unreadable` */
export function answerLogs({ source, lines = usualLines }: LogsArguments, sources: LogSources): LogsOutput {
  const found = source === "agent" ? sources.agent.newest(lines) : newestOfFile(sources, lines);
  const kept: string[] = [];
  let bytes = 0;
  for (const line of found.lines.toReversed()) {
    const clean = withoutSecrets(line).slice(0, lineLengthMax);
    bytes += Buffer.byteLength(JSON.stringify(clean));
    if (bytes > answerBytesMax) break;
    kept.unshift(clean);
  }
  return { source, lines: kept, truncated: found.truncated || kept.length < found.lines.length };
}

function newestOfFile({ executor }: LogSources, count: number): ReturnType<LogLines["newest"]> {
  const file = executor(fileBytesMax);
  if (file === undefined) {
    throw new BedplateError("file.unreadable", "No executor has logged into a file here.", {
      hint: "Where systemd starts them: journalctl -u 'bedplate-executor@*'",
    });
  }
  const all = new TextDecoder().decode(file.bytes).split("\n");
  if (file.truncated) all.shift();
  if (all.at(-1) === "") all.pop();
  return { lines: all.slice(-count), truncated: file.truncated || all.length > count };
}

/** What these look like is told nobody, whoever logged it. */
const secrets: readonly { readonly looks: RegExp; readonly shown: string }[] = [
  { looks: /(bedplate-join\.[A-Za-z0-9_-]+)\.[A-Za-z0-9_.-]+/g, shown: "$1.(secret)" },
  { looks: /(bedplate-(?:api|image)\.[0-9a-f]+)\.[A-Za-z0-9_.-]+/g, shown: "$1.(secret)" },
  { looks: /(\bbearer\b(?:\\?"\s*:\s*\\?"|\s+))[A-Za-z0-9._~+/=-]+/gi, shown: "$1(secret)" },
  { looks: /(:\/\/[^/\s:@"]*):[^/\s@"]+@/g, shown: "$1:(secret)@" },
  {
    looks: /-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g,
    shown: "(secret)",
  },
];

export function withoutSecrets(line: string): string {
  return secrets.reduce((text, { looks, shown }) => text.replace(looks, shown), line);
}
