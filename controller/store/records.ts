// Records of hosts, in SQLite: the effect and the mark in one transaction.
import type { RecordBody } from "../../protocol/messages.ts";
import { applyToCommand, hostOfCommand, isApproved } from "./commands.ts";
import type { Database } from "./database.ts";
import type { PutEvent } from "./events.ts";
import type { IncomingRecord, RecordStore } from "./store.ts";

export function sqliteRecords(database: Database, put: PutEvent): RecordStore {
  return {
    async apply(record) {
      return database.transaction(() => {
        const outbox = database.one(
          "select records, restored from outboxes where host = ? and instance = ?",
          record.host,
          record.instance,
        );
        const mark = Number(outbox?.records ?? 0);
        if (record.seq <= mark) return { status: "known", mark };
        const lost = record.seq - mark - 1;
        // What was acknowledged after the backup was made is gone on both sides: the host goes on from there, once.
        if (lost > 0 && outbox?.restored !== 1) return { status: "hole", mark };
        if (lost > 0) put({ topic: "host", id: record.host, event: "records-lost" }, record.at);
        const ignored = applyBody(database, put, record, record.body);
        database.run(
          "insert into outboxes (host, instance, records, used_at) values (?, ?, ?, ?) on conflict do update set records = excluded.records, restored = 0",
          record.host,
          record.instance,
          record.seq,
          record.at,
        );
        return {
          status: "stored",
          mark: record.seq,
          ...(ignored === undefined ? {} : { ignored }),
          ...(lost === 0 ? {} : { lost }),
        };
      });
    },
  };
}

// Returns why the record has no effect. It is stored all the same, else the host would send it for ever.
function applyBody(
  database: Database,
  put: PutEvent,
  record: IncomingRecord,
  body: RecordBody,
): string | undefined {
  switch (body.type) {
    case "gap":
      database.run("update hosts set gaps = gaps + 1 where id = ?", record.host);
      return undefined;
    case "received":
    case "accepted":
    case "refused":
    case "running":
    case "result": {
      const host = hostOfCommand(database, body.command);
      if (host === undefined) return `the command ${body.command} is not known`;
      if (host !== record.host) return `the command ${body.command} is another host's`;
      if (!isApproved(database, host)) return "the host is not approved, so it was sent no command";
      applyToCommand(database, put, body.command, body, record.at);
      return undefined;
    }
  }
}
