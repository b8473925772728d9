// Join tokens and API tokens, hashed, in SQLite.

import type { Scope } from "../../protocol/api.ts";
import type { Database, Row } from "./database.ts";
import type { PutEvent } from "./events.ts";
import type { StoredJoinToken, StoredToken, TokenStore } from "./token-store.ts";

const listedMax = 1000;
const joinTokens =
  "select *, (select count(*) from join_token_uses where token = join_tokens.id) as used from join_tokens";

export function sqliteTokens(database: Database, put: PutEvent): TokenStore {
  const apiToken = (id: string): StoredToken | undefined => {
    const row = database.one("select * from api_tokens where id = ?", id);
    return row === undefined ? undefined : apiTokenOfRow(row);
  };
  return {
    async createJoinToken(token) {
      await database.transaction(() => {
        database.run(
          "insert into join_tokens (id, secret_hash, created_at, expires_at, uses, approve, for_host, cidr) values (?, ?, ?, ?, ?, ?, ?, ?)",
          token.id,
          token.secretHash,
          token.createdAt,
          token.expiresAt,
          token.uses,
          token.approve,
          token.forHost,
          token.cidr,
        );
        put({ topic: "join-token", id: token.id, event: "created" }, token.createdAt);
      });
    },
    async joinTokens() {
      return database
        .all(`${joinTokens} order by created_at desc, id limit ${listedMax}`)
        .map(joinTokenOfRow);
    },
    async revokeJoinToken(id, at) {
      return database.transaction(() => {
        const changed = database.run(
          "update join_tokens set revoked_at = ? where id = ? and revoked_at is null",
          at,
          id,
        );
        if (changed > 0) put({ topic: "join-token", id, event: "revoked" }, at);
        const row = database.one(`${joinTokens} where id = ?`, id);
        return row === undefined ? undefined : joinTokenOfRow(row);
      });
    },
    async createApiToken(token) {
      await database.transaction(() => {
        database.run(
          "insert into api_tokens (id, hash, scope, label, created_at, expires_at) values (?, ?, ?, ?, ?, ?)",
          token.id,
          token.hash,
          token.scope,
          token.label,
          token.createdAt,
          token.expiresAt,
        );
        put({ topic: "token", id: token.id, event: "created" }, token.createdAt);
      });
    },
    async apiToken(id) {
      return apiToken(id);
    },
    async apiTokens() {
      return database
        .all(`select * from api_tokens order by created_at desc, id limit ${listedMax}`)
        .map(apiTokenOfRow);
    },
    async useApiToken(id, at) {
      database.run("update api_tokens set last_used_at = ? where id = ?", at, id);
    },
    async revokeApiToken(id, at) {
      return database.transaction(() => {
        const changed = database.run(
          "update api_tokens set revoked_at = ? where id = ? and revoked_at is null",
          at,
          id,
        );
        if (changed > 0) put({ topic: "token", id, event: "revoked" }, at);
        return apiToken(id);
      });
    },
  };
}

function joinTokenOfRow(row: Row): StoredJoinToken {
  return {
    id: String(row.id),
    createdAt: Number(row.created_at),
    expiresAt: Number(row.expires_at),
    uses: Number(row.uses),
    used: Number(row.used),
    approve: row.approve as StoredJoinToken["approve"],
    forHost: row.for_host as string | null,
    cidr: row.cidr as string | null,
    revokedAt: row.revoked_at as number | null,
  };
}

function apiTokenOfRow(row: Row): StoredToken {
  return {
    id: String(row.id),
    hash: Uint8Array.from(row.hash as Uint8Array),
    scope: row.scope as Scope,
    label: String(row.label),
    createdAt: Number(row.created_at),
    expiresAt: row.expires_at as number | null,
    lastUsedAt: row.last_used_at as number | null,
    revokedAt: row.revoked_at as number | null,
  };
}
