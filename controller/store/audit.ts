// Who called what of the API from where, in SQLite.
import type { Database } from "./database.ts";
import type { AuditStore } from "./store.ts";

export function sqliteAudit(database: Database): AuditStore {
  return {
    async append(entry) {
      await database.transaction(() =>
        database.run(
          "insert into audit (at, token, token_name, address, method, route, object, status, code) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
          entry.at,
          entry.token.id,
          entry.token.name,
          entry.address,
          entry.method,
          entry.route,
          entry.object,
          entry.status,
          entry.code,
        ),
      );
    },
    async list(limit) {
      return database.all("select * from audit order by number desc limit ?", limit).map((row) => ({
        index: Number(row.number),
        at: Number(row.at),
        token: { id: String(row.token), name: String(row.token_name) },
        address: String(row.address),
        method: String(row.method),
        route: String(row.route),
        object: row.object as string | null,
        status: Number(row.status),
        code: row.code as string | null,
      }));
    },
    async prune(before, keep) {
      database.run(
        "delete from audit where at < ? or number <= (select coalesce(max(number), 0) from audit) - ?",
        before,
        keep,
      );
    },
  };
}
