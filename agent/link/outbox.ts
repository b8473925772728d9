// What must not be lost: operations this host was given and records that the controller has not yet stored, in SQLite. What
// a change means is decided in outbox-rules.ts; this keeps it, and tells nobody of what a power cut could take back.
import { DatabaseSync } from "node:sqlite";
import { isTerminal, type OperationState } from "../../protocol/commands.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { openSyncedFile } from "../host/synced-file.ts";
import {
  acknowledged,
  committed,
  isAnswered,
  type KeptOffer,
  type KeptOperation,
  type OutboxChange,
  type OutboxNumbers,
  opened,
  resumed,
} from "./outbox-rules.ts";

export interface OutboxRecord {
  readonly seq: number;
  readonly at: number;
  readonly body: RecordBody;
}

export interface Outbox extends Disposable {
  readonly recordCount: number;
  readonly recordBytes: number;
  /** Of those, records of programs' output. */
  readonly outputBytes: number;
  operation(id: string): (KeptOperation & { readonly answered: boolean }) | undefined;
  /** Operations that have not ended, oldest first. */
  openOperations(): KeptOperation[];
  /** Applies all changes in one transaction. @throws what SQLite says, for example of a full disk: then none is applied */
  commit(changes: readonly OutboxChange[], at: number): void;
  /** Queues a record that belongs to no operation. */
  append(body: RecordBody, at: number): void;
  /** Records above `seq` that are durable: what a power cut could take back is not told to anyone. */
  after(seq: number, count: number): OutboxRecord[];
  /** Resolves when all that was queued before the call is durable. */
  synced(): Promise<void>;
  /** What has no room on a full disk even to be forgotten is forgotten with the next that is acknowledged. */
  acknowledge(seq: number): void;
  /** A session begins, and the controller has stored records up to `stored`. */
  resume(stored: number): void;
  /** Forgets operations that ended before. */
  prune(endedBefore: number): void;
}

export interface OutboxListeners {
  /** More records may be sent. */
  onDurable?(): void;
  /** The controller has stored some: there is more room. */
  onAcknowledged?(): void;
}

/** Pages of the log before they are brought into the file: that waits for the disk, so not too often. */
const checkpointPages = 4000;
/** Cancels of what was never offered are remembered, but a controller cannot fill the disk with them. */
const tombstonesMax = 10_000;
const tombstonesSlack = 1000;
const schemaVersion = 2;

/** SQLITE_FULL: https://sqlite.org/rescode.html#full */
const sqliteFull = 13;

/** Whether the disk has no room now, of an error that was thrown here. */
export function isDiskFull(error: unknown): boolean {
  return error instanceof Error && "errcode" in error && (Number(error.errcode) & 0xff) === sqliteFull;
}

