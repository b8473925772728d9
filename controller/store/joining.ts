// How a host gets its place, in SQLite: by a join token, with a name of its own, or in the place of another host.
import { timingSafeEqual } from "node:crypto";
import { limits } from "../../protocol/limits.ts";
import { isWithin } from "../rules/cidr.ts";
import { standingAtJoin } from "../rules/standing.ts";
import type { Database, Row } from "./database.ts";
import type { JoinAnswer, JoinRequest, StoredHost } from "./host-store.ts";

/** Why the token lets this key not in; undefined when it does. */
export function refuseToken(
  database: Database,
  token: Row | undefined,
  request: JoinRequest,
): Exclude<JoinAnswer["status"], "joined" | "known"> | undefined {
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
  if (token.revoked_at !== null) return "token-invalid";
  // By the clock as it is: one that has jumped ahead ends a token, never prolongs it.
  if (Number(token.expires_at) <= request.at) return "token-expired";
  if (token.cidr !== null && !isWithin(String(token.cidr), request.address)) return "address-denied";
  const used = Number(
    database.one("select count(*) as used from join_token_uses where token = ?", request.token.id)!.used,
  );
  if (used >= Number(token.uses)) return "token-used";
  // Another key took that host's place since the token was made.
  if (
    token.for_host !== null &&
    database.one("select replaced_by from hosts where id = ?", token.for_host as string)?.replaced_by !== null
  )
    return "token-used";
  return undefined;
}

export function insertHost(database: Database, token: Row, request: JoinRequest): void {
  database.run(
    "insert into hosts (id, name, link_key, hostname, instance, boot_id, agent_version, joined_at, changed_at, last_seen_at, standing_at, standing, takes_over) values (?, ?, ?, ?, ?, ?, ?, ?8, ?8, ?8, ?8, ?, ?)",
    request.host,
    freeName(database, request.name, request.host),
    request.linkKey,
    request.hostname,
    request.instance,
    request.bootId,
    request.agentVersion,
    request.at,
    standingAtJoin(token.approve as "auto" | "manual"),
    token.for_host as string | null,
  );
}

// A name is taken once: a second host of the same name gets a piece of its id after it, as long as needed.
function freeName(database: Database, wished: string, id: string): string {
  const taken = (name: string): boolean =>
    database.one("select 1 from hosts where name = ?", name) !== undefined;
  if (!taken(wished)) return wished;
  for (let length = 6; length < id.length; length += 2) {
    const suffix = `-${id.slice(0, length)}`;
    const name = `${wished.slice(0, limits.nameLengthMax - suffix.length)}${suffix}`;
    if (!taken(name)) return name;
  }
  return id;
}

/** Name, commands and telemetry go to the new key. What the old one's outbox said stays with it: it counts no more. */
export function moveHistory(database: Database, old: StoredHost, id: string): void {
  database.run("update hosts set name = ? where id = ?", freeName(database, old.name, old.id), old.id);
  database.run(
    "update hosts set name = ?, generation = max(generation, ?), series = iif(series = 0, ?, series), batches = batches + ?, gaps = gaps + ?, last_batch_at = coalesce(last_batch_at, ?) where id = ?",
    old.name,
    old.generation,
    old.series,
    old.batches,
    old.gaps,
    old.lastBatchAt,
    id,
  );
  database.run("update commands set host = ? where host = ?", id, old.id);
  database.run(
    "insert into telemetry (host, minute, data) select ?, minute, data from telemetry where host = ? on conflict do update set data = cast(excluded.data || data as blob)",
    id,
    old.id,
  );
  database.run("delete from telemetry where host = ?", old.id);
  // A dictionary that both have stays with the old key, where its batches still find it.
  database.run("update or ignore dictionaries set host = ? where host = ?", id, old.id);
  database.run("update hosts set replaced_by = ?1 where id = ?2 or replaced_by = ?2", id, old.id);
  database.run("update hosts set takes_over = null where id = ?", id);
}
