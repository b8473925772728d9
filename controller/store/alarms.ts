// Alarms: what somebody should look at, as an event and as an entry of the audit, within the transaction that runs now.
import type { ApiEvent } from "../../protocol/api.ts";
import type { Code } from "../../protocol/codes.ts";
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

export function raiseAlarm(database: Database, put: PutEvent, alarm: Alarm): void {
  const { host, event, code, at, address = "" } = alarm;
  put({ topic: "host", id: host, event }, at);
  const name = String(database.one("select name from hosts where id = ?", host)!.name);
  database.run(
    "insert into audit (at, token, token_name, address, method, route, object, status, code) values (?, ?, ?, ?, 'ALARM', '/v1/link', ?, 409, ?)",
    at,
    host.slice(0, 16),
    name,
    address,
    host,
    code,
  );
}
