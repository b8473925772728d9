// A controller's state as one file: the database as it was at one moment, and the keys beside it in a table of its own.
import { chmodSync, closeSync, copyFileSync, fsyncSync, openSync, rmSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { textOf, utf8 } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { Database } from "./database.ts";
import { migrations } from "./migrations.ts";

/** Tells the file from any other SQLite database: "BPbk". */
const applicationId = 0x4250_626b;
const filesTable = "create table backup_files (name text primary key, content text not null) strict";

/** Writes the file at `path`, which must not exist, with mode 0600. It is whole and on the disk, or it is not there. */
export async function writeBackup(
  database: Database,
  path: string,
  files: Readonly<Record<string, string>>,
): Promise<void> {
  closeSync(openSync(path, "wx", 0o600));
  try {
    await database.backup(path);
    const copy = new DatabaseSync(path);
    try {
      copy.exec(`pragma journal_mode = delete; pragma synchronous = full; begin; ${filesTable};`);
      const insert = copy.prepare("insert into backup_files (name, content) values (?, ?)");
      for (const [name, content] of Object.entries(files)) insert.run(name, content);
      copy.exec(`pragma application_id = ${applicationId}; commit;`);
    } finally {
      copy.close();
    }
    syncFile(path);
  } catch (error) {
    for (const suffix of ["", "-journal", "-wal", "-shm"]) rmSync(`${path}${suffix}`, { force: true });
    throw error;
  }
}

/** Events that a controller may have told of between the backup and the restore, in each epoch; of so many epochs at most. */
const eventsOfEpoch = 2 ** 32;
const epochsSkippedMax = 1000;

export interface Restored {
  readonly epoch: number;
  readonly epochBefore: number;
  /** The files that lay beside the database. */
  readonly files: Readonly<Record<string, string>>;
}

/**
 * Makes a database at `target`, which must not exist, from a backup, with an epoch above the backup's and at least `epochMin`.
 * @throws `state.backup-invalid`, `state.newer`
 */
export function restoreBackup(
  file: string,
  target: string,
  { epochMin, at }: { readonly epochMin: number; readonly at: number },
): Restored {
  closeSync(openSync(target, "wx", 0o600));
  copyFileSync(file, target);
  chmodSync(target, 0o600);
  const database = new DatabaseSync(target);
  try {
    const version = check(database, file);
    const files = Object.fromEntries(
      database
        .prepare("select name, content from backup_files")
        .all()
        .map((row) => [String(row.name), String(row.content)]),
    );
    const kept = database.prepare("select value from meta where key = 'epoch'").get();
    const epochBefore = kept === undefined ? 1 : Number(textOf(kept.value as Uint8Array));
    const epoch = Math.max(epochBefore + 1, epochMin);
    database.exec("begin immediate");
    for (const sql of migrations.slice(version)) database.exec(sql);
    database.exec(`pragma user_version = ${migrations.length}`);
    database.prepare("insert or replace into meta (key, value) values ('epoch', ?)").run(utf8(`${epoch}`));
    // What waited may have been sent since, and have ended: only its host knows.
    database.exec("update commands set set_back = 1 where state = 'waiting'");
    // What hosts delivered after the backup is gone: each one's next record may leave a hole, once.
    database.exec("update outboxes set restored = 1");
    // Indexes that were given out since then are not given out again: who followed is told that it missed something.
    const skipped = Math.min(epoch - epochBefore, epochsSkippedMax) * eventsOfEpoch;
    database.prepare("update sqlite_sequence set seq = seq + ? where name = 'events'").run(skipped);
    database
      .prepare("insert into events (at, topic, id, event) values (?, 'controller', ?, 'restored')")
      .run(at, `epoch-${epoch}`);
    database.exec("drop table backup_files; pragma application_id = 0; commit;");
    return { epoch, epochBefore, files };
  } finally {
    database.close();
    syncFile(target);
  }
}

/** @returns its version */
function check(database: DatabaseSync, file: string): number {
  const invalid = (why: string, cause?: unknown): BedplateError =>
    new BedplateError("state.backup-invalid", `${file} cannot be restored: ${why}.`, {
      hint: "Backups are made with `bedplate controller backup FILE`.",
      cause,
    });
  let version: number;
  try {
    const id = Number(database.prepare("pragma application_id").get()?.application_id);
    if (id !== applicationId) throw invalid("it is no backup of a controller");
    const sound = database.prepare("pragma integrity_check").get()?.integrity_check;
    if (sound !== "ok") throw invalid(`it is damaged (${String(sound)})`);
    version = Number(database.prepare("pragma user_version").get()?.user_version);
  } catch (error) {
    throw error instanceof BedplateError ? error : invalid("it is no backup, or is damaged", error);
  }
  if (version > migrations.length) {
    throw new BedplateError("state.newer", `${file} was made by a newer Bedplate (version ${version}).`, {
      hint: "Restore it with that one.",
    });
  }
  if (version < 2) throw invalid("it was made before backups could be restored");
  return version;
}

function syncFile(path: string): void {
  const descriptor = openSync(path, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
