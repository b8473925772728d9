// Hosts and their joining, in SQLite.
import { timingSafeEqual } from "node:crypto";
import { limits } from "../../protocol/limits.ts";
import type { Database, Row } from "./database.ts";
import type { PutEvent } from "./events.ts";
import { type HostStore, type JoinRequest, type StoredHost, storeLimits } from "./store.ts";

export function sqliteHosts(database: Database, put: PutEvent): HostStore {
  const get = (id: string): StoredHost | undefined => {
    const row = database.one("select * from hosts where id = ?", id);
    return row === undefined ? undefined : hostOfRow(row);
  };
  return {
    async get(id) {
      return get(id);
    },
    async find(reference) {
      const exact = database.one(
        "select * from hosts where id = ?1 or name = ?1 order by id = ?1 desc limit 1",
        reference,
      );
      if (exact !== undefined) return [hostOfRow(exact)];
      if (!/^[0-9a-f]{6,63}$/.test(reference)) return [];
      return database
        .all("select * from hosts where id >= ? and id < ? limit 2", reference, `${reference}g`)
        .map(hostOfRow);
    },
    async list() {
      return database.all("select * from hosts order by name").map(hostOfRow);
    },
    async join(request) {
      return database.transaction(() => {
        const refusal = refuseToken(database, request);
        if (refusal !== undefined) return { status: refusal };
        const known = get(request.host);
        if (known === undefined) insert(database, request);
        database.run(
          "insert or ignore into join_token_uses (token, host, at) values (?, ?, ?)",
          request.token.id,
          request.host,
          request.at,
        );
        if (known !== undefined) return { status: "known", host: known };
        put({ topic: "host", id: request.host, event: "joined" }, request.at);
        return { status: "joined", host: get(request.host)! };
      });
    },
    async connected(host, session, facts, at) {
      return database.transaction(() => {
        database.run(
          "update hosts set online = 1, session = ?, changed_at = iif(online = 1, changed_at, ?), last_seen_at = ?, instance = ?, boot_id = ?, hostname = ?, agent_version = ? where id = ?",
          session,
          at,
          at,
          facts.instance,
          facts.bootId,
          facts.hostname,
          facts.agentVersion,
          host,
        );
        database.run(
          "insert into outboxes (host, instance, used_at) values (?, ?, ?) on conflict do update set used_at = excluded.used_at",
          host,
          facts.instance,
          at,
        );
        database.run(
          "delete from outboxes where host = ?1 and instance not in (select instance from outboxes where host = ?1 order by used_at desc, instance = ?2 desc limit ?3)",
          host,
          facts.instance,
          storeLimits.instancesMax,
        );
        put({ topic: "host", id: host, event: "online" }, at);
        const marks = database.one(
          "select records, samples from outboxes where host = ? and instance = ?",
          host,
          facts.instance,
        )!;
        return { records: Number(marks.records), samples: Number(marks.samples) };
      });
    },
    async disconnected(host, session, at) {
      await database.transaction(() => {
        const changed = database.run(
          "update hosts set online = 0, changed_at = ?, last_seen_at = max(last_seen_at, ?) where id = ? and session = ? and online = 1",
          at,
          at,
          host,
          session,
        );
        if (changed > 0) put({ topic: "host", id: host, event: "offline" }, at);
      });
    },
    async forgetSessions() {
      await database.transaction(() => {
        for (const row of database.all("select id, last_seen_at from hosts where online = 1")) {
          put({ topic: "host", id: String(row.id), event: "offline" }, Number(row.last_seen_at));
        }
        database.run("update hosts set online = 0, session = '', changed_at = last_seen_at where online = 1");
      });
    },
  };
}

function refuseToken(
  database: Database,
  request: JoinRequest,
): "token-invalid" | "token-expired" | "token-used" | undefined {
  const token = database.one("select * from join_tokens where id = ?", request.token.id);
  // Hashes of fixed length, compared in constant time: neither secret nor hash leaks by timing.
  if (token === undefined || !timingSafeEqual(token.secret_hash as Uint8Array, request.token.secretHash))
    return "token-invalid";
  if (
    database.one(
      "select 1 from join_token_uses where token = ? and host = ?",
      request.token.id,
      request.host,
    ) !== undefined
  )
    return undefined;
  if (Number(token.expires_at) <= request.at) return "token-expired";
  const used = Number(
    database.one("select count(*) as used from join_token_uses where token = ?", request.token.id)!.used,
  );
  return used >= Number(token.uses) ? "token-used" : undefined;
}

function insert(database: Database, request: JoinRequest): void {
  database.run(
    "insert into hosts (id, name, link_key, hostname, instance, boot_id, agent_version, joined_at, changed_at, last_seen_at) values (?, ?, ?, ?, ?, ?, ?, ?8, ?8, ?8)",
    request.host,
    freeName(database, request),
    request.linkKey,
    request.hostname,
    request.instance,
    request.bootId,
    request.agentVersion,
    request.at,
  );
}

// A name is taken once: a second host of the same name gets a piece of its id after it, as long as needed.
function freeName(database: Database, request: JoinRequest): string {
  const taken = (name: string): boolean =>
    database.one("select 1 from hosts where name = ?", name) !== undefined;
  if (!taken(request.name)) return request.name;
  for (let length = 6; length < request.host.length; length += 2) {
    const suffix = `-${request.host.slice(0, length)}`;
    const name = `${request.name.slice(0, limits.nameLengthMax - suffix.length)}${suffix}`;
    if (!taken(name)) return name;
  }
  return request.host;
}

function hostOfRow(row: Row): StoredHost {
  return {
    id: String(row.id),
    name: String(row.name),
    linkKey: Uint8Array.from(row.link_key as Uint8Array),
    hostname: String(row.hostname),
    instance: String(row.instance),
    bootId: String(row.boot_id),
    agentVersion: String(row.agent_version),
    joinedAt: Number(row.joined_at),
    online: row.online === 1,
    changedAt: Number(row.changed_at),
    lastSeenAt: Number(row.last_seen_at),
    clockOffsetMs: row.clock_offset_ms as number | null,
    generation: Number(row.generation),
    series: Number(row.series),
    batches: Number(row.batches),
    gaps: Number(row.gaps),
    lastBatchAt: row.last_batch_at as number | null,
  };
}
