// Temporary directories beside the stored images: removed when not published, and after a crash at the next open.
import { randomUUID } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

export interface Staging extends AsyncDisposable {
  readonly path: string;
  /** Renames the directory to `target`, which must not exist or be empty, once all in it is durable. */
  publish(target: string): Promise<void>;
}

const prefix = ".tmp-";

async function newName(): Promise<string> {
  return `${prefix}${process.pid}-${await startTimeOf(process.pid)}-${randomUUID()}`;
}

/**
 * Takes a directory away in one step, and then what is in it: after a crash in between it is one of the leftovers.
 * @returns bytes of files that nobody else has
 */
export async function discard(directory: string, name: string): Promise<number> {
  const path = join(directory, await newName());
  await rename(join(directory, name), path);
  await syncPath(directory);
  const freed = await ownBytesOf(path);
  await rm(path, { recursive: true, force: true });
  return freed;
}

/** Bytes of a directory's files that nobody else has. */
async function ownBytesOf(path: string): Promise<number> {
  let bytes = 0;
  for (const file of await readdir(path)) {
    const { nlink, size } = await stat(join(path, file));
    if (nlink === 1) bytes += size;
  }
  return bytes;
}

/** A directory of this process alone (mode 0700), removed with all in it when disposed unpublished. */
export async function createStaging(directory: string): Promise<Staging> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, await newName());
  await mkdir(path, { mode: 0o700 });
  let published = false;
  return {
    path,
    async publish(target) {
      for (const name of await readdir(path)) await syncPath(join(path, name));
      await syncPath(path);
      await rename(path, target);
      published = true;
      await syncPath(directory);
    },
    async [Symbol.asyncDispose]() {
      if (!published) await rm(path, { recursive: true, force: true });
    },
  };
}

export interface LeftoverOptions {
  readonly dryRun?: boolean;
  /** Told of one that cannot be removed, as of another user's import: it stays, and harms nothing but the room it takes. */
  readonly onStuck?: ((name: string, error: unknown) => void) | undefined;
}

/**
 * Removes temporary directories whose process is gone; those of other processes that live are theirs.
 * @returns bytes that were freed, or would be
 */
export async function removeLeftovers(
  directory: string,
  { dryRun = false, onStuck }: LeftoverOptions = {},
): Promise<number> {
  let freed = 0;
  for (const name of await readdir(directory)) {
    if (!name.startsWith(prefix)) continue;
    const [pid, startTime] = name.slice(prefix.length).split("-");
    // A process id alone could by now be another process's.
    const alive = pid !== undefined && /^\d+$/.test(pid) && (await startTimeOf(Number(pid))) === startTime;
    if (alive) continue;
    try {
      const bytes = await ownBytesOf(join(directory, name));
      if (!dryRun) await rm(join(directory, name), { recursive: true, force: true });
      freed += bytes;
    } catch (error) {
      onStuck?.(name, error);
    }
  }
  return freed;
}

/** When the process started, in ticks since boot: field 22 of proc(5)'s stat; empty when there is none. */
async function startTimeOf(pid: number): Promise<string> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return "";
  }
}

export async function syncPath(path: string): Promise<void> {
  await using handle = await open(path, "r");
  await handle.sync();
}
