// One connection to the journal: prepared statements, and transactions of which at most one is open.
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { assert, BedplateError } from "../../protocol/errors.ts";

export interface Store extends Disposable {
  /** A statement, prepared once. */
  sql(text: string): StatementSync;
  /** Runs `work` in a transaction: the one that is open, or one of its own, undone by what `work` throws. */
  atomically<T>(work: () => T): T;
  /** Runs `work` while no other process can begin the same: commits what it returns, undoes what it throws. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
}

export function storeOf(database: DatabaseSync): Store {
  const statements = new Map<string, StatementSync>();
  let inTransaction = false;
  const begin = () => {
    assert(!inTransaction, "one transaction at a time");
    try {
      database.exec("BEGIN IMMEDIATE");
    } catch (error) {
      throw tellFailure(error);
    }
    inTransaction = true;
  };
  const commit = () => {
    database.exec("COMMIT");
    inTransaction = false;
  };
  /** Also after a commit that failed: SQLite may have undone it by itself, or not. */
  const undone = (error: unknown) => {
    inTransaction = false;
    if (database.isTransaction) database.exec("ROLLBACK");
    return tellFailure(error);
  };
  return {
    sql(text) {
      const known = statements.get(text) ?? database.prepare(text);
      statements.set(text, known);
      return known;
    },
    atomically(work) {
      if (inTransaction) return work();
      begin();
      try {
        const result = work();
        commit();
        return result;
      } catch (error) {
        throw undone(error);
      }
    },
    async exclusively(work) {
      begin();
      try {
        const result = await work();
        commit();
        return result;
      } catch (error) {
        throw undone(error);
      }
    },
    [Symbol.dispose]: () => database.close(),
  };
}

/** SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL: the low byte of its extended codes (sqlite.org/rescode.html). */
const failing = [8, 10, 13];

/** A disk that is full or fails is no fault of this program: whoever asked is told what to do. */
function tellFailure(error: unknown): unknown {
  const { errcode, errstr } = error as { readonly errcode?: number; readonly errstr?: string };
  if (errcode === undefined || !failing.includes(errcode & 0xff)) return error;
  return new BedplateError("executor.failed", `The executor's journal cannot be written: ${errstr}.`, {
    hint: "Its disk, that of the executor's state directory, is full or fails: make room on it, or see the kernel's log.",
    details: { sqlite: errcode },
    cause: error,
  });
}
