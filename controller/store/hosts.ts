// Hosts in SQLite: how they stand, when they are connected, which machine has their key.
import { BedplateError } from "../../protocol/errors.ts";
import type { HostIdentity } from "../../protocol/identity.ts";
import type { Standing } from "../../protocol/schema.ts";
import { reduceStanding } from "../rules/standing.ts";
import { endCommandsOf } from "./commands.ts";
import type { Database, Row } from "./database.ts";
import type { PutEvent } from "./events.ts";
import { newestHeadOf, readHeads } from "./host-records.ts";
import type { HostStore, StoredHost } from "./host-store.ts";
import {
  chooseInstance,
  hasCopies,
  isCopy,
  noteInstance,
  noteInstances,
  seenInstances,
} from "./instances.ts";
import { insertHost, moveHistory, refuseToken } from "./joining.ts";
import { storeLimits } from "./store.ts";

const hosts = `select *,
    (select json_group_array(id) from hosts as former where former.replaced_by = hosts.id) as former,
    (select json_object('seq', seq, 'hash', hash, 'at', at) from audit_heads
      where host = hosts.id and attestation = hosts.attestation order by seq desc limit 1) as head
  from hosts`;
const eventNames = {
  approve: "approved",
  reject: "rejected",
  revoke: "revoked",
  quarantine: "quarantined",
  release: "released",
} as const;

