// Records of hosts, in SQLite: the effect and the mark in one transaction.
import type { RecordBody } from "../../protocol/messages.ts";
import { ignoredBecause, judgeRecord } from "../rules/record-rule.ts";
import { applyToCommand, hostOfCommand, standingOf } from "./command-rows.ts";
import type { Database } from "./database.ts";
import type { PutEvent } from "./events.ts";
import { applyHostRecord } from "./host-records.ts";
import { addOutput } from "./outputs.ts";
import type { IncomingRecord, RecordAnswer, RecordStore } from "./record-store.ts";

export function sqliteRecords(database: Database, put: PutEvent): RecordStore {
  const listeners = new Set<(command: string) => void>();
  const apply = (record: IncomingRecord): RecordAnswer => {
    const outbox = database.one(
      "select records, restored from outboxes where host = ? and instance = ?",
      record.host,
      record.instance,
    );
    const verdict = judgeRecord(
      outbox === undefined ? undefined : { records: Number(outbox.records), restored: outbox.restored === 1 },
      record.seq,
      record.place,
    );
    if (verdict.status !== "next") return verdict;
    const { mark, lost } = verdict;
    if (lost > 0) put({ topic: "host", id: record.host, event: "records-lost" }, record.at);
    const ignored = applyBody(record, record.body);
    database.run(
      "insert into outboxes (host, instance, records, used_at) values (?, ?, ?, ?) on conflict do update set records = excluded.records, restored = 0",
      record.host,
      record.instance,
      mark,
      record.at,
    );
    return {
      status: "stored",
      mark,
      ...(ignored === undefined ? {} : { ignored }),
      ...(lost === 0 ? {} : { lost }),
    };
  };
  // Returns why the record has no effect.
  const applyBody = (record: IncomingRecord, body: RecordBody): string | undefined => {
    switch (body.type) {
      case "gap":
        database.run("update hosts set gaps = gaps + 1 where id = ?", record.host);
        return undefined;
      case "identity":
      case "audit-head":
        return applyHostRecord(database, put, record, body);
      case "received":
      case "accepted":
      case "refused":
      case "running":
      case "cancel":
      case "result":
      case "output": {
        const ignored = ignoredBecause(
          { command: body.command, host: record.host },
          {
            commandHost: hostOfCommand(database, body.command),
            standing: standingOf(database, record.host)!,
          },
        );
        if (ignored !== undefined) return ignored;
        if (body.type !== "output") applyToCommand(database, put, body.command, body, record.at);
        else if (addOutput(database, body) === "added") {
          database.afterCommit(() => {
            for (const listener of listeners) listener(body.command);
          });
        }
        return undefined;
      }
    }
  };
  return {
    async apply(record) {
      return database.transaction(() => apply(record));
    },
    followOutput(listener) {
      const own = (command: string): void => listener(command);
      listeners.add(own);
      return { [Symbol.dispose]: () => listeners.delete(own) };
    },
  };
}
