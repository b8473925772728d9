// What must not be lost: operations this host was given and records that the controller has not yet stored, in SQLite.
import { DatabaseSync } from "node:sqlite";
import type { OperationState } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { openSyncedFile } from "../host/synced-file.ts";

/** An offer as it is kept, so that the executor can be started again without the controller. */
export interface KeptOffer {
  readonly document: Uint8Array;
  readonly signatures: readonly string[];
  readonly generation: number;
  readonly epoch: number;
  readonly sources: readonly { readonly url: string; readonly bearer?: string | undefined }[];
}

export interface KeptOperation {
  readonly id: string;
  readonly state: OperationState;
  /** The last event of the executor that became a record. */
  readonly eventSeq: number;
  readonly offer: KeptOffer;
}

export interface OutboxRecord {
  readonly seq: number;
  readonly at: number;
  readonly body: RecordBody;
}

export interface Outbox extends Disposable {
  readonly recordCount: number;
  readonly recordBytes: number;
  operation(id: string): KeptOperation | undefined;
  /** Operations that have not ended, oldest first. */
  openOperations(): KeptOperation[];
  /** Keeps the offer and queues "received", in one transaction. @throws `agent.outbox-full` */
  receive(id: string, offer: KeptOffer, at: number): void;
  /** Keeps an operation that has run its course here, with all its records, in one transaction. */
  complete(
    id: string,
    offer: KeptOffer,
    state: OperationState,
    bodies: readonly RecordBody[],
    at: number,
  ): void;
  /** A later offer of the same command brings fresh sources. */
  refresh(id: string, offer: KeptOffer): void;
  /** Queues a record and moves its operation on, in one transaction. An event seen before is ignored. */
  record(
    change: { readonly id: string; readonly state: OperationState; readonly eventSeq?: number },
    body: RecordBody,
    at: number,
  ): "queued" | "seen";
  /** Queues a record that belongs to no operation. */
  append(body: RecordBody, at: number): void;
  /** Records above `seq` that are durable: what a power cut could take back is not told to anyone. */
  after(seq: number, count: number): OutboxRecord[];
  /** Resolves when all that was queued before the call is durable. */
  synced(): Promise<void>;
  acknowledge(seq: number): void;
  /** A session begins, and the controller has stored records up to `stored`. */
  resume(stored: number): void;
  prune(endedBefore: number): void;
}

/** Pages of the log before they are brought into the file: that waits for the disk, so not too often. */
const checkpointPages = 4000;

