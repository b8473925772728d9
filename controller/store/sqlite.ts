// The store on one SQLite file, for a controller of its own.
import { chmodSync, closeSync, openSync } from "node:fs";
import { textOf, utf8 } from "../../protocol/bytes.ts";
import type { Lived } from "../rules/patient-time.ts";
import { sqliteAudit } from "./audit.ts";
import { writeBackup } from "./backup.ts";
import { sqliteCommands } from "./commands.ts";
import { Database } from "./database.ts";
import { readEpoch } from "./epoch.ts";
import { sqliteEvents } from "./events.ts";
import { sqliteHosts } from "./hosts.ts";
import { sqliteImages } from "./images.ts";
import { sqliteRecords } from "./records.ts";
import type { Store } from "./store.ts";
import { sqliteTelemetry } from "./telemetry.ts";
import { sqliteTokens } from "./tokens.ts";

/** @throws `state.in-use`, `state.newer` */
export async function openSqliteStore(path: string): Promise<Store> {
  // SQLite would make it with the process's umask.
  closeSync(openSync(path, "a", 0o600));
  chmodSync(path, 0o600);
  const database = new Database(path);
  const events = sqliteEvents(database);
  return {
    async epoch() {
      return readEpoch(database);
    },
    async secret(name, make) {
      return database.transaction(() => {
        const key = `secret.${name}`;
        const kept = database.one("select value from meta where key = ?", key);
        if (kept !== undefined) return Uint8Array.from(kept.value as Uint8Array);
        const made = make();
        database.run("insert into meta (key, value) values (?, ?)", key, made);
        return made;
      });
    },
    async lived() {
      const kept = database.one("select value from meta where key = 'lived'");
      return kept === undefined ? undefined : (JSON.parse(textOf(kept.value as Uint8Array)) as Lived);
    },
    async keepLived({ until, doubtedMs }) {
      database.run(
        "insert or replace into meta (key, value) values ('lived', ?)",
        utf8(JSON.stringify({ until, doubtedMs })),
      );
    },
    backup: (path, files) => writeBackup(database, path, files),
    hosts: sqliteHosts(database, events.put),
    tokens: sqliteTokens(database, events.put),
    audit: sqliteAudit(database),
    commands: sqliteCommands(database, events.put),
    records: sqliteRecords(database, events.put),
    telemetry: sqliteTelemetry(database, events.put),
    events: events.store,
    images: sqliteImages(database, events.put),
    async [Symbol.asyncDispose]() {
      database.close();
    },
  };
}
