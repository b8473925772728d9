// What a host says of itself in a record, applied within the transaction that runs now: identity and audit heads.
import type { AuditHead } from "../../protocol/audit.ts";
import { headFinding, judgeHead } from "../../protocol/audit-heads.ts";
import { assert } from "../../protocol/errors.ts";
import type { HostIdentity } from "../../protocol/identity.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { parsePublicKey } from "../../protocol/ssh-keys.ts";
import { raiseAlarm } from "./alarms.ts";
import type { Database, Row } from "./database.ts";
import type { PutEvent } from "./events.ts";
import type { KeptHead } from "./host-store.ts";
import type { IncomingRecord } from "./record-store.ts";
import { storeLimits } from "./store.ts";

export type HostRecordBody = Extract<RecordBody, { type: "identity" | "audit-head" }>;

/** An audit that does not hold is told of once in so long, however many records say it. */
const faultRepeatMs = 3_600_000;

/** @returns why the record has no effect; undefined when it has one */
export function applyHostRecord(
  database: Database,
  put: PutEvent,
  record: IncomingRecord,
  body: HostRecordBody,
): string | undefined {
  const { vouched } = record;
  if (vouched === undefined || vouched.type !== body.type)
    return vouched?.type === "refused" ? vouched.reason : "no key vouches for it";
  switch (body.type) {
    case "identity":
      assert(vouched.type === "identity", "checked above");
      return applyIdentity(database, put, record, body.identity, vouched.digest);
    case "audit-head":
      assert(vouched.type === "audit-head", "checked above");
      return applyHead(database, put, record, body, vouched);
  }
}

function applyIdentity(
  database: Database,
  put: PutEvent,
  { host, at }: IncomingRecord,
  identity: HostIdentity,
  digest: string,
): undefined {
  const row = database.one("select identity, identity_digest from hosts where id = ?", host)!;
  if (row.identity_digest === digest) return undefined;
  const before = row.identity === null ? undefined : (JSON.parse(String(row.identity)) as HostIdentity);
  const { type, encoded } = parsePublicKey(identity.attestationKey);
  database.run(
    "update hosts set identity = ?, identity_digest = ?, identity_since = ?, attestation = ? where id = ?",
    JSON.stringify(knownIdentity(identity)),
    digest,
    at,
    `${type} ${encoded}`,
    host,
  );
  if (before === undefined || !sameKey(before, identity)) {
    // Whatever was wrong with the audit of another key says nothing of this one's.
    database.run("update hosts set audit_fault = null, audit_fault_at = null where id = ?", host);
  }
  if (before !== undefined && !sameKey(before, identity))
    raiseAlarm(database, put, { host, event: "key-changed", code: "host.key-changed", at });
  // A machine that got another name or chassis is told of; it is known by its keys alone.
  if (
    before !== undefined &&
    (before.hostname !== identity.hostname || before.chassisSerial !== identity.chassisSerial)
  )
    put({ topic: "host", id: host, event: "drift" }, at);
  put({ topic: "host", id: host, event: "identity" }, at);
  return undefined;
}

// What this version knows of it: other members come with each list of hosts, and may be as large as a message.
function knownIdentity(identity: HostIdentity): HostIdentity {
  const { bedplate, host, attestationKey, proof, linkSignature } = identity;
  const { policyState, policyDigest, hostname, chassisSerial, privilegeSplit } = identity;
  return {
    ...{ bedplate, host, attestationKey, proof, linkSignature },
    ...{ policyState, policyDigest, hostname, chassisSerial, privilegeSplit },
  };
}

function sameKey(a: HostIdentity, b: HostIdentity): boolean {
  return parsePublicKey(a.attestationKey).encoded === parsePublicKey(b.attestationKey).encoded;
}

function applyHead(
  database: Database,
  put: PutEvent,
  { host, at }: IncomingRecord,
  head: AuditHead,
  vouched: { readonly attestation: string; readonly countersignature: string },
): string | undefined {
  const { attestation, countersignature } = vouched;
  const newest = database.one(
    "select max(seq) as seq from audit_heads where host = ? and attestation = ?",
    host,
    attestation,
  )!.seq as number | null;
  const same = database.one(
    "select hash from audit_heads where host = ? and attestation = ? and seq = ?",
    host,
    attestation,
    head.seq,
  )?.hash as string | undefined;
  const verdict = judgeHead({ newest: newest ?? undefined, same }, head);
  const finding = headFinding(verdict, head, newest ?? undefined);
  if (finding !== undefined) {
    const toldAt = database.one("select audit_fault_at from hosts where id = ?", host)!.audit_fault_at;
    const elapsedMs = toldAt === null ? undefined : at - Number(toldAt);
    // Told of in a time to come, by a clock that was ahead then, it is told of again.
    const due = elapsedMs === undefined || elapsedMs < 0 || elapsedMs >= faultRepeatMs;
    database.run(
      "update hosts set audit_fault = ?, audit_fault_at = ? where id = ?",
      finding,
      due ? at : Number(toldAt),
      host,
    );
    if (due) raiseAlarm(database, put, { host, event: "audit-broken", code: "audit.broken", at });
    return `audit.broken ${finding}`;
  }
  if (verdict === "known") return undefined;
  database.run(
    "insert into audit_heads (host, attestation, seq, hash, signature, countersignature, at) values (?, ?, ?, ?, ?, ?, ?)",
    host,
    attestation,
    head.seq,
    head.hash,
    head.signature,
    countersignature,
    at,
  );
  database.run(
    "delete from audit_heads where host = ?1 and attestation = ?2 and seq <= (select seq from audit_heads where host = ?1 and attestation = ?2 order by seq desc limit 1 offset ?3)",
    host,
    attestation,
    storeLimits.auditHeadsMax,
  );
  if (newest === null) forgetKeys(database, host, attestation);
  return undefined;
}

// A host can make as many keys as it likes: the heads of those that spoke longest ago go, whole.
function forgetKeys(database: Database, host: string, newcomer: string): void {
  database.run(
    `delete from audit_heads where host = ?1 and attestation in (
      select attestation from audit_heads where host = ?1 and attestation <> ?2
      group by attestation order by max(at) desc, max(seq) desc limit -1 offset ?3)`,
    host,
    newcomer,
    storeLimits.auditKeysMax - 1,
  );
}

/** Newest first. Those of a key that was given up come last. */
export function readHeads(database: Database, host: string, limit: number): KeptHead[] {
  return database
    .all(
      "select h.* from audit_heads h join hosts on hosts.id = h.host where h.host = ? order by h.attestation = hosts.attestation desc, h.attestation, h.seq desc limit ?",
      host,
      limit,
    )
    .map(headOfRow);
}

/** The furthest of the key that the host's identity names. */
export function newestHeadOf(database: Database, host: string): KeptHead | undefined {
  const row = database.one(
    "select h.* from audit_heads h join hosts on hosts.id = h.host and hosts.attestation = h.attestation where h.host = ? order by h.seq desc limit 1",
    host,
  );
  return row === undefined ? undefined : headOfRow(row);
}

function headOfRow(row: Row): KeptHead {
  return {
    seq: Number(row.seq),
    hash: String(row.hash),
    signature: String(row.signature),
    countersignature: String(row.countersignature),
    at: Number(row.at),
  };
}
