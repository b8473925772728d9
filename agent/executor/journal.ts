// The executor's durable store: every operation with its document, its events, and what it must remember across runs.
import { createHash } from "node:crypto";
import type { AuditHead } from "../../protocol/audit.ts";
import { type Effect, isTerminal, type OperationState } from "../../protocol/commands.ts";
import { limits } from "../../protocol/limits.ts";
import type { Notes } from "../commands/command.ts";
import type { ExecutorEvent } from "../door/contract.ts";
import { openDatabase } from "./journal-schema.ts";
import { type Store, storeOf } from "./transactions.ts";
import { type TrustTables, trustTables } from "./trust-tables.ts";

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
  /** The signatures that it was accepted with, armored. */
  readonly signatures: readonly string[];
  /** Whether a run has passed the point of no return. */
  readonly noReturn: boolean;
}

/** With the host's id that it was signed for, where its entry is there. */
export type SignedHead = AuditHead & { readonly host?: string };

export interface NewOperation {
  readonly id: string;
  readonly digest: Uint8Array;
  readonly document: Uint8Array;
  readonly kind: string;
  readonly effect: Effect;
  readonly epoch: number;
  readonly generation: number;
  readonly signatures: readonly string[];
  readonly at: number;
}

export interface Journal extends TrustTables, Pick<Store, "atomically" | "exclusively">, Disposable {
  operation(id: string): KnownOperation | undefined;
  /** Events with a number above `afterSeq`, in order. */
  events(id: string, afterSeq: number): readonly JournalledEvent[];
  /** Records an operation and its first event: accepted or refused. */
  add(operation: NewOperation, event: Extract<NewEvent, { type: "accepted" | "refused" }>): JournalledEvent;
  /** Records that a run starts. */
  startRun(id: string, at: number): JournalledEvent;
  finish(id: string, event: Extract<NewEvent, { type: "result" }>): JournalledEvent;
  setServer(id: string, server: "run" | "follow"): void;
  /** From here on the operation is past its point of no return, also in later runs. */
  setNoReturn(id: string): void;
  /** A state-changing operation other than `id` that is running, if any. */
  otherRunning(id: string): string | undefined;
  /** State-changing operations that were accepted and have not begun, in the order of their acceptance. */
  waiting(): readonly string[];
  /** Operations that must not be repeated and are running, or were when their executors died. */
  runningOnce(): readonly string[];
  /** Disks that operations of these kinds name which were accepted after `since`. */
  acceptedSince(kinds: readonly string[], since: number): number;
  /** The audit's heads in events that are not older than what is kept of it, newest first, at most `count`. */
  signedHeads(count: number): readonly SignedHead[];
  notes(id: string): Notes;
  /** Forgets operations that ended before `before`, and the oldest of the many that changed nothing. */
  prune(before: number): void;
}

const statesThatRun = "('accepted', 'running')";

/** @throws `executor.failed` when the store cannot be used */
export function openJournal(directory: string): Journal {
  return journalOf(storeOf(openDatabase(directory, "write")));
}

/** What people and tools may look at while executors use it. @throws `executor.failed` */
export function readJournal(
  directory: string,
): Pick<Journal, "fence" | "audit" | "auditHead" | "signedHeads" | "acceptedSince"> & Disposable {
  return journalOf(storeOf(openDatabase(directory, "read")));
}

