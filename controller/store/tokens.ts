// Join tokens and API tokens, hashed, in SQLite.
import type { Database } from "./database.ts";
import type { Scope, TokenStore } from "./store.ts";

export function sqliteTokens(database: Database): TokenStore {
  return {
    async createJoinToken(token) {
      database.run(
        "insert into join_tokens (id, secret_hash, created_at, expires_at, uses) values (?, ?, ?, ?, ?)",
        token.id,
        token.secretHash,
        token.createdAt,
        token.expiresAt,
        token.uses,
      );
    },
    async createApiToken(token) {
      database.run(
        "insert into api_tokens (id, hash, scope, label, created_at, expires_at) values (?, ?, ?, ?, ?, ?)",
        token.id,
        token.hash,
        token.scope,
        token.label,
        token.createdAt,
        token.expiresAt,
      );
    },
    async apiToken(id) {
      const row = database.one("select * from api_tokens where id = ?", id);
      if (row === undefined) return undefined;
      return {
        id,
        hash: Uint8Array.from(row.hash as Uint8Array),
        scope: row.scope as Scope,
        label: String(row.label),
        createdAt: Number(row.created_at),
        expiresAt: row.expires_at as number | null,
      };
    },
  };
}
