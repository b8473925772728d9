// Whether a program can be started, told before it is tried: in words, and so that nothing else than it starts.
import type { ExecArguments } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { errnoOf, type Files } from "../host/files.ts";

/** The file behind a program's path, as a plan shows it. */
export interface ProgramFile {
  readonly path: string;
  /** Where links lead. */
  readonly realPath: string;
  readonly sizeBytes: number;
  readonly mode: string;
  readonly uid: number;
  /** Of a script: what runs it. */
  readonly interpreter: string | null;
}

/** As much of a first line as Linux reads (BINPRM_BUF_SIZE). */
const headBytesMax = 256;

/** @throws `command.bad-arguments`, `exec.not-started` */
export function requireProgram({ argv }: ExecArguments, files: Files): ProgramFile {
  const path = argv[0]!;
  if (!path.startsWith("/")) {
    throw new BedplateError("command.bad-arguments", `The program "${path}" is no absolute path.`, {
      hint: "No search path is used: name the program's file, such as /usr/bin/systemctl.",
    });
  }
  const status = attempt(path, () => files.status(path));
  if (status.kind === "directory") throw notStarted(path, "it is a directory");
  if (status.kind !== "file") throw notStarted(path, "it is no regular file");
  if (!files.mayExecute(path)) {
    throw notStarted(path, "it may not be executed", {
      hint: `It has the mode ${status.mode.toString(8).padStart(4, "0")}; the file system may be mounted noexec.`,
    });
  }
  const interpreter = interpreterOf(path, files);
  if (interpreter !== null && !files.mayExecute(interpreter))
    throw notStarted(path, `its interpreter ${interpreter} is not there or may not be executed`);
  const { sizeBytes, uid } = status;
  const realPath = attempt(path, () => files.realPath(path));
  return { path, realPath, sizeBytes, mode: status.mode.toString(8).padStart(4, "0"), uid, interpreter };
}

/** Not for plans: the policy lists programs, and who may only plan is not told which directories there are. @throws `exec.not-started` */
export function requireDirectory({ argv, directory = "/" }: ExecArguments, files: Files): void {
  const path = argv[0]!;
  if (attempt(directory, () => files.status(directory), path).kind !== "directory")
    throw notStarted(path, `its working directory ${directory} is no directory`);
}

export function notStarted(
  program: string,
  why: string,
  more: { readonly hint?: string; readonly cause?: unknown } = {},
): BedplateError {
  return new BedplateError("exec.not-started", `${program} cannot be started: ${why}.`, {
    details: { program },
    ...more,
  });
}

/** Null of a compiled program. What is neither that nor a script, a C library hands to a shell: here it is refused. */
function interpreterOf(path: string, files: Files): string | null {
  let head: string;
  try {
    head = new TextDecoder("latin1").decode(files.readBytes(path, headBytesMax));
  } catch (error) {
    // Executable, but not readable, is so on purpose.
    if (errnoOf(error) === "EACCES") return null;
    throw notStarted(path, errnoOf(error), { cause: error });
  }
  if (head.startsWith("\x7fELF")) return null;
  const interpreter = /^#![ \t]*([^ \t\n]+)/.exec(head)?.[1];
  if (interpreter !== undefined) return interpreter;
  throw notStarted(path, "it is neither a compiled program nor a script", {
    hint: "A script begins with #! and its interpreter.",
  });
}

function attempt<T>(path: string, look: () => T, program = path): T {
  try {
    return look();
  } catch (cause) {
    const errno = errnoOf(cause);
    const why = errno === "ENOENT" || errno === "ENOTDIR" ? `there is no ${path}` : `${path}: ${errno}`;
    throw notStarted(program, why, { cause });
  }
}