/** Lower-case hexadecimal. */
export function sha256Hex(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

function journalOf(store: Store): Journal {
  const { sql, atomically } = store;
  const append = (id: string, event: NewEvent): JournalledEvent => {
    const seq =
      1 + Number(sql("SELECT coalesce(max(seq), 0) AS last FROM events WHERE operation = ?").get(id)!.last);
    const numbered = { ...event, seq } as JournalledEvent;
    sql("INSERT INTO events (operation, seq, json) VALUES (?, ?, ?)").run(id, seq, JSON.stringify(numbered));
    return numbered;
  };
  const move = (id: string, state: OperationState, at: number) => {
    sql("UPDATE operations SET state = ?, updated_at = ? WHERE id = ?").run(state, at, id);
  };
  return {
    ...trustTables(store, sha256Hex),
    atomically,
    exclusively: store.exclusively,
    operation(id) {
      const row = sql(
        "SELECT digest, effect, state, runs, server, signatures, no_return FROM operations WHERE id = ?",
      ).get(id);
      if (row === undefined) return undefined;
      const { no_return, signatures, ...rest } = row;
      return {
        ...(rest as unknown as Omit<KnownOperation, "signatures" | "noReturn">),
        signatures: JSON.parse(String(signatures)) as string[],
        noReturn: no_return === 1,
      };
    },
    events(id, afterSeq) {
      const rows = sql("SELECT json FROM events WHERE operation = ? AND seq > ? ORDER BY seq").all(
        id,
        afterSeq,
      );
      return rows.map((row) => JSON.parse(String(row.json)) as JournalledEvent);
    },
    add: ({ id, digest, document, kind, effect, epoch, generation, signatures, at }, event) =>
      atomically(() => {
        sql(
          `INSERT INTO operations (id, digest, document, kind, effect, state, runs, server, epoch, generation, signatures, created_at, updated_at)
           VALUES (?, ?, ?, ?, ?, ?, 0, 'run', ?, ?, ?, ?, ?)`,
        ).run(
          // What was refused may be anything, of any size: its digest is enough to know it again.
          ...[id, digest, event.type === "refused" ? new Uint8Array() : document, kind, effect, event.type],
          ...[epoch, generation, JSON.stringify(signatures)],
          ...[at, at],
        );
        return append(id, event);
      }),
    startRun: (id, at) =>
      atomically(() => {
        sql("UPDATE operations SET runs = runs + 1 WHERE id = ?").run(id);
        move(id, "running", at);
        const run = Number(sql("SELECT runs FROM operations WHERE id = ?").get(id)!.runs);
        return append(id, { type: "running", at, run });
      }),
    finish: (id, event) =>
      atomically(() => {
        move(id, event.result.outcome, event.at);
        // The good groups of a disk are of no use any more.
        sql("DELETE FROM notes WHERE operation = ?").run(id);
        return append(id, event);
      }),
    setServer(id, server) {
      sql("UPDATE operations SET server = ? WHERE id = ?").run(server, id);
    },
    setNoReturn(id) {
      sql("UPDATE operations SET no_return = 1 WHERE id = ?").run(id);
    },
    otherRunning(id) {
      const row = sql(
        `SELECT id FROM operations WHERE effect <> 'read' AND state IN ${statesThatRun} AND id <> ? ORDER BY state DESC, updated_at DESC LIMIT 1`,
      ).get(id);
      return row === undefined ? undefined : String(row.id);
    },
    waiting() {
      const rows = sql(
        "SELECT id FROM operations WHERE effect <> 'read' AND state = 'accepted' AND runs = 0 AND server = 'run' ORDER BY rowid",
      ).all();
      return rows.map(({ id }) => String(id));
    },
    runningOnce() {
      const rows = sql("SELECT id FROM operations WHERE effect = 'once' AND state = 'running'").all();
      return rows.map(({ id }) => String(id));
    },
    acceptedSince(kinds, since) {
      const row = sql(
        `SELECT sum(1 + coalesce(json_array_length(CAST(document AS TEXT), '$.arguments.also'), 0)) AS count
         FROM operations WHERE effect <> 'read' AND state <> 'refused' AND created_at > ?
         AND kind IN (SELECT value FROM json_each(?))`,
      ).get(since, JSON.stringify(kinds));
      return Number(row!.count ?? 0);
    },
    signedHeads(count) {
      const rows = sql(
        `SELECT json -> '$.audit' AS head, text ->> '$.detail.host' AS host
         FROM events LEFT JOIN audit ON audit.seq = json ->> '$.audit.seq'
         WHERE json ->> '$.audit.seq' >= (SELECT coalesce(max(seq), 0) FROM audit_anchor)
         ORDER BY json ->> '$.audit.seq' DESC LIMIT ?`,
      ).all(count);
      return rows.map(({ head, host }) => ({
        ...(JSON.parse(String(head)) as AuditHead),
        ...(typeof host === "string" ? { host } : {}),
      }));
    },
    notes: (id) => ({
      get(name) {
        const row = sql("SELECT value FROM notes WHERE operation = ? AND name = ?").get(id, name);
        return row?.value as Uint8Array | undefined;
      },
      set: (entries) =>
        atomically(() => {
          for (const [name, value] of Object.entries(entries)) {
            sql("INSERT OR REPLACE INTO notes (operation, name, value) VALUES (?, ?, ?)").run(
              id,
              name,
              value,
            );
          }
        }),
    }),
    prune(before) {
      // A clock that said 2000 and was set makes all that ended before it old at once.
      const old = sql(
        `SELECT id, state FROM operations WHERE updated_at < ? AND rowid NOT IN (SELECT rowid FROM operations
         WHERE effect <> 'read' AND state <> 'refused' ORDER BY rowid DESC LIMIT ?)`,
      ).all(before, endedKeptMin);
      for (const { id, state } of old) {
        if (isTerminal(state as OperationState)) sql("DELETE FROM operations WHERE id = ?").run(id!);
      }
      sql(
        `DELETE FROM operations WHERE rowid IN (SELECT rowid FROM operations
         WHERE (state = 'refused' AND signatures = '[]') OR (effect = 'read' AND state NOT IN ${statesThatRun})
         ORDER BY rowid DESC LIMIT -1 OFFSET ?)`,
      ).run(idleKeptMax);
    },
    [Symbol.dispose]: () => store[Symbol.dispose](),
  };
}

/** Refusals and reads that ended: whoever may ask for them without end must not fill the disk. What was signed has an end. */
export const idleKeptMax = 1000;

/** The newest operations that changed something are kept whatever their age. */
export const endedKeptMin = 128;

/** When operations that ended are forgotten. */
export const keptMs = 2 * limits.resultDaysKept * 86_400_000;
