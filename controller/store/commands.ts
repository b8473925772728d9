// Commands, in SQLite: the document as bytes, the state as the reducer left it.
import { createHash } from "node:crypto";
import { equalBytes } from "../../protocol/bytes.ts";
import type { OperationState } from "../../protocol/commands.ts";
import { holding } from "../rules/holding.ts";
import { newCommandState } from "../rules/reduce.ts";
import { addSignature, oneOfEachKey } from "../rules/signatures.ts";
import { applyToCommand, commandOfRow, getCommand, standingOf } from "./command-rows.ts";
import type { CommandStore, NewCommand, StoredCommand } from "./command-store.ts";
import type { Database, Row, Value } from "./database.ts";
import { readEpoch } from "./epoch.ts";
import type { PutEvent } from "./events.ts";
import { endedCount } from "./held.ts";
import { offerDue } from "./offers.ts";
import { readOutput } from "./outputs.ts";
import { storeLimits } from "./store.ts";

export function sqliteCommands(database: Database, put: PutEvent): CommandStore {
  return {
    async create(command, session) {
      const digest = createHash("sha256").update(command.document).digest();
      return database.transaction(() => {
        const known = database.one("select * from commands where id = ?", command.id);
        if (known !== undefined) {
          const status = equalBytes(known.digest as Uint8Array, digest) ? "known" : "conflict";
          return { status, command: commandOfRow(known) };
        }
        if (standingOf(database, command.host) === "revoked") return { status: "revoked" };
        if (openCount(database, command.host) >= storeLimits.openCommandsMax) return { status: "full" };
        if (endedCount(database, command.host) >= holding.hostCommandsMax) return { status: "too-many-kept" };
        insert(database, put, command, digest);
        const due =
          session === undefined
            ? ({ steps: [], rest: "none", epoch: readEpoch(database) } as const)
            : offerDue(database, put, command.host, session, command.at);
        return { status: "created", command: getCommand(database, command.id)!, due };
      });
    },
    async get(id) {
      return getCommand(database, id);
    },
    async standing(id) {
      const row = database.one("select open from commands where id = ?", id);
      if (row === undefined) return "unknown";
      return Number(row.open) === 1 ? "open" : "ended";
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
      const found: StoredCommand[] = [];
      let bytes = 0;
      for (const row of database.each(
        `select * from commands ${where} order by number desc limit ?`,
        ...values,
        filter.limit,
      )) {
        const command = commandOfRow(row);
        bytes += command.document.length + String(row.result ?? "").length;
        if (found.length > 0 && bytes > (filter.bytesMax ?? Number.POSITIVE_INFINITY)) break;
        found.push(command);
      }
      return found;
    },
    async offerDue(host, session, at) {
      return database.transaction(() => offerDue(database, put, host, session, at));
    },
    async cancelling(host) {
      return database
        .all(
          "select id from commands where host = ? and open = 1 and state <> 'waiting' and cancel_requested_at is not null order by number",
          host,
        )
        .map(({ id }) => String(id));
    },
    async sign(id, signature) {
      return database.transaction(() => {
        const command = getCommand(database, id);
        if (command === undefined) return undefined;
        const added = addSignature(command, signature);
        if (added.status !== "added") return { status: added.status, command };
        database.run(
          "update commands set signatures = ?, updated_at = ? where id = ?",
          JSON.stringify(added.signatures),
          signature.addedAt,
          id,
        );
        put({ topic: "command", id, event: "signed" }, signature.addedAt);
        return { status: "added", command: getCommand(database, id)! };
      });
    },
    async expired(at, takenBefore) {
      const missing = "id, max(0, signatures_wanted - json_array_length(signatures)) as missing";
      const own = database.all(
        `select ${missing} from commands where state = 'waiting' and set_back = 0 and not_after is not null and not_after < ? limit 1000`,
        at,
      );
      const waited = database.all(
        `select ${missing} from commands where state = 'waiting' and created_at < ? limit 1000`,
        takenBefore,
      );
      const each = (limit: "own" | "waited") => (row: Row) => ({
        ...{ id: String(row.id), missing: Number(row.missing), limit },
      });
      // One that is both is told twice; the first counts.
      return [...own.map(each("own")), ...waited.map(each("waited"))];
    },
    async forget(before, limit) {
      return database.transaction(() => {
        const old = database.all(
          "select id from commands where open = 0 and updated_at < ? order by updated_at limit ?",
          before,
          limit,
        );
        for (const { id } of old) {
          database.run("delete from outputs where command = ?", id as string);
          database.run("delete from commands where id = ?", id as string);
        }
        return old.length;
      });
    },
    async apply(id, event, at) {
      return database.transaction(() => applyToCommand(database, put, id, event, at));
    },
    async output(id, after, bytesMax) {
      return readOutput(database, id, after, bytesMax);
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

/** Ends every open command of a host that nothing more will be heard of, within the transaction that runs now. */
export function endCommandsOf(database: Database, put: PutEvent, host: string, at: number): void {
  for (const row of database.all("select id from commands where host = ? and open = 1 order by number", host))
    applyToCommand(database, put, String(row.id), { type: "revoke" }, at);
}

function openCount(database: Database, host: string): number {
  return Number(
    database.one("select count(*) as open from commands where host = ? and open = 1", host)!.open,
  );
}

function insert(database: Database, put: PutEvent, command: NewCommand, digest: Uint8Array): void {
  const state = newCommandState(command.at);
  database.run(
    "insert into commands (id, host, kind, mode, document, digest, signatures, signatures_wanted, created_at, not_after, state, open, updated_at, runs, history) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, 0, ?)",
    command.id,
    command.host,
    command.kind,
    command.mode,
    command.document,
    digest,
    JSON.stringify(oneOfEachKey(command.signatures)),
    command.signaturesWanted,
    command.at,
    command.notAfter,
    state.state,
    state.updatedAt,
    JSON.stringify(state.history),
  );
  put({ topic: "command", id: command.id, event: state.state }, command.at);
}
