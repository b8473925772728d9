// Runs a program on data nobody vouches for: no shell, no rights, limited memory and files, gone when its starter is.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { BedplateError } from "../../protocol/errors.ts";
import { imageLimits } from "./limits.ts";

/** Where programs are looked for, colon-separated as in PATH. */
export interface Programs {
  readonly path: string;
}

export interface ToolOptions {
  readonly program: string;
  /** The Debian package that has it. */
  readonly package: string;
  readonly args: readonly string[];
  /** Without it the program's input is empty. */
  readonly stdin?: AsyncIterable<Uint8Array>;
  /** Open files that the program finds as /proc/self/fd/3 and up. */
  readonly files?: readonly number[];
  readonly limits: {
    readonly addressBytes: number;
    readonly fileBytes: number;
    readonly processorSeconds?: number;
  };
  readonly programs: Programs;
  readonly signal: AbortSignal;
}

export interface Tool {
  /** To be read to its end. */
  readonly stdout: AsyncIterable<Uint8Array>;
  /** The first part of what it wrote to its error output. Rejects with what the input threw. */
  readonly ended: Promise<{ readonly exitCode: number | null; readonly message: string }>;
  /** Its output then ends as if it had ended by itself. */
  kill(): void;
  /** Kills it if it still runs, and waits until it is gone. */
  stop(): Promise<void>;
}

/** Nobody and nogroup on Debian; what has no number of its own shares them. */
export const unprivilegedId = 65534;

/** @throws `image.tool-missing` */
export async function runTool(options: ToolOptions): Promise<Tool> {
  const { program, programs, signal, files = [], stdin } = options;
  const path = await findProgram(program, programs);
  if (path === undefined) {
    throw new BedplateError(
      "image.tool-missing",
      `The program ${program} is needed for this image and not installed.`,
      {
        hint: `Install the Debian package ${options.package}, or convert the image to raw first.`,
        details: { program, package: options.package },
      },
    );
  }
  const [command, ...args] = await limited([path, ...options.args], options);
  const child = spawn(command!, args, {
    cwd: "/",
    env: { LC_ALL: "C", PATH: programs.path },
    stdio: ["pipe", "pipe", "pipe", ...files],
    ...(process.getuid?.() === 0 ? { uid: unprivilegedId, gid: unprivilegedId } : {}),
    signal,
    killSignal: "SIGKILL",
  });
  // Its end is told by `closed`; an abort or a failed start also comes as an error event.
  let failure: unknown;
  child.on("error", (error) => {
    failure ??= error;
  });
  const closed = once(child, "close").catch(() => {});
  let message = "";
  child.stderr!.on("data", (chunk: Buffer) => {
    message = (message + chunk.toString("latin1")).slice(0, imageLimits.toolMessageBytesMax);
  });
  const fed = pipeline(Readable.from(stdin ?? [], { objectMode: false }), child.stdin!).catch(
    (error: NodeJS.ErrnoException) => {
      // A program that stops reading says why with its exit code.
      if (error.code !== "EPIPE" && error.code !== "ERR_STREAM_PREMATURE_CLOSE") failure ??= error;
      if (error instanceof BedplateError) child.kill("SIGKILL");
    },
  );
  const ended = (async () => {
    await Promise.all([closed, fed]);
    if (failure !== undefined) throw failure;
    return { exitCode: child.exitCode, message: message.trim().replaceAll(/[^\x20-\x7e]+/g, " ") };
  })();
  // Whoever stops reading early does not wait for the end.
  ended.catch(() => {});
  const kill = () => {
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
  };
  return {
    stdout: child.stdout!,
    ended,
    kill,
    async stop() {
      kill();
      child.stdout!.destroy();
      await Promise.all([closed, fed]);
    },
  };
}

/** The command line with what util-linux has to limit it, as far as that is installed. */
async function limited(
  command: readonly string[],
  { limits, programs }: ToolOptions,
): Promise<readonly string[]> {
  const [setpriv, prlimit] = await Promise.all([
    findProgram("setpriv", programs),
    findProgram("prlimit", programs),
  ]);
  const { addressBytes, fileBytes, processorSeconds } = limits;
  return [
    ...(setpriv === undefined ? [] : [setpriv, "--pdeathsig", "KILL", "--no-new-privs", "--"]),
    ...(prlimit === undefined
      ? []
      : [
          prlimit,
          `--as=${addressBytes}`,
          `--fsize=${fileBytes}`,
          "--core=0",
          "--nofile=64",
          ...(processorSeconds === undefined ? [] : [`--cpu=${processorSeconds}`]),
          "--",
        ]),
    ...command,
  ];
}

export async function findProgram(name: string, { path }: Programs): Promise<string | undefined> {
  for (const directory of path.split(":").filter((part) => part.startsWith("/"))) {
    const candidate = join(directory, name);
    const found = await access(candidate, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return candidate;
  }
  return undefined;
}
