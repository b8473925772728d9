// Commands, in SQLite: the document as bytes, the state as the reducer left it.
import { createHash } from "node:crypto";
import { equalBytes } from "../../protocol/bytes.ts";
import {
  effectOf,
  isCommandKind,
  isTerminal,
  type OperationState,
  type Result,
} from "../../protocol/commands.ts";
import { assert } from "../../protocol/errors.ts";
import {
  type CommandEvent,
  type CommandState,
  eventOf,
  newCommandState,
  reduceCommand,
} from "../commands/reduce.ts";
import type { Database, Row, Value } from "./database.ts";
import type { PutEvent } from "./events.ts";
import { type CommandStore, type StoredCommand, storeLimits } from "./store.ts";

export function sqliteCommands(database: Database, put: PutEvent): CommandStore {
  return {
    async create(command) {
      const digest = createHash("sha256").update(command.document).digest();
      return database.transaction(() => {
        const known = database.one("select * from commands where id = ?", command.id);
        if (known !== undefined) {
          return {
            status: equalBytes(known.digest as Uint8Array, digest) ? "known" : "conflict",
            command: commandOfRow(known),
          };
        }
        if (database.one("select standing from hosts where id = ?", command.host)?.standing === "revoked")
          return { status: "revoked" };
        const open = Number(
          database.one("select count(*) as open from commands where host = ? and open = 1", command.host)!
            .open,
        );
        if (open >= storeLimits.openCommandsMax) return { status: "full" };
        const state = newCommandState(command.at);
        database.run(
          "insert into commands (id, host, kind, mode, document, digest, signatures, created_at, not_after, state, open, updated_at, runs, history) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, 0, ?)",
          command.id,
          command.host,
          command.kind,
          command.mode,
          command.document,
          digest,
          JSON.stringify(command.signatures),
          command.at,
          command.notAfter,
          state.state,
          state.updatedAt,
          JSON.stringify(state.history),
        );
        put({ topic: "command", id: command.id, event: state.state }, command.at);
        return { status: "created", command: getCommand(database, command.id)! };
      });
    },
    async get(id) {
      return getCommand(database, id);
    },
    async list(filter) {
      const conditions: string[] = [];
      const values: Value[] = [];
      for (const [column, value] of [
        ["host", filter.host],
        ["state", filter.state],
      ] as const) {
        if (value === undefined) continue;
        conditions.push(`${column} = ?`);
        values.push(value);
      }
      const where = conditions.length === 0 ? "" : `where ${conditions.join(" and ")}`;
      return database
        .all(`select * from commands ${where} order by number desc limit ?`, ...values, filter.limit)
        .map(commandOfRow);
    },
    async open(host) {
      return database
        .all(
          "select id, cancel_requested_at from commands where host = ?1 and open = 1 and exists (select 1 from hosts where id = ?1 and standing = 'approved') order by number",
          host,
        )
        .map((row) => ({
          id: String(row.id),
          cancelRequestedAt: row.cancel_requested_at as number | null,
        }));
    },
    async expired(at) {
      return database
        .all(
          "select id from commands where state = 'waiting' and not_after is not null and not_after < ? limit 1000",
          at,
        )
        .map((row) => String(row.id));
    },
    async apply(id, event, at) {
      return database.transaction(() => applyToCommand(database, put, id, event, at));
    },
    async offer(id, at) {
      return database.transaction(() => {
        const command = getCommand(database, id);
        if (command === undefined || isTerminal(command.state)) return undefined;
        if (!isApproved(database, command.host)) return undefined;
        if (command.generation === null) {
          const before = Number(
            database.one("select generation from hosts where id = ?", command.host)!.generation,
          );
          const generation = changesState(command) ? before + 1 : before;
          const set = database.run(
            "update hosts set generation = ? where id = ? and generation = ?",
            generation,
            command.host,
            before,
          );
          assert(set === 1, "a generation is compared and set within one transaction");
          database.run("update commands set generation = ? where id = ?", generation, id);
        }
        return applyToCommand(database, put, id, { type: "offered" }, at);
      });
    },
    async counts() {
      return new Map(
        database
          .all("select state, count(*) as commands from commands group by state")
          .map((row) => [row.state as OperationState, Number(row.commands)]),
      );
    },
  };
}

/** Reduces one event into a command and appends what the API tells of it, within the transaction that runs now. */
export function applyToCommand(
  database: Database,
  put: PutEvent,
  id: string,
  event: CommandEvent,
  at: number,
): StoredCommand | undefined {
  const before = getCommand(database, id);
  if (before === undefined) return undefined;
  const after: CommandState = reduceCommand(before, event, at);
  if (after === before) return before;
  database.run(
    "update commands set state = ?, open = ?, updated_at = ?, cancel_requested_at = ?, runs = ?, result = ?, history = ? where id = ?",
    after.state,
    isTerminal(after.state) ? 0 : 1,
    after.updatedAt,
    after.cancelRequestedAt,
    after.runs,
    after.result === null ? null : JSON.stringify(after.result),
    JSON.stringify(after.history),
    id,
  );
  const name = eventOf(before, after);
  if (name !== undefined) put({ topic: "command", id, event: name }, at);
  return { ...before, ...after };
}

function changesState({ kind, mode }: StoredCommand): boolean {
  return isCommandKind(kind) && effectOf({ kind, mode: mode === "plan" ? "plan" : "apply" }) !== "read";
}

/** Ends every open command of a host that nothing more will be heard of, within the transaction that runs now. */
export function endCommandsOf(database: Database, put: PutEvent, host: string, at: number): void {
  for (const row of database.all("select id from commands where host = ? and open = 1 order by number", host))
    applyToCommand(database, put, String(row.id), { type: "revoke" }, at);
}

export function isApproved(database: Database, host: string): boolean {
  return database.one("select standing from hosts where id = ?", host)?.standing === "approved";
}

/** The host that a command is for; undefined when there is no such command. */
export function hostOfCommand(database: Database, id: string): string | undefined {
  return database.one("select host from commands where id = ?", id)?.host as string | undefined;
}

function getCommand(database: Database, id: string): StoredCommand | undefined {
  const row = database.one("select * from commands where id = ?", id);
  return row === undefined ? undefined : commandOfRow(row);
}

function commandOfRow(row: Row): StoredCommand {
  return {
    id: String(row.id),
    host: String(row.host),
    kind: String(row.kind),
    mode: String(row.mode),
    document: Uint8Array.from(row.document as Uint8Array),
    signatures: JSON.parse(String(row.signatures)) as string[],
    createdAt: Number(row.created_at),
    notAfter: row.not_after as number | null,
    generation: row.generation as number | null,
    state: row.state as OperationState,
    updatedAt: Number(row.updated_at),
    cancelRequestedAt: row.cancel_requested_at as number | null,
    runs: Number(row.runs),
    result: row.result === null ? null : (JSON.parse(String(row.result)) as Result),
    history: JSON.parse(String(row.history)) as StoredCommand["history"],
  };
}