/** A disk that fails to sync ends the agent. */
export function openOutbox(file: string, listeners: OutboxListeners = {}): Outbox {
  const db = openDatabase(file);
  const log = openSyncedFile(`${file}-wal`);
  // What a killed agent left in it was perhaps not synced.
  log.syncNow();
  const get = db.prepare("SELECT * FROM operations WHERE id = ?");
  const open = db.prepare("SELECT * FROM operations WHERE ended = 0 ORDER BY rowid");
  const put = db.prepare(
    `INSERT INTO operations (id, state, ended, event_seq, output_end, ending, ending_seq, document, rest, changed_at)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state, ended = excluded.ended,
       event_seq = excluded.event_seq, output_end = excluded.output_end, ending = excluded.ending,
       ending_seq = excluded.ending_seq, document = excluded.document, rest = excluded.rest, changed_at = excluded.changed_at`,
  );
  const setNumbers = db.prepare("UPDATE numbers SET highest = ?, told = ?, linked = ?");
  const add = db.prepare("INSERT INTO records (seq, at, bytes, output, body) VALUES (?, ?, ?, ?, ?)");
  const list = db.prepare(
    "SELECT seq, at, body FROM records WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
  );
  const sums = db.prepare(
    "SELECT COUNT(*) AS count, COALESCE(SUM(bytes), 0) AS bytes, COALESCE(SUM(output * bytes), 0) AS output FROM records WHERE seq <= ?",
  );
  const remove = db.prepare("DELETE FROM records WHERE seq <= ?");
  const lowest = db.prepare("SELECT MIN(seq) AS seq FROM records");
  const prune = db.prepare("DELETE FROM operations WHERE ended = 1 AND changed_at < ?");
  const pruneTombstones = db.prepare(
    `DELETE FROM operations WHERE id IN (SELECT id FROM operations WHERE rest = 'null' ORDER BY changed_at DESC LIMIT -1 OFFSET ${tombstonesMax})`,
  );

  const sumsUpTo = (seq: number) => sums.get(seq) as { count: number; bytes: number; output: number };
  let numbers = opened(readNumbers());
  let totals = sumsUpTo(numbers.highest);
  writeNumbers(numbers);
  let tombstones = Number(
    db.prepare("SELECT COUNT(*) AS count FROM operations WHERE rest = 'null'").get()!.count,
  );
  let durableSeq = numbers.highest;
  /** Transactions so far; those that are durable; the one before which nothing may be sent. */
  const commits = { made: 0, durable: 0, telling: 0 };
  let closed = false;

  function readNumbers(): OutboxNumbers {
    const row = db.prepare("SELECT * FROM numbers").get()!;
    const highest = row.highest as number;
    const first = lowest.get()!.seq as number | null;
    return {
      acknowledged: first === null ? highest : first - 1,
      highest,
      told: row.told as number,
      linked: row.linked === 1,
    };
  }
  function writeNumbers({ highest, told, linked }: OutboxNumbers): void {
    setNumbers.run(highest, told, linked ? 1 : 0);
  }

  const sync = async () => {
    const upTo = { seq: numbers.highest, made: commits.made };
    await log.sync();
    if (closed || upTo.made <= commits.durable) return;
    commits.durable = upTo.made;
    // Numbers that were raised meanwhile count from their own transaction on.
    if (commits.telling <= upTo.made) durableSeq = Math.max(durableSeq, upTo.seq);
    listeners.onDurable?.();
  };

  const atomically = (work: () => void) => {
    db.exec("BEGIN IMMEDIATE");
    try {
      work();
      db.exec("COMMIT");
    } catch (error) {
      // A full disk undoes it by itself.
      if (db.isTransaction) db.exec("ROLLBACK");
      throw error;
    }
    commits.made += 1;
  };
  // Not caught: after a sync that failed nobody knows what the disk holds, and the process must start anew.
  const syncSoon = () => void sync();

  const operationOf = (id: string) => operationOfRow(get.get(id));
  const commit = (changes: readonly OutboxChange[], at: number) => {
    const after = committed(numbers, operationOf, changes);
    let { count, bytes, output } = totals;
    atomically(() => {
      for (const operation of after.operations.values()) put.run(...rowOf(operation, at));
      for (const { seq, body } of after.records) {
        const text = JSON.stringify(body);
        const isOutput = body.type === "output" ? 1 : 0;
        add.run(seq, at, text.length, isOutput, text);
        count += 1;
        bytes += text.length;
        output += isOutput * text.length;
      }
      if (after.records.length > 0) writeNumbers(after.numbers);
    });
    numbers = after.numbers;
    totals = { count, bytes, output };
    tombstones += changes.filter(({ change }) => change === "tombstone").length;
    if (tombstones > tombstonesMax + tombstonesSlack) tombstones -= Number(pruneTombstones.run().changes);
    if (after.records.length > 0) syncSoon();
  };

  const acknowledge = (seq: number) => {
    const after = acknowledged(numbers, seq);
    if (after === numbers) return;
    const gone = sumsUpTo(after.acknowledged);
    try {
      atomically(() => remove.run(after.acknowledged));
    } catch (error) {
      if (isDiskFull(error)) return;
      throw error;
    }
    numbers = after;
    totals = less(totals, gone);
    listeners.onAcknowledged?.();
  };

  return {
    get recordCount() {
      return totals.count;
    },
    get recordBytes() {
      return totals.bytes;
    },
    get outputBytes() {
      return totals.output;
    },
    operation(id) {
      const operation = operationOf(id);
      return operation && { ...operation, answered: isAnswered(operation, numbers) };
    },
    openOperations: () => open.all().map((row) => operationOfRow(row)!),
    commit,
    append: (body, at) => commit([{ change: "record", body }], at),
    after(seq, count) {
      if (commits.durable < commits.telling) return [];
      return list.all(seq, durableSeq, count).map((row) => ({
        seq: row.seq as number,
        at: row.at as number,
        body: JSON.parse(row.body as string) as RecordBody,
      }));
    },
    acknowledge,
    resume(stored) {
      const { numbers: after, forget, shift } = resumed(numbers, stored);
      // Nothing is news but what was stored: a full disk keeps nobody from talking.
      if (shift === 0 && numbers.linked) {
        const before = numbers;
        acknowledge(stored);
        if (numbers === before) listeners.onAcknowledged?.();
        return;
      }
      const gone = sumsUpTo(forget);
      atomically(() => {
        remove.run(forget);
        if (shift !== 0) {
          // By way of numbers that are free: SQLite checks each row by itself.
          db.prepare("UPDATE records SET seq = -seq").run();
          db.prepare("UPDATE records SET seq = ? - seq").run(shift);
          db.prepare("UPDATE operations SET ending_seq = ending_seq + ?1 WHERE ending_seq > ?2").run(
            shift,
            numbers.acknowledged,
          );
        }
        writeNumbers(after);
      });
      // Before it is durable that a session began, and with which numbers, the session hears nothing.
      commits.telling = commits.made;
      if (shift !== 0) durableSeq = stored;
      numbers = after;
      totals = less(totals, gone);
      syncSoon();
      listeners.onAcknowledged?.();
    },
    synced: sync,
    prune: (endedBefore) => void prune.run(endedBefore),
    [Symbol.dispose]() {
      closed = true;
      db.close();
      log.close();
    },
  };
}

