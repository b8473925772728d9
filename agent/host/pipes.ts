// Pipes for a program's output. Node gives its children sockets, which nobody can open by name: `echo … > /dev/stderr`
// in a script would fail. Named pipes that lose their names at once are pipes like any other.
import { spawn } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";

export interface Pipe {
  readonly readable: Readable;
  /** For the child alone: closed here once it has it. */
  readonly writeEnd: number;
}

/** Undefined where they cannot be made: no mkfifo, no directory to write to. */
export async function openPipes(
  count: number,
  environment: Readonly<Record<string, string>>,
): Promise<readonly Pipe[] | undefined> {
  let directory: string;
  try {
    // Of mode 0700: nobody else opens what lies in it.
    directory = mkdtempSync(join(tmpdir(), "bedplate-pipes-"));
  } catch {
    return undefined;
  }
  try {
    const paths = Array.from({ length: count }, (_, index) => join(directory, `${index}`));
    if (!(await makeNamedPipes(paths, environment))) return undefined;
    return paths.map((path) => {
      // Does not wait for a writer; then the writer's end does not wait for a reader.
      const readEnd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
      const writeEnd = openSync(path, constants.O_WRONLY);
      return { readable: new Socket({ fd: readEnd, readable: true, writable: false }), writeEnd };
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
}

export function closeWriteEnds(pipes: readonly Pipe[]): void {
  for (const { writeEnd } of pipes) closeSync(writeEnd);
}

function makeNamedPipes(
  paths: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const child = spawn("mkfifo", ["-m", "600", ...paths], { env: environment, cwd: "/", stdio: "ignore" });
  child.on("error", () => resolve(false));
  child.on("close", (exitCode) => resolve(exitCode === 0));
  return promise;
}
