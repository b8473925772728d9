// `bedplate hash`: digests of files and of standard input, printed as b3sum and sha256sum print them.
import { Readable } from "node:stream";
import { createFileHasher, type FileDigest, type HashAlgorithm, hashStream } from "../assembly/index.ts";
import { hex } from "../protocol/bytes.ts";
import { BedplateError, type ErrorReport, reportOf } from "../protocol/errors.ts";
import { type ExitCode, exitCodes } from "./exit-codes.ts";
import { errorText } from "./output.ts";
import type { Terminal } from "./terminal.ts";

export interface HashCommandOptions {
  readonly algorithm: HashAlgorithm;
  /** Worker threads for one large file. */
  readonly threads: number;
}

export interface HashIo {
  /** Lines with their newline. */
  stdout(text: string): void;
  stderr(text: string): void;
  readonly stdin: Readable;
}

/**
 * Prints a line for each file, in order; `-` is standard input. A file that cannot be read gets a message, the others
 * are still hashed, and the exit code is 1. Names that are not UTF-8 cannot be given to Node at all.
 * @throws the signal's reason
 */
export async function hashCommand(
  files: readonly string[],
  options: HashCommandOptions,
  io: HashIo,
  signal: AbortSignal,
): Promise<ExitCode> {
  let exitCode: ExitCode = exitCodes.ok;
  for await (const outcome of hashAll(files, options, io.stdin, signal)) {
    if ("error" in outcome) {
      io.stderr(`${errorText(outcome.error)}\n`);
      exitCode = exitCodes.failed;
    } else {
      io.stdout(`${digestLine(outcome.digest, outcome.name, options.algorithm)}\n`);
    }
  }
  return exitCode;
}

export interface HashRun extends HashCommandOptions {
  readonly files: readonly string[];
  readonly terminal: Terminal;
}

/** The same for the program: with --json one document of all files. */
export async function runHash(
  { files, terminal, ...options }: HashRun,
  signal: AbortSignal,
): Promise<ExitCode> {
  const { stdin } = process;
  if (!terminal.json) {
    const stdout = (text: string) => process.stdout.write(text);
    return hashCommand(
      files,
      options,
      { stdout, stderr: (text) => process.stderr.write(text), stdin },
      signal,
    );
  }
  const outcomes = await Array.fromAsync(hashAll(files, options, stdin, signal));
  terminal.document({ algorithm: options.algorithm, files: outcomes });
  return outcomes.some((outcome) => "error" in outcome) ? exitCodes.failed : exitCodes.ok;
}

type Outcome =
  | { readonly name: string; readonly digest: string; readonly bytes: number }
  | { readonly name: string; readonly error: ErrorReport };

async function* hashAll(
  files: readonly string[],
  { algorithm, threads }: HashCommandOptions,
  stdin: Readable,
  signal: AbortSignal,
): AsyncGenerator<Outcome> {
  await using hasher = createFileHasher({ threads });
  let input = stdin;
  for (const name of files) {
    try {
      let result: FileDigest;
      if (name === "-") {
        result = await hashStream(input, { algorithm, signal });
        // Whoever names it twice reads nothing the second time.
        input = Readable.from([]);
      } else {
        result = await hasher.hash(name, { algorithm, signal });
      }
      yield { name, digest: hex(result.digest), bytes: result.bytes };
    } catch (cause) {
      signal.throwIfAborted();
      yield { name, error: reportOf(expected(name, cause)) };
    }
  }
}

function expected(name: string, cause: unknown): unknown {
  const { code } = cause as NodeJS.ErrnoException;
  if (cause instanceof BedplateError || code === undefined) return cause;
  return new BedplateError("file.unreadable", `${name} cannot be read (${code}).`, { cause });
}

/**
 * One line as coreutils 9.1 and b3sum 1.2 print it: with a backslash or line break in the name, the line starts with a
 * backslash and the name is escaped. That version of b3sum leaves a carriage return as it is (later ones do not).
 */
export function digestLine(digest: string, name: string, algorithm: HashAlgorithm): string {
  const special = algorithm === "sha256" ? /[\\\n\r]/g : /[\\\n]/g;
  const escaped = name.replaceAll(special, (character) => escapes[character as keyof typeof escapes]);
  return `${escaped === name ? "" : "\\"}${digest}  ${escaped}`;
}

const escapes = { "\\": "\\\\", "\n": "\\n", "\r": "\\r" } as const;
