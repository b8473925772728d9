// One SQLite file: opened alone, migrated, with prepared statements and transactions.
import { closeSync, fdatasync, openSync } from "node:fs";
import { backup, DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { promisify } from "node:util";
import { assert, BedplateError } from "../../protocol/errors.ts";
import { sharedRun } from "../../protocol/shared-run.ts";
import { migrations } from "./migrations.ts";

export type Row = Readonly<Record<string, SQLInputValue>>;
export type Value = SQLInputValue;

const syncData = promisify(fdatasync);
/** Pages of the log before they are brought into the file: that waits for the disk, so not too often. */
const checkpointPages = 4000;

export class Database {
  readonly #database: DatabaseSync;
  /** The write-ahead log: it holds every commit, and is synced by us so that nothing else waits for the disk. */
  readonly #log: number;
  readonly #durable: () => Promise<void>;
  readonly #onBroken: (error: Error) => never;
  readonly #statements = new Map<string, StatementSync>();
  #inTransaction = false;
  #afterCommit: (() => void)[] = [];

  /**
   * @param onBroken called when the disk failed to take what was committed: nobody knows then what it holds
   * @throws `state.in-use`, `state.newer`
   */
  constructor(path: string, onBroken: (error: Error) => void = endProcess) {
    this.#onBroken = (error) => {
      onBroken(error);
      throw error;
    };
    this.#database = new DatabaseSync(path, { timeout: 1000 });
    try {
      // Exclusive: a second controller on the same directory must not start. FULL until the log itself is there for good.
      this.#database.exec(
        "pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on;",
      );
      this.#migrate(path);
      // A commit then costs no sync of the disk on this thread; `transaction` awaits one that commits share.
      this.#database.exec(`pragma synchronous = normal; pragma wal_autocheckpoint = ${checkpointPages};`);
      const log = openSync(`${path}-wal`, "r");
      this.#log = log;
      this.#durable = sharedRun(() => syncData(log));
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

  /** Row by row; nothing else may use the same statement before the end. */
  each(sql: string, ...values: Value[]): Iterable<Row> {
    return this.#prepared(sql).iterate(...values) as Iterable<Row>;
  }

  /** @returns the number of rows changed */
  run(sql: string, ...values: Value[]): number {
    return Number(this.#prepared(sql).run(...values).changes);
  }

  /**
   * Runs `action` whole or not at all, now; it must not wait for anything. What it did is durable when the promise
   * resolves, and only then are those told who wait for the commit.
   */
  async transaction<T>(action: () => T): Promise<T> {
    const { answer, after } = this.#commit(action);
    await this.#durable().catch(this.#onBroken);
    for (const act of after) act();
    return answer;
  }

  #commit<T>(action: () => T): { answer: T; after: readonly (() => void)[] } {
    assert(!this.#inTransaction, "no transaction within a transaction");
    this.#database.exec("begin immediate");
    this.#inTransaction = true;
    try {
      const answer = action();
      this.#database.exec("commit");
      return { answer, after: this.#afterCommit };
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("rollback");
      throw error;
    } finally {
      this.#afterCommit = [];
      this.#inTransaction = false;
    }
  }

  /** Calls `action` once the transaction that runs now is durable. */
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
    closeSync(this.#log);
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
      this.#commit(() => this.#database.exec(`${sql}; pragma user_version = ${index + 1}`));
    }
    // Also when there was nothing to do: this write, synced, puts the log itself safely into its directory.
    this.#commit(() => this.#database.exec(`pragma user_version = ${migrations.length}`));
  }
}

/** As what is impossible does: whoever watches over the process starts it anew, from what the disk then has. */
function endProcess(error: Error): void {
  queueMicrotask(() => {
    throw new Error("the controller's state could not be brought to the disk", { cause: error });
  });
}
