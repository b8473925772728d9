// Who called what of the API from where, in SQLite: a chain of hashes, pruned from its old end.
import type { AuditEntry } from "../../protocol/api.ts";
import { type AuditAnchor, nextChainLine } from "../../protocol/audit.ts";
import { assert } from "../../protocol/errors.ts";
import { type ChainedCall, readCall, sha256Hex } from "./audit-chain.ts";
import type { Database, Row } from "./database.ts";
import type { AuditCall, AuditStore } from "./store.ts";

export function sqliteAudit(database: Database): AuditStore {
  return {
    async append(call) {
      await database.transaction(() => appendCall(database, call));
    },
    async list(limit) {
      const chained = database
        .all("select text, hash from audit_lines order by seq desc limit ?", limit)
        .flatMap(entryOfLine);
      const older = database
        .all("select * from audit order by number desc limit ?", limit - chained.length)
        .map(entryOfRow);
      return [...chained, ...older];
    },
    async anchor() {
      return anchorOf(database);
    },
    async lines(after, limit) {
      return database
        .all("select seq, text, hash from audit_lines where seq > ? order by seq limit ?", after, limit)
        .map(({ seq, text, hash }) => ({ seq: Number(seq), text: String(text), hash: String(hash) }));
    },
    async prune(before, keep) {
      await database.transaction(() => {
        // From before the chain.
        database.run("delete from audit where at < ?", before);
        const firstKept = database.one(
          "select max(coalesce((select min(seq) from audit_lines where at >= ?1), newest + 1), newest - ?2 + 1) as seq from (select coalesce(max(seq), 0) as newest from audit_lines)",
          before,
          keep,
        )!.seq as number;
        const pruned = database.one(
          "select seq, hash from audit_lines where seq < ? order by seq desc limit 1",
          firstKept,
        );
        if (pruned === undefined) return;
        database.run("update audit_anchor set seq = ?, hash = ?", Number(pruned.seq), String(pruned.hash));
        database.run("delete from audit_lines where seq < ?", firstKept);
      });
    },
  };
}

/** Adds an entry within the transaction that runs now. */
export function appendCall(
  database: Database,
  { at, token, address, method, route, object, status, code }: AuditCall,
): void {
  const make = (seq: number, previous: string): ChainedCall => ({
    ...{ seq, at, token, address, method, route, object, status, code, previous },
  });
  const { seq, text, hash } = nextChainLine(lastOf(database), make, sha256Hex);
  assert(readCall(text) !== undefined, "an entry of the audit can be read again");
  database.run("insert into audit_lines (seq, at, text, hash) values (?, ?, ?, ?)", seq, at, text, hash);
}

function lastOf(database: Database): AuditAnchor {
  const newest = database.one("select seq, hash from audit_lines order by seq desc limit 1");
  return newest === undefined ? anchorOf(database) : anchorOfRow(newest);
}

function anchorOf(database: Database): AuditAnchor {
  return anchorOfRow(database.one("select seq, hash from audit_anchor")!);
}

function anchorOfRow({ seq, hash }: Row): AuditAnchor {
  return { seq: Number(seq), hash: String(hash) };
}

// An entry that was edited is shown as far as it can be read; whether it holds, the chain says.
function entryOfLine({ text, hash }: Row): AuditEntry[] {
  const entry = readCall(String(text));
  if (entry === undefined) return [];
  const { seq, previous: _, address = "", ...call } = entry;
  return [{ index: seq, ...call, address, hash: String(hash) }];
}

function entryOfRow(row: Row): AuditEntry {
  return {
    index: Number(row.number),
    at: Number(row.at),
    token: { id: String(row.token), name: String(row.token_name) },
    address: String(row.address),
    method: String(row.method),
    route: String(row.route),
    object: row.object as string | null,
    status: Number(row.status),
    code: row.code as string | null,
    hash: null,
  };
}
