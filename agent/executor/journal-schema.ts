// The journal's tables, and how a journal of an older version is brought to this one in one transaction.
import { DatabaseSync } from "node:sqlite";
import { BedplateError } from "../../protocol/errors.ts";
import { syncDirectory } from "../host/files.ts";

export const schemaVersion = 2;
/** How long to wait for another executor's transaction: they take milliseconds. */
const busyMs = 10_000;

/** What leads from version N to N + 1, at N. */
const steps: readonly string[] = [
  `
  CREATE TABLE operations (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL, document BLOB NOT NULL, kind TEXT NOT NULL, effect TEXT NOT NULL,
    state TEXT NOT NULL, runs INTEGER NOT NULL, server TEXT NOT NULL, epoch INTEGER NOT NULL, generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE events (
    operation TEXT NOT NULL REFERENCES operations ON DELETE CASCADE, seq INTEGER NOT NULL, json TEXT NOT NULL, PRIMARY KEY (operation, seq)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE notes (
    operation TEXT NOT NULL REFERENCES operations ON DELETE CASCADE, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (operation, name)
  ) STRICT;
  `,
  // What operators signed is kept with the operation; fence, plans and audit outlive every operation. The fence begins
  // where version 1 had brought it: the highest epoch, and the last generation within it.
  `
  ALTER TABLE operations ADD COLUMN signatures TEXT NOT NULL DEFAULT '[]';
  ALTER TABLE operations ADD COLUMN no_return INTEGER NOT NULL DEFAULT 0;
  CREATE TABLE fence (
    one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, generation INTEGER NOT NULL, digest TEXT NOT NULL
  ) STRICT;
  INSERT INTO fence (one, epoch, generation, digest)
    SELECT 1, epoch, generation, lower(hex(digest)) FROM operations WHERE effect <> 'read' AND state <> 'refused'
    ORDER BY epoch DESC, generation DESC, created_at DESC LIMIT 1;
  CREATE TABLE plans (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, digest TEXT NOT NULL, arguments TEXT NOT NULL, text TEXT NOT NULL,
    issued_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, used_by TEXT
  ) STRICT;
  CREATE TABLE audit (seq INTEGER PRIMARY KEY, text TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
  CREATE TABLE audit_anchor (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL) STRICT;
  `,
];

/**
 * @param access `read`: nothing of it is changed, not even its version
 * @throws `executor.failed` when the store cannot be used
 */
export function openDatabase(directory: string, access: "read" | "write"): DatabaseSync {
  try {
    const database = new DatabaseSync(`${directory}/journal.db`, {
      timeout: busyMs,
      enableForeignKeyConstraints: true,
      readOnly: access === "read",
    });
    if (access === "read") {
      const version = versionOf(database);
      if (version === schemaVersion) return database;
      database.close();
      throw new Error(`it is of schema ${version}, and this program reads ${schemaVersion}`);
    }
    // FULL: a commit is on the disk when it returns, also through a power cut.
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
    if (versionOf(database) !== schemaVersion) migrate(database);
    syncDirectory(directory);
    return database;
  } catch (cause) {
    throw new BedplateError(
      "executor.failed",
      `The journal in ${directory} cannot be used: ${(cause as Error).message}.`,
      { cause },
    );
  }
}

function migrate(database: DatabaseSync): void {
  database.exec("BEGIN IMMEDIATE");
  try {
    // Read again: another executor may have been here in between.
    const version = versionOf(database);
    if (version > schemaVersion) throw new Error(`it was made by a newer version (schema ${version})`);
    for (const step of steps.slice(version)) database.exec(step);
    database.exec(`PRAGMA user_version = ${schemaVersion}; COMMIT;`);
  } catch (error) {
    database.exec("ROLLBACK");
    throw error;
  }
}

function versionOf(database: DatabaseSync): number {
  return Number(database.prepare("PRAGMA user_version").get()!.user_version);
}