export function sqliteHosts(database: Database, put: PutEvent): HostStore {
  const get = (id: string): StoredHost | undefined => {
    const row = database.one(`${hosts} where id = ?`, id);
    return row === undefined ? undefined : ofRow(row);
  };
  const ofRow = (row: Row): StoredHost => hostOfRow(database, row);
  const stand = (id: string, standing: Standing, at: number): void => {
    database.run("update hosts set standing = ?, standing_at = ? where id = ?", standing, at, id);
    if (standing === "revoked") endCommandsOf(database, put, id, at);
  };
  // The old key is revoked first, so nothing of it is open when its history moves.
  const takeOver = ({ id, takesOver }: StoredHost, at: number): string | null => {
    if (takesOver === null) return null;
    const old = get(takesOver)!;
    if (old.replacedBy !== null) {
      throw new BedplateError("enrol.token-used", `Another key took the place of ${old.name} meanwhile.`, {
        hint: "Reject this one, and make a new token if it is the right machine.",
      });
    }
    if (old.standing !== "revoked") {
      stand(old.id, "revoked", at);
      put({ topic: "host", id: old.id, event: "revoked" }, at);
    }
    moveHistory(database, old, id);
    put({ topic: "host", id, event: "replaced" }, at);
    return old.id;
  };
  return {
    async get(id) {
      return get(id);
    },
    async find(reference) {
      const exact = database.one(
        `${hosts} where id = ?1 or name = ?1 order by id = ?1 desc limit 1`,
        reference,
      );
      if (exact !== undefined && exact.id === reference) return [ofRow(exact)];
      const named = exact === undefined ? [] : [exact];
      if (!/^[0-9a-f]{6,63}$/.test(reference)) return named.map(ofRow);
      // A host names itself when it joins: one that takes the beginning of another's id for its name is not that one.
      const begun = database.all(`${hosts} where id >= ? and id < ? limit 2`, reference, `${reference}g`);
      return [...named, ...begun.filter(({ id }) => id !== exact?.id)].slice(0, 2).map(ofRow);
    },
    async list() {
      return database.all(`${hosts} order by name`).map(ofRow);
    },
    async count() {
      return Number(database.one("select count(*) as count from hosts")!.count);
    },
    async join(request) {
      return database.transaction(() => {
        const token = database.one("select * from join_tokens where id = ?", request.token.id);
        const refusal = refuseToken(database, token, request);
        if (refusal !== undefined) return { status: refusal };
        const known = get(request.host);
        if (known === undefined) insertHost(database, token!, request);
        database.run(
          "insert or ignore into join_token_uses (token, host, at) values (?, ?, ?)",
          request.token.id,
          request.host,
          request.at,
        );
        if (known !== undefined) return { status: "known", host: known, replaced: null };
        put({ topic: "host", id: request.host, event: "joined" }, request.at);
        const joined = get(request.host)!;
        if (joined.standing === "pending")
          put({ topic: "host", id: request.host, event: "pending" }, request.at);
        const replaced = joined.standing === "approved" ? takeOver(joined, request.at) : null;
        return { status: "joined", host: get(request.host)!, replaced };
      });
    },
    async setStanding(id, event, at) {
      return database.transaction(() => {
        const before = get(id);
        if (before === undefined) return undefined;
        const standing = reduceStanding(before, event);
        if (standing === before.standing) return { host: before, replaced: null };
        stand(id, standing, at);
        put({ topic: "host", id, event: eventNames[event.type] }, at);
        const replaced = standing === "approved" ? takeOver(before, at) : null;
        return { host: get(id)!, replaced };
      });
    },
    async rename(id, name, at) {
      return database.transaction(() => {
        const owner = database.one("select id from hosts where name = ?", name)?.id;
        if (owner !== undefined && owner !== id) return "taken";
        if (owner === undefined) {
          database.run("update hosts set name = ? where id = ?", name, id);
          put({ topic: "host", id, event: "renamed" }, at);
        }
        return "renamed";
      });
    },
    async connected(host, session, facts, at) {
      return database.transaction(() => {
        const { standing, identity } = get(host)!;
        const copy = isCopy(database, host, facts.instance, facts.bootId);
        const known = { standing, copy, identity, newestHead: newestHeadOf(database, host) };
        if (standing === "revoked" || copy) return { records: 0, samples: 0, ...known };
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
        return { records: Number(marks.records), samples: Number(marks.samples), ...known };
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
    async isCopy(host, { instance, bootId }) {
      return isCopy(database, host, instance, bootId);
    },
    async quarantine(host, instances, at) {
      return database.transaction(() => {
        const before = get(host)!;
        const standing = reduceStanding(before, { type: "quarantine" });
        if (standing !== before.standing) {
          stand(host, standing, at);
          put({ topic: "host", id: host, event: eventNames.quarantine }, at);
        }
        if (standing !== "revoked") noteInstances(database, put, { host, instances, at });
        return get(host)!;
      });
    },
    async release(host, named, at) {
      return database.transaction(() => {
        const before = get(host);
        if (before === undefined) return undefined;
        const quarantined = before.standing === "quarantined";
        // Who chose wrong chooses again: then the machine that is taken for the true one now is a copy after all.
        if (!quarantined) {
          if (!hasCopies(database, host)) reduceStanding(before, { type: "release" });
          noteInstance(database, host, { ...before, address: "" }, at);
        }
        const chosen = chooseInstance(database, host, named, at);
        if (quarantined) stand(host, reduceStanding(before, { type: "release" }), at);
        put({ topic: "host", id: host, event: eventNames.release }, at);
        return { host: get(host)!, chosen };
      });
    },
    async knowsAuthority(host, sha256) {
      await database.transaction(() =>
        database.run("update hosts set authority = ? where id = ?", sha256, host),
      );
    },
    async auditHeads(host, limit) {
      return readHeads(database, host, limit);
    },
    async countSeen(since) {
      return Number(
        database.one(
          "select count(*) as count from hosts where standing <> 'revoked' and last_seen_at >= ?",
          since,
        )!.count,
      );
    },
  };
}

function hostOfRow(database: Database, row: Row): StoredHost {
  const standing = row.standing as Standing;
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
    standing,
    instances:
      standing === "quarantined" || standing === "pending" ? seenInstances(database, String(row.id)) : [],
    identity:
      row.identity === null
        ? null
        : {
            identity: JSON.parse(String(row.identity)) as HostIdentity,
            digest: String(row.identity_digest),
            since: Number(row.identity_since),
          },
    auditHead: row.head === null ? null : (JSON.parse(String(row.head)) as StoredHost["auditHead"]),
    auditFault: row.audit_fault as string | null,
    authority: String(row.authority),
    standingAt: Number(row.standing_at),
    takesOver: row.takes_over as string | null,
    replacedBy: row.replaced_by as string | null,
    formerIds: JSON.parse(String(row.former)) as string[],
  };
}
