// Alarms: what somebody should look at, as an event and as an entry of the audit, within the transaction that runs now. A
// host that has one reason after the other must not push out what others did: it is told of so often and no more.
import type { ApiEvent } from "../../protocol/api.ts";
import type { Code } from "../../protocol/codes.ts";
import { appendCall } from "./audit.ts";
import type { Database } from "./database.ts";
import type { PutEvent } from "./events.ts";

export interface Alarm {
  readonly host: string;
  readonly event: ApiEvent["event"];
  readonly code: Code;
  readonly at: number;
  /** Where it came from. */
  readonly address?: string;
}

/** Alarms of one code from one host that are told of, within so long of the first of them. */
export const alarmsMax = { count: 6, withinMs: 3_600_000 } as const;

export function raiseAlarm(database: Database, put: PutEvent, alarm: Alarm): void {
  const { host, event, code, at, address = "" } = alarm;
  if (isTooMany(database, alarm)) return;
  put({ topic: "host", id: host, event }, at);
  const name = String(database.one("select name from hosts where id = ?", host)!.name);
  appendCall(database, {
    ...{ at, token: { id: host.slice(0, 16), name }, address },
    ...{ method: "ALARM", route: "/v1/link", object: host, status: 409, code },
  });
}

// The count begins anew with the first one after the time is over, also where the clock was set back.
function isTooMany(database: Database, { host, code, at }: Alarm): boolean {
  const row = database.one("select since, count from alarms where host = ? and code = ?", host, code);
  const elapsedMs = row === undefined ? undefined : at - Number(row.since);
  const fresh = elapsedMs === undefined || elapsedMs < 0 || elapsedMs >= alarmsMax.withinMs;
  const count = fresh ? 1 : Number(row!.count) + 1;
  if (count > alarmsMax.count) return true;
  database.run(
    "insert or replace into alarms (host, code, since, count) values (?, ?, ?, ?)",
    host,
    code,
    fresh ? at : Number(row!.since),
    count,
  );
  return false;
}
