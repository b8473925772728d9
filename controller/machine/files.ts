// Files outside the store and the images: the state directory, key files written atomically, ranges to serve.
import { readFileSync, type Stats } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BedplateError } from "../../protocol/errors.ts";

/**
 * Makes `path` as a directory of ours alone, or checks that it is one.
 * @throws `state.unsafe` when others own it or may enter it, `state.unwritable` when it cannot be made or is none
 */
export async function openPrivateDirectory(path: string): Promise<void> {
  const found = await makeDirectory(path);
  const mode = found.mode & 0o777;
  if ((mode & 0o077) !== 0) {
    throw new BedplateError(
      "state.unsafe",
      `${path} has mode ${mode.toString(8)}: others can look into the controller's state.`,
      {
        hint: `Make it private: chmod 700 ${path}`,
        details: { path, mode: mode.toString(8) },
      },
    );
  }
  refuseForeign(path, found.uid);
}

async function makeDirectory(path: string): Promise<Stats> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    return await stat(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new BedplateError("state.unwritable", `The state directory ${path} cannot be made: ${code}.`, {
      hint: "Name another one with --state-directory, or see to who owns the one above it.",
      cause,
    });
  }
}

/**
 * Reads a file that only we may read.
 * @returns undefined when there is none
 * @throws `state.unsafe` when others own it or may read it
 */
export async function readPrivateFile(path: string): Promise<string | undefined> {
  let text: string;
  try {
    await using file = await open(path, "r");
    const found = await file.stat();
    if ((found.mode & 0o077) !== 0) {
      throw new BedplateError(
        "state.unsafe",
        `${path} has mode ${(found.mode & 0o777).toString(8)}: others can read it.`,
        {
          hint: `If nobody did, make it private: chmod 600 ${path}. If in doubt, replace the key.`,
          details: { path },
        },
      );
    }
    refuseForeign(path, found.uid);
    text = await file.readFile("utf8");
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  return text;
}

/** Reads a file that need not be private; undefined when there is none. */
export async function readTextFile(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Reads a configuration file. @throws `config.unreadable` */
export function readConfigFile(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new BedplateError(
      "config.unreadable",
      `The configuration file ${path} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}.`,
      { cause },
    );
  }
}

/** Replaces a file in one step that survives a crash: either the old content or the new, never a part. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  const temporary = join(dirname(path), `.${path.slice(dirname(path).length + 1)}.new`);
  await unlink(temporary).catch((error: unknown) => {
    if (!isMissing(error)) throw error;
  });
  {
    await using file = await open(temporary, "wx", 0o600);
    await file.writeFile(text);
    await file.sync();
  }
  await replaceFile(temporary, path);
}

/** Puts a file that is whole and synced in the place of another one, for good. Both are in one directory. */
export async function replaceFile(from: string, to: string): Promise<void> {
  await rename(from, to);
  await using directory = await open(dirname(to), "r");
  await directory.sync();
}

/** Bytes of a file; 0 when there is none. */
export async function sizeOfFile(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (isMissing(error)) return 0;
    throw error;
  }
}

/** What is in a directory. */
export async function namesIn(directory: string): Promise<string[]> {
  return await readdir(directory);
}

/** Whether there is nothing at `path`, or a directory with nothing in it. */
export async function isEmptyDirectory(path: string): Promise<boolean> {
  try {
    return (await readdir(path)).length === 0;
  } catch (error) {
    if (isMissing(error)) return true;
    throw error;
  }
}

/** Removes a file, if there is one. */
export async function removeFile(path: string): Promise<void> {
  await rm(path, { force: true });
}

function refuseForeign(path: string, owner: number): void {
  const self = process.geteuid?.();
  if (self !== undefined && owner !== self) {
    throw new BedplateError(
      "state.unsafe",
      `${path} belongs to user ${owner}, the controller runs as user ${self}.`,
      {
        hint: "Run the controller as the owner of its state directory.",
        details: { path, owner },
      },
    );
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}
