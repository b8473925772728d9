// Temporary directories beside the stored images: removed when not published, and after a crash at the next open.
import { randomUUID } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";

export interface Staging extends AsyncDisposable {
  readonly path: string;
  /** Renames the directory to `target`, which must not exist or be empty, once all in it is durable. */
  publish(target: string): Promise<void>;
}

const prefix = ".tmp-";

/** A directory of this process alone (mode 0700), removed with all in it when disposed unpublished. */
export async function createStaging(directory: string): Promise<Staging> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, `${prefix}${process.pid}-${await startTimeOf(process.pid)}-${randomUUID()}`);
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

/** Removes temporary directories whose process is gone; those of other processes that live are theirs. */
export async function removeLeftovers(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (!name.startsWith(prefix)) continue;
    const [pid, startTime] = name.slice(prefix.length).split("-");
    // A process id alone could by now be another process's.
    const alive = pid !== undefined && /^\d+$/.test(pid) && (await startTimeOf(Number(pid))) === startTime;
    if (!alive) await rm(join(directory, name), { recursive: true, force: true });
  }
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

async function syncPath(path: string): Promise<void> {
  await using handle = await open(path, "r");
  await handle.sync();
}
