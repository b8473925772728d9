// The agent's own directory: made private, refused when others could read or change it, written durably.
import {
  appendFileSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { BedplateError } from "../../protocol/errors.ts";

export interface StateDirectory {
  readonly path: string;
  /** The file's bytes, or undefined when there is none. @throws `state.unsafe` when others could read or change it */
  read(name: string): Uint8Array | undefined;
  /** Replaces the file whole: after a crash it holds the old bytes or the new. Mode 0600. */
  write(name: string, bytes: Uint8Array): void;
  /** Adds to the end, without waiting for the disk: a power cut may take it back, or a part of it. Mode 0600. */
  append(name: string, text: string): void;
  /** The path of a file in it, for what opens files itself. */
  file(name: string): string;
}

/** @throws `state.unsafe` */
export function openStateDirectory(path: string): StateDirectory {
  if (!existsSync(path)) {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    syncDirectory(dirname(path));
  }
  refuseShared(path, "directory");
  return {
    path,
    file: (name) => join(path, name),
    read(name) {
      const file = join(path, name);
      if (!existsSync(file)) return undefined;
      refuseShared(file, "file");
      return readFileSync(file);
    },
    append: (name, text) => appendFileSync(join(path, name), text, { mode: 0o600 }),
    write(name, bytes) {
      const temporary = join(path, `.${name}.new`);
      const fd = openSync(temporary, "w", 0o600);
      try {
        // A disk that fills up takes a part without a word; the next call says why it takes no more.
        for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(temporary, join(path, name));
      syncDirectory(path);
    },
  };
}

/** The text of a file. @throws `config.unreadable` */
export function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new BedplateError("config.unreadable", `${path} cannot be read: ${(cause as Error).message}.`, {
      details: { path },
      cause,
    });
  }
}

function refuseShared(path: string, what: string): void {
  const stat = statSync(path);
  const owner = process.geteuid?.();
  const problem =
    stat.uid !== owner
      ? `belongs to user ${stat.uid}, not to this agent's user ${owner}`
      : (stat.mode & 0o077) !== 0
        ? `has mode ${(stat.mode & 0o777).toString(8)}`
        : undefined;
  if (problem === undefined) return;
  throw new BedplateError("state.unsafe", `The state ${what} ${path} ${problem}.`, {
    hint: `It holds the host's keys: chown it to this agent's user and chmod ${what === "directory" ? "0700" : "0600"}.`,
    details: { path },
  });
}

function syncDirectory(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
