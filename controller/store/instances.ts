// The machines that showed up with one host's key, in SQLite: those in question while it is in quarantine, and those that
// a person has said are copies.
import { BedplateError } from "../../protocol/errors.ts";
import { raiseAlarm } from "./alarms.ts";
import type { Database } from "./database.ts";
import type { PutEvent } from "./events.ts";
import type { SeenInstance } from "./host-store.ts";
import { storeLimits } from "./store.ts";

/** For an instance that is a copy whatever it was booted as. */
const anyBoot = "";

export function isCopy(database: Database, host: string, instance: string, bootId: string): boolean {
  return (
    database.one(
      "select 1 from instances where host = ? and instance = ? and boot_id in (?, ?) and verdict = 'copy'",
      host,
      instance,
      bootId,
      anyBoot,
    ) !== undefined
  );
}

/** Those in question, in the order in which they showed up. */
export function seenInstances(database: Database, host: string): SeenInstance[] {
  return database
    .all(
      "select instance, boot_id, address from instances where host = ? and verdict = 'seen' order by rowid",
      host,
    )
    .map((row) => ({
      instance: String(row.instance),
      bootId: String(row.boot_id),
      address: String(row.address),
    }));
}

export function hasCopies(database: Database, host: string): boolean {
  return database.one("select 1 from instances where host = ? and verdict = 'copy'", host) !== undefined;
}

export function noteInstance(
  database: Database,
  host: string,
  { instance, bootId, address }: SeenInstance,
  at: number,
): void {
  database.run(
    "insert into instances (host, instance, boot_id, address, verdict, seen_at) values (?, ?, ?, ?, 'seen', ?) on conflict do update set address = excluded.address, seen_at = excluded.seen_at",
    host,
    instance,
    bootId,
    address,
    at,
  );
}

/** Notes the machines that answered with the host's key; raises an alarm when there is one that was not known. */
export function noteInstances(
  database: Database,
  put: PutEvent,
  { host, instances, at }: { host: string; instances: readonly SeenInstance[]; at: number },
): void {
  const known = seenInstances(database, host);
  for (const instance of instances) noteInstance(database, host, instance, at);
  forgetOldest(database, host);
  // The copy comes back every minute or so, and is told of once.
  const isKnown = ({ instance, bootId }: SeenInstance): boolean =>
    known.some((other) => other.instance === instance && other.bootId === bootId);
  if (instances.every(isKnown)) return;
  raiseAlarm(database, put, {
    host,
    event: "duplicate",
    code: "host.quarantined",
    at,
    address: instances.at(-1)!.address,
  });
}

/**
 * Makes all but the chosen machine copies. It is named by its instance, or by its boot id where another has the same
 * instance: then its state directory was copied whole, and only this boot of the other one can be told apart.
 * @throws `api.not-found`, `api.bad-request` when the name fits several
 */
export function chooseInstance(database: Database, host: string, named: string, at: number): SeenInstance {
  const rows = database
    .all("select instance, boot_id, address from instances where host = ? order by rowid", host)
    .map((row) => ({
      instance: String(row.instance),
      bootId: String(row.boot_id),
      address: String(row.address),
    }));
  const fitting = rows.filter(({ instance, bootId }) => instance === named || bootId === named);
  const [chosen] = fitting;
  if (chosen === undefined) {
    throw new BedplateError(
      "api.not-found",
      `No machine "${named.slice(0, 64)}" answered with this host's key.`,
      {
        hint: "GET /v1/hosts/HOST lists them under instances.",
        details: { instances: rows.map(({ instance }) => instance) },
      },
    );
  }
  if (fitting.length > 1) {
    throw new BedplateError(
      "api.bad-request",
      `Several machines have the instance ${named}: the state directory of one was copied whole.`,
      {
        hint: "Say which by its boot id: on the host, cat /proc/sys/kernel/random/boot_id.",
        details: { bootIds: fitting.map(({ bootId }) => bootId) },
      },
    );
  }
  database.run("delete from instances where host = ?", host);
  for (const { instance, bootId, address } of rows) {
    if (instance === chosen.instance && bootId === chosen.bootId) continue;
    database.run(
      "insert or replace into instances (host, instance, boot_id, address, verdict, seen_at) values (?, ?, ?, ?, 'copy', ?)",
      host,
      instance,
      instance === chosen.instance ? bootId : anyBoot,
      address,
      at,
    );
  }
  return chosen;
}

function forgetOldest(database: Database, host: string): void {
  database.run(
    "delete from instances where host = ?1 and verdict = 'seen' and (instance, boot_id) not in (select instance, boot_id from instances where host = ?1 and verdict = 'seen' order by seen_at desc limit ?2)",
    host,
    storeLimits.instancesMax,
  );
}
