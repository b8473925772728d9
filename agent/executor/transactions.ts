// One connection to the journal: prepared statements, and transactions of which at most one is open.
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { assert } from "../../protocol/errors.ts";

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
    database.exec("BEGIN IMMEDIATE");
    inTransaction = true;
  };
  const end = (how: "COMMIT" | "ROLLBACK") => {
    inTransaction = false;
    database.exec(how);
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
        end("COMMIT");
        return result;
      } catch (error) {
        if (inTransaction) end("ROLLBACK");
        throw error;
      }
    },
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
    [Symbol.dispose]: () => database.close(),
  };
}