/** `onDurable` is called when more records may be sent; a disk that fails to sync ends the agent. */
export function openOutbox(file: string, onDurable: () => void = () => {}): Outbox {
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
  // The schema was written with FULL, so the log is safely in its directory. From now on a commit does not wait for the
  // disk on this thread, which has a link to serve: one sync of the log, awaited elsewhere, makes many durable.
  db.exec(
    `PRAGMA user_version = 1; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = ${checkpointPages};`,
  );
  const log = openSyncedFile(`${file}-wal`);
  // What a killed agent left in it was perhaps not synced.
  log.syncNow();
  const get = db.prepare("SELECT * FROM operations WHERE id = ?");
  const open = db.prepare("SELECT * FROM operations WHERE ended = 0 ORDER BY rowid");
  const insert = db.prepare(
    "INSERT INTO operations (id, state, ended, event_seq, document, rest, changed_at) VALUES (?, 'received', 0, 0, ?, ?, ?)",
  );
  const refresh = db.prepare("UPDATE operations SET rest = ? WHERE id = ?");
  const move = db.prepare(
    "UPDATE operations SET state = ?, ended = ?, event_seq = MAX(event_seq, ?), changed_at = ? WHERE id = ?",
  );
  const add = db.prepare("INSERT INTO records (at, bytes, body) VALUES (?, ?, ?)");
  const list = db.prepare(
    "SELECT seq, at, body FROM records WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
  );
  const acknowledge = db.prepare("DELETE FROM records WHERE seq <= ?");
  const sums = db.prepare("SELECT COUNT(*) AS count, COALESCE(SUM(bytes), 0) AS bytes FROM records");
  const prune = db.prepare("DELETE FROM operations WHERE ended = 1 AND changed_at < ?");
  let totals = sums.get() as { count: number; bytes: number };
  const highestSeq = () =>
    (db.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'records'").get()?.seq as number | undefined) ??
    0;
  let durableSeq = highestSeq();
  let queuedSeq = durableSeq;
  let closed = false;

  const sync = async () => {
    const upTo = queuedSeq;
    await log.sync();
    if (closed || upTo <= durableSeq) return;
    durableSeq = upTo;
    onDurable();
  };

  const atomically = (work: () => void) => {
    db.exec("BEGIN IMMEDIATE");
    try {
      work();
      db.exec("COMMIT");
    } catch (error) {
      db.exec("ROLLBACK");
      throw error;
    } finally {
      totals = sums.get() as { count: number; bytes: number };
    }
    // Not caught: after a sync that failed nobody knows what the disk holds, and the process must start anew.
    if (queuedSeq > durableSeq) void sync();
  };
  const queue = (body: RecordBody, at: number) => {
    const text = JSON.stringify(body);
    queuedSeq = Number(add.run(at, text.length, text).lastInsertRowid);
  };

  return {
    get recordCount() {
      return totals.count;
    },
    get recordBytes() {
      return totals.bytes;
    },
    operation: (id) => operationOf(get.get(id)),
    openOperations: () => open.all().map((row) => operationOf(row)!),
    receive(id, offer, at) {
      // Room is kept for the result before the work is taken on: a result must never find the outbox full.
      if (totals.bytes + limits.resultBytesMax > limits.outboxRecordBytesMax) {
        throw new BedplateError(
          "agent.outbox-full",
          `${totals.count} records (${totals.bytes} bytes) wait for the controller; no new command is taken.`,
        );
      }
      atomically(() => {
        insert.run(id, offer.document, restOf(offer), at);
        queue({ type: "received", command: id }, at);
      });
    },
    complete: (id, offer, state, bodies, at) =>
      atomically(() => {
        insert.run(id, offer.document, restOf(offer), at);
        move.run(state, 1, 0, at, id);
        for (const body of bodies) queue(body, at);
      }),
    refresh: (id, offer) => void refresh.run(restOf(offer), id),
    record(change, body, at) {
      const known = operationOf(get.get(change.id));
      if (known !== undefined && change.eventSeq !== undefined && change.eventSeq <= known.eventSeq)
        return "seen";
      const ended = body.type === "result" || body.type === "refused" ? 1 : 0;
      atomically(() => {
        move.run(change.state, ended, change.eventSeq ?? 0, at, change.id);
        queue(body, at);
      });
      return "queued";
    },
    append: (body, at) => atomically(() => queue(body, at)),
    after: (seq, count) =>
      list.all(seq, durableSeq, count).map((row) => ({
        seq: row.seq as number,
        at: row.at as number,
        body: JSON.parse(row.body as string) as RecordBody,
      })),
    acknowledge: (seq) =>
      atomically(() => {
        acknowledge.run(seq);
      }),
    resume: (stored) =>
      atomically(() => {
        const highest = highestSeq();
        if (highest >= stored) {
          acknowledge.run(stored);
          return;
        }
        // This file is younger than what the controller knows of this host: go on from there, so that nothing is
        // taken for a repetition. Counted down, since each new number must be free.
        const waiting = db.prepare("SELECT seq FROM records ORDER BY seq DESC").all();
        const renumber = db.prepare("UPDATE records SET seq = ? WHERE seq = ?");
        for (const row of waiting) renumber.run((row.seq as number) + stored, row.seq as number);
        db.prepare("DELETE FROM sqlite_sequence WHERE name = 'records'").run();
        db.prepare("INSERT INTO sqlite_sequence (name, seq) VALUES ('records', ?)").run(highest + stored);
        queuedSeq = highest + stored;
      }),
    synced: sync,
    prune: (endedBefore) => void prune.run(endedBefore),
    [Symbol.dispose]() {
      closed = true;
      db.close();
      log.close();
    },
  };
}

function restOf(offer: KeptOffer): string {
  const { document: _, ...rest } = offer;
  return JSON.stringify(rest);
}

function operationOf(row: Record<string, unknown> | undefined): KeptOperation | undefined {
  if (row === undefined) return undefined;
  const rest = JSON.parse(row.rest as string) as Omit<KeptOffer, "document">;
  return {
    id: row.id as string,
    state: row.state as OperationState,
    eventSeq: row.event_seq as number,
    offer: { ...rest, document: row.document as Uint8Array },
  };
}