function openDatabase(file: string): DatabaseSync {
  const db = new DatabaseSync(file);
  db.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA busy_timeout = 5000;
    CREATE TABLE IF NOT EXISTS operations (
      id TEXT PRIMARY KEY, state TEXT NOT NULL, ended INTEGER NOT NULL, event_seq INTEGER NOT NULL,
      document BLOB NOT NULL, rest TEXT NOT NULL, changed_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS records (
      seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, bytes INTEGER NOT NULL, body TEXT NOT NULL
    ) STRICT;
  `);
  if (Number(db.prepare("PRAGMA user_version").get()!.user_version) < schemaVersion) {
    // Of a file made before, nobody knows what was told: so all of it may have been.
    db.exec(`
      BEGIN IMMEDIATE;
      ALTER TABLE operations ADD COLUMN output_end INTEGER NOT NULL DEFAULT 0;
      ALTER TABLE operations ADD COLUMN ending TEXT;
      ALTER TABLE operations ADD COLUMN ending_seq INTEGER NOT NULL DEFAULT 0;
      ALTER TABLE records ADD COLUMN output INTEGER NOT NULL DEFAULT 0;
      CREATE TABLE numbers (highest INTEGER NOT NULL, told INTEGER NOT NULL, linked INTEGER NOT NULL) STRICT;
      INSERT INTO numbers SELECT COALESCE(MAX(seq), 0), 0, 1 FROM sqlite_sequence WHERE name = 'records';
      PRAGMA user_version = ${schemaVersion};
      COMMIT;
    `);
  }
  // The schema was written with FULL, so the log is safely in its directory. From now on a commit does not wait for the
  // disk on this thread, which has a link to serve: one sync of the log, awaited elsewhere, makes many durable.
  db.exec(`PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = ${checkpointPages};`);
  return db;
}

interface Totals {
  readonly count: number;
  readonly bytes: number;
  readonly output: number;
}

function less(all: Totals, some: Totals): Totals {
  return { count: all.count - some.count, bytes: all.bytes - some.bytes, output: all.output - some.output };
}

type Row = [string, string, number, number, number, string | null, number, Uint8Array, string, number];

function rowOf(operation: KeptOperation, at: number): Row {
  const { id, state, eventSeq, outputEnd, ending, endingSeq, offer } = operation;
  const { document, ...rest } = offer ?? { document: new Uint8Array() };
  return [
    ...([id, state, isTerminal(state) ? 1 : 0, eventSeq, outputEnd] as const),
    ending === null ? null : JSON.stringify(ending),
    endingSeq,
    document,
    offer === null ? "null" : JSON.stringify(rest),
    at,
  ];
}

function operationOfRow(row: Record<string, unknown> | undefined): KeptOperation | undefined {
  if (row === undefined) return undefined;
  const rest = JSON.parse(row.rest as string) as Omit<KeptOffer, "document"> | null;
  return {
    id: row.id as string,
    state: row.state as OperationState,
    eventSeq: row.event_seq as number,
    outputEnd: row.output_end as number,
    ending: row.ending === null ? null : (JSON.parse(row.ending as string) as RecordBody),
    endingSeq: row.ending_seq as number,
    offer: rest === null ? null : { ...rest, document: row.document as Uint8Array },
  };
}
