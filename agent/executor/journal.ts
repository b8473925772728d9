// The executor's durable store: every operation with its document, its events, and what it must remember across runs.
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { type Effect, isTerminal, type OperationState } from "../../protocol/commands.ts";
import { assert, BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import type { Notes } from "../commands/command.ts";
import { syncDirectory } from "../host/files.ts";
import type { ExecutorEvent } from "./contract.ts";

/** An event that is replayed: it has a number within its operation. */
export type JournalledEvent = Extract<ExecutorEvent, { seq: number }>;
export type NewEvent = JournalledEvent extends infer E
  ? E extends { seq: number }
    ? Omit<E, "seq">
    : never
  : never;

export interface KnownOperation {
  /** SHA-256 of the document's bytes. */
  readonly digest: Uint8Array;
  readonly effect: Effect;
  readonly state: OperationState;
  /** Times it was started. */
  readonly runs: number;
  /** Whether the process that has its socket only replays. */
  readonly server: "run" | "follow";
}

export interface NewOperation {
  readonly id: string;
  readonly digest: Uint8Array;
  readonly document: Uint8Array;
  readonly kind: string;
  readonly effect: Effect;
  readonly epoch: number;
  readonly generation: number;
  readonly at: number;
}

export interface Journal extends Disposable {
  /** Runs `work` while no other process can begin the same: commits what it returns, undoes what it throws. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  operation(id: string): KnownOperation | undefined;
  /** Events with a number above `afterSeq`, in order. */
  events(id: string, afterSeq: number): readonly JournalledEvent[];
  /** Records an operation and its first event: accepted or refused. */
  add(operation: NewOperation, event: Extract<NewEvent, { type: "accepted" | "refused" }>): JournalledEvent;
  /** Records that a run starts. */
  startRun(id: string, at: number): JournalledEvent;
  finish(id: string, event: Extract<NewEvent, { type: "result" }>): JournalledEvent;
  setServer(id: string, server: "run" | "follow"): void;
  /** The highest epoch of any state-changing command that was accepted. */
  epochSeen(): number;
  /** A state-changing operation other than `id` that is running, if any. */
  otherRunning(id: string): string | undefined;
  notes(id: string): Notes;
  /** Forgets operations that ended before `before`. */
  prune(before: number): void;
}

const schema = `
  CREATE TABLE IF NOT EXISTS operations (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL, document BLOB NOT NULL, kind TEXT NOT NULL, effect TEXT NOT NULL,
    state TEXT NOT NULL, runs INTEGER NOT NULL, server TEXT NOT NULL, epoch INTEGER NOT NULL, generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS events (
    operation TEXT NOT NULL REFERENCES operations ON DELETE CASCADE, seq INTEGER NOT NULL, json TEXT NOT NULL, PRIMARY KEY (operation, seq)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS notes (
    operation TEXT NOT NULL REFERENCES operations ON DELETE CASCADE, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (operation, name)
  ) STRICT;
`;
const schemaVersion = 1;
/** How long to wait for another executor's transaction: they take milliseconds. */
const busyMs = 10_000;
const statesThatRun = "('accepted', 'running')";

/** @throws `executor.failed` when the store cannot be used */
export function openJournal(directory: string): Journal {
  let database: DatabaseSync;
  try {
    database = new DatabaseSync(`${directory}/journal.db`, {
      timeout: busyMs,
      enableForeignKeyConstraints: true,
    });
    // FULL: a commit is on the disk when it returns, also through a power cut.
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
    const version = Number(database.prepare("PRAGMA user_version").get()!.user_version);
    if (version > schemaVersion) throw new Error(`it was made by a newer version (schema ${version})`);
    database.exec(`BEGIN IMMEDIATE; ${schema} PRAGMA user_version = ${schemaVersion}; COMMIT;`);
    syncDirectory(directory);
  } catch (cause) {
    throw new BedplateError(
      "executor.failed",
      `The journal in ${directory} cannot be used: ${(cause as Error).message}.`,
      { cause },
    );
  }
  return journalOf(database);
}

function journalOf(database: DatabaseSync): Journal {
  const statements = new Map<string, StatementSync>();
  const prepared = (sql: string) => {
    const known = statements.get(sql) ?? database.prepare(sql);
    statements.set(sql, known);
    return known;
  };
  let inTransaction = false;
  const begin = () => {
    assert(!inTransaction, "one transaction at a time");
    database.exec("BEGIN IMMEDIATE");
    inTransaction = true;
  };
  const end = (how: "COMMIT" | "ROLLBACK") => {
    inTransaction = false;
    database.exec(how);
  };
  const atomically = <T>(work: () => T): T => {
    if (inTransaction) return work();
    begin();
    try {
      const result = work();
      end("COMMIT");
      return result;
    } catch (error) {
      if (inTransaction) end("ROLLBACK");
      throw error;
    }
  };
  const append = (id: string, event: NewEvent): JournalledEvent => {
    const seq =
      1 +
      Number(prepared("SELECT coalesce(max(seq), 0) AS last FROM events WHERE operation = ?").get(id)!.last);
    const numbered = { ...event, seq } as JournalledEvent;
    prepared("INSERT INTO events (operation, seq, json) VALUES (?, ?, ?)").run(
      id,
      seq,
      JSON.stringify(numbered),
    );
    return numbered;
  };
  const move = (id: string, state: OperationState, at: number) => {
    prepared("UPDATE operations SET state = ?, updated_at = ? WHERE id = ?").run(state, at, id);
  };
  return {
    async exclusively(work) {
      begin();
      try {
        const result = await work();
        end("COMMIT");
        return result;
      } catch (error) {
        if (inTransaction) end("ROLLBACK");
        throw error;
      }
    },
    operation(id) {
      const row = prepared("SELECT digest, effect, state, runs, server FROM operations WHERE id = ?").get(id);
      return row as unknown as KnownOperation | undefined;
    },
    events(id, afterSeq) {
      const rows = prepared("SELECT json FROM events WHERE operation = ? AND seq > ? ORDER BY seq").all(
        id,
        afterSeq,
      );
      return rows.map((row) => JSON.parse(String(row.json)) as JournalledEvent);
    },
    add: ({ id, digest, document, kind, effect, epoch, generation, at }, event) =>
      atomically(() => {
        prepared(
          `INSERT INTO operations (id, digest, document, kind, effect, state, runs, server, epoch, generation, created_at, updated_at)
           VALUES (?, ?, ?, ?, ?, ?, 0, 'run', ?, ?, ?, ?)`,
        ).run(id, digest, document, kind, effect, event.type, epoch, generation, at, at);
        return append(id, event);
      }),
    startRun: (id, at) =>
      atomically(() => {
        prepared("UPDATE operations SET runs = runs + 1 WHERE id = ?").run(id);
        move(id, "running", at);
        const run = Number(prepared("SELECT runs FROM operations WHERE id = ?").get(id)!.runs);
        return append(id, { type: "running", at, run });
      }),
    finish: (id, event) =>
      atomically(() => {
        move(id, event.result.outcome, event.at);
        // The good groups of a disk are of no use any more.
        prepared("DELETE FROM notes WHERE operation = ?").run(id);
        return append(id, event);
      }),
    setServer(id, server) {
      prepared("UPDATE operations SET server = ? WHERE id = ?").run(server, id);
    },
    epochSeen() {
      const row = prepared(
        "SELECT coalesce(max(epoch), 0) AS epoch FROM operations WHERE effect <> 'read' AND state <> 'refused'",
      ).get();
      return Number(row!.epoch);
    },
    otherRunning(id) {
      const row = prepared(
        `SELECT id FROM operations WHERE effect <> 'read' AND state IN ${statesThatRun} AND id <> ? ORDER BY updated_at DESC LIMIT 1`,
      ).get(id);
      return row === undefined ? undefined : String(row.id);
    },
    notes: (id) => ({
      get(name) {
        const row = prepared("SELECT value FROM notes WHERE operation = ? AND name = ?").get(id, name);
        return row?.value as Uint8Array | undefined;
      },
      set: (entries) =>
        atomically(() => {
          for (const [name, value] of Object.entries(entries)) {
            prepared("INSERT OR REPLACE INTO notes (operation, name, value) VALUES (?, ?, ?)").run(
              id,
              name,
              value,
            );
          }
        }),
    }),
    prune(before) {
      const old = prepared("SELECT id, state FROM operations WHERE updated_at < ?").all(before);
      for (const { id, state } of old) {
        if (isTerminal(state as OperationState)) prepared("DELETE FROM operations WHERE id = ?").run(id!);
      }
    },
    [Symbol.dispose]: () => database.close(),
  };
}

/** When operations that ended are forgotten. */
export const keptMs = 2 * limits.resultDaysKept * 86_400_000;
