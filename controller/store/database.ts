// One SQLite file: opened alone, migrated, with prepared statements and transactions.
import { backup, DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { assert, BedplateError } from "../../protocol/errors.ts";
import { migrations } from "./migrations.ts";

export type Row = Readonly<Record<string, SQLInputValue>>;
export type Value = SQLInputValue;

export class Database {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #inTransaction = false;
  #afterCommit: (() => void)[] = [];

  /** @throws `state.in-use`, `state.newer` */
  constructor(path: string) {
    this.#database = new DatabaseSync(path, { timeout: 1000 });
    try {
      // Exclusive: a second controller on the same directory must not start. WAL with FULL: durable at each commit.
      this.#database.exec(
        "pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on;",
      );
      this.#migrate(path);
    } catch (cause) {
      this.#database.close();
      if (cause instanceof Error && "errcode" in cause && cause.errcode === 5) {
        throw new BedplateError("state.in-use", `Another controller has ${path} open.`, {
          hint: "Stop it, or give this one another state directory.",
          cause,
        });
      }
      throw cause;
    }
  }

  one(sql: string, ...values: Value[]): Row | undefined {
    return this.#prepared(sql).get(...values) as Row | undefined;
  }

  all(sql: string, ...values: Value[]): readonly Row[] {
    return this.#prepared(sql).all(...values) as Row[];
  }

  /** @returns the number of rows changed */
  run(sql: string, ...values: Value[]): number {
    return Number(this.#prepared(sql).run(...values).changes);
  }

  /** Runs `action` whole or not at all. It must not wait for anything. */
  transaction<T>(action: () => T): T {
    assert(!this.#inTransaction, "no transaction within a transaction");
    this.#database.exec("begin immediate");
    this.#inTransaction = true;
    let answer: T;
    try {
      answer = action();
      this.#database.exec("commit");
    } catch (error) {
      this.#afterCommit = [];
      if (this.#database.isTransaction) this.#database.exec("rollback");
      throw error;
    } finally {
      this.#inTransaction = false;
    }
    const after = this.#afterCommit;
    this.#afterCommit = [];
    for (const act of after) act();
    return answer;
  }

  /** Calls `action` once the transaction that runs now has been committed. */
  afterCommit(action: () => void): void {
    assert(this.#inTransaction, "within a transaction");
    if (!this.#afterCommit.includes(action)) this.#afterCommit.push(action);
  }

  /** Copies the whole into the SQLite file at `path`, as it is at one moment; transactions go on meanwhile. */
  async backup(path: string): Promise<void> {
    await backup(this.#database, path);
  }

  close(): void {
    this.#statements.clear();
    this.#database.close();
  }

  #prepared(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #migrate(path: string): void {
    const version = Number((this.#database.prepare("pragma user_version").get() as Row).user_version);
    if (version > migrations.length) {
      throw new BedplateError(
        "state.newer",
        `${path} has version ${version}; this Bedplate knows versions up to ${migrations.length}.`,
        {
          hint: "Run the newer Bedplate that wrote it, or restore a backup.",
        },
      );
    }
    for (const [index, sql] of migrations.entries()) {
      if (index < version) continue;
      this.transaction(() => this.#database.exec(`${sql}; pragma user_version = ${index + 1}`));
    }
  }
}
