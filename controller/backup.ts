// Backup and restore of a controller: the database and the authority in one private file. Never the images.
import { join } from "node:path";
import type { BackupView } from "../protocol/api.ts";
import { assert, BedplateError } from "../protocol/errors.ts";
import { uuidV7 } from "../protocol/identifiers.ts";
import { authorityFiles } from "./authority/authority.ts";
import {
  isEmptyDirectory,
  namesIn,
  openPrivateDirectory,
  readPrivateFile,
  readTextFile,
  removeFile,
  replaceFile,
  sizeOfFile,
  writePrivateFile,
} from "./machine/files.ts";
import type { Log } from "./machine/log.ts";
import { type Clock, type Random, systemClock, systemRandom } from "./machine/system.ts";
import { restoreBackup } from "./store/backup.ts";
import { openSqliteStore } from "./store/sqlite.ts";
import type { Store } from "./store/store.ts";

/** In the state directory, each under a name of its own, until whoever asked for it has fetched it. */
const backupName = /^backup-[0-9a-f-]{36}\.bedplate(\.new)?$/;
/** So many that nobody has fetched are kept beside a new one; the oldest go. */
const unfetchedMax = 7;

export interface BackupsParts {
  readonly store: Pick<Store, "backup" | "epoch" | "events">;
  readonly directory: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Backups of a controller: made one at a time, each a file that is the asker's alone. */
export class Backups {
  readonly #parts: BackupsParts;
  #making: Promise<unknown> = Promise.resolve();

  constructor(parts: BackupsParts) {
    this.#parts = parts;
  }

  make(): Promise<BackupView> {
    const made = this.#making.then(() => this.#make());
    this.#making = made.catch(() => {});
    return made;
  }

  async #make(): Promise<BackupView> {
    const { store, directory, clock, random, log } = this.#parts;
    await removeUnfetched(directory);
    const at = clock.now();
    const file = join(directory, `backup-${uuidV7(at, random.bytes(10))}.bedplate`);
    const unfinished = `${file}.new`;
    // Before the copy, so that it is in it too.
    await store.events.append(
      { topic: "controller", id: `epoch-${await store.epoch()}`, event: "backup" },
      at,
    );
    await store.backup(unfinished, await authorityIn(directory));
    const sizeBytes = await sizeOfFile(unfinished);
    await replaceFile(unfinished, file);
    log.info({ file, sizeBytes }, "a backup was made");
    return { file, sizeBytes, epoch: await store.epoch(), at };
  }
}

/**
 * A backup of a controller that does not run.
 * @throws `state.in-use` when it does
 */
export async function backupStopped(directory: string, log: Log): Promise<BackupView> {
  await openPrivateDirectory(directory);
  if ((await sizeOfFile(join(directory, "controller.db"))) === 0)
    throw new BedplateError("state.backup-invalid", `There is no controller's state in ${directory}.`);
  await using store = await openSqliteStore(join(directory, "controller.db"));
  return await new Backups({ store, directory, clock: systemClock, random: systemRandom, log }).make();
}

/** What was never finished, and the oldest of what nobody fetched. Nothing else makes one meanwhile. */
async function removeUnfetched(directory: string): Promise<void> {
  const found = (await namesIn(directory)).filter((name) => backupName.test(name));
  const [unfinished, whole] = [
    found.filter((name) => name.endsWith(".new")),
    found.filter((name) => !name.endsWith(".new")),
  ];
  // By name is by age.
  const old = whole.sort().slice(0, Math.max(0, whole.length - unfetchedMax));
  for (const name of [...unfinished, ...old]) await removeFile(join(directory, name));
}

export interface RestoreOptions {
  readonly file: string;
  readonly directory: string;
  /** At least this epoch; for when hosts have seen a higher one than the backup knows of. */
  readonly epochMin?: number | undefined;
  readonly clock?: Clock;
}

/**
 * Makes a state directory from a backup. Its epoch is raised, so that hosts refuse offers of the one before.
 * @throws `state.not-empty`, `state.backup-invalid`, `state.newer`, `config.unreadable`
 */
export async function restoreController({
  file,
  directory,
  epochMin = 0,
  clock = systemClock,
}: RestoreOptions): Promise<{ readonly epoch: number; readonly epochBefore: number }> {
  if ((await sizeOfFile(file)) === 0)
    throw new BedplateError("config.unreadable", `The backup ${file} cannot be read, or is empty.`);
  if (!(await isEmptyDirectory(directory))) {
    throw new BedplateError("state.not-empty", `${directory} is not empty; nothing in it is written over.`, {
      hint: "Give a new directory, or move the old one away.",
    });
  }
  await openPrivateDirectory(directory);
  const target = join(directory, "controller.db");
  try {
    const { epoch, epochBefore, files } = restoreBackup(file, target, { epochMin, at: clock.now() });
    for (const name of authorityFiles.always) assert(files[name] !== undefined, `a backup has ${name}`);
    for (const name of allAuthorityFiles) {
      const content = files[name];
      if (content !== undefined) await writePrivateFile(join(directory, name), content);
    }
    return { epoch, epochBefore };
  } catch (error) {
    for (const name of ["controller.db", "controller.db-journal", ...allAuthorityFiles])
      await removeFile(join(directory, name));
    throw error;
  }
}

const allAuthorityFiles = [...authorityFiles.always, authorityFiles.rotation];

// The rotation first: while it is under way it alone says what the authority is, so one that finishes meanwhile does no harm.
async function authorityIn(directory: string): Promise<Record<string, string>> {
  const rotation = await readPrivateFile(join(directory, authorityFiles.rotation));
  const certificate = await readTextFile(join(directory, "ca.pem"));
  const key = await readPrivateFile(join(directory, "ca.key"));
  if (certificate === undefined || key === undefined)
    throw new BedplateError("state.unsafe", `${directory} lacks ca.pem or ca.key; it cannot be backed up.`);
  return {
    "ca.pem": certificate,
    "ca.key": key,
    ...(rotation === undefined ? {} : { [authorityFiles.rotation]: rotation }),
  };
}
