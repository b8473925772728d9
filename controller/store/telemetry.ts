// Telemetry as received, in SQLite: one blob a host and minute, each batch in it with the number of its dictionary.
import { createHash } from "node:crypto";
import { concatBytes } from "../../protocol/bytes.ts";
import { assert } from "../../protocol/errors.ts";
import type { Database } from "./database.ts";
import type { PutEvent } from "./events.ts";
import { storeLimits } from "./store.ts";
import { minuteOf, type StoredBatch, type TelemetryStore } from "./telemetry-store.ts";

const headerBytes = 8;

export function sqliteTelemetry(database: Database, put: PutEvent): TelemetryStore {
  return {
    async dictionary(host, frame, series, at) {
      const digest = createHash("sha256").update(frame).digest();
      return database.transaction(() => {
        database.run("update hosts set series = ? where id = ?", series, host);
        const row = database.one(
          "insert into dictionaries (host, digest, frame, used_minute) values (?, ?, ?, ?) on conflict do update set used_minute = max(used_minute, excluded.used_minute) returning number",
          host,
          digest,
          frame,
          minuteOf(at),
        );
        const number = Number(row!.number);
        forgetDictionaries(database, host, number);
        return number;
      });
    },
    async append({ batches, seen, progressed, at }) {
      await database.transaction(() => {
        for (const [host, own] of Map.groupBy(batches, (batch) => batch.host))
          appendOfHost(database, host, own);
        for (const sighting of seen) {
          database.run(
            "update hosts set last_seen_at = max(last_seen_at, ?), clock_offset_ms = coalesce(?, clock_offset_ms) where id = ?",
            sighting.at,
            sighting.clockOffsetMs,
            sighting.host,
          );
        }
        for (const id of progressed) put({ topic: "command", id, event: "progress" }, at);
      });
    },
    async read(host, minutes) {
      const batches = database
        .all(
          "select data from telemetry where host = ? and minute between ? and ? order by minute",
          ...[host, minutes.from, minutes.to],
        )
        .flatMap(({ data }) => unpackMinute(data as Uint8Array));
      // Only those that are needed: a host may have many, and it is asked a few minutes at a time.
      const dictionaries = new Map<number, Uint8Array>();
      for (const number of new Set(batches.map(({ dictionary }) => dictionary))) {
        const row = database.one(
          "select frame from dictionaries where number = ?1 and (host = ?2 or host in (select id from hosts where replaced_by = ?2))",
          ...[number, host],
        );
        if (row !== undefined) dictionaries.set(number, Uint8Array.from(row.frame as Uint8Array));
      }
      return batches.flatMap(({ dictionary: number, frame }) => {
        const dictionary = dictionaries.get(number);
        return dictionary === undefined ? [] : [{ dictionary, frame }];
      });
    },
    async prune(beforeMinute) {
      await database.transaction(() => {
        database.run("delete from telemetry where minute < ?", beforeMinute);
        // The newest one of each host may be a quiet session's: it stays.
        database.run(
          "delete from dictionaries where used_minute < ? and number not in (select max(number) from dictionaries group by host)",
          beforeMinute,
        );
      });
    },
  };
}

// Those that were used longest ago go, when there are more than any honest agent has within the time that is kept. What was
// told in their terms cannot be read any more: a gap, not silence.
function forgetDictionaries(database: Database, host: string, current: number): void {
  const { dictionariesMax, dictionaryBytesMax } = storeLimits;
  const { count, bytes } = database.one(
    "select count(*) as count, sum(length(frame)) as bytes from dictionaries where host = ?",
    host,
  )!;
  if (Number(count) <= dictionariesMax && Number(bytes) <= dictionaryBytesMax) return;
  const forgotten = database.run(
    `delete from dictionaries where number in (
      select number from (
        select number, row_number() over newest as count, sum(length(frame)) over newest as bytes
        from dictionaries where host = ?1
        window newest as (order by number = ?2 desc, used_minute desc, number desc))
      where count > ?3 or bytes > ?4)`,
    ...[host, current, dictionariesMax, dictionaryBytesMax],
  );
  database.run("update hosts set gaps = gaps + ? where id = ?", forgotten, host);
}

function appendOfHost(database: Database, host: string, batches: readonly StoredBatch[]): void {
  for (const [minute, own] of Map.groupBy(batches, (batch) => minuteOf(batch.at))) {
    const data = packMinute(own);
    const kept = Number(
      database.one("select length(data) as bytes from telemetry where host = ? and minute = ?", host, minute)
        ?.bytes ?? 0,
    );
    if (kept + data.length > storeLimits.minuteBytesMax) {
      // More than any honest agent sends. Told as a gap, not kept silently short.
      database.run("update hosts set gaps = gaps + 1 where id = ?", host);
    } else {
      database.run(
        "insert into telemetry (host, minute, data) values (?, ?, ?) on conflict do update set data = cast(data || excluded.data as blob)",
        host,
        minute,
        data,
      );
      database.run("update hosts set batches = batches + ? where id = ?", own.length, host);
      for (const number of new Set(own.map((batch) => batch.dictionary))) {
        database.run(
          "update dictionaries set used_minute = ?1 where number = ?2 and used_minute < ?1",
          minute,
          number,
        );
      }
    }
    for (const batch of own) {
      database.run(
        "update outboxes set samples = ?1 where host = ?2 and instance = ?3 and samples < ?1",
        batch.seq,
        host,
        batch.instance,
      );
    }
    database.run("update hosts set last_batch_at = ? where id = ?", own.at(-1)!.at, host);
  }
}

// Each batch: number of the dictionary and length as u32, little-endian, then the message.
function packMinute(batches: readonly Pick<StoredBatch, "dictionary" | "frame">[]): Uint8Array {
  return concatBytes(
    ...batches.flatMap(({ dictionary, frame }) => {
      const header = new Uint8Array(headerBytes);
      const view = new DataView(header.buffer);
      view.setUint32(0, dictionary, true);
      view.setUint32(4, frame.length, true);
      return [header, frame];
    }),
  );
}

function unpackMinute(data: Uint8Array): { dictionary: number; frame: Uint8Array }[] {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const entries: { dictionary: number; frame: Uint8Array }[] = [];
  for (let at = 0; at < data.length; ) {
    assert(at + headerBytes <= data.length, "a minute of telemetry ends with a whole batch");
    const end = at + headerBytes + view.getUint32(at + 4, true);
    entries.push({ dictionary: view.getUint32(at, true), frame: data.slice(at + headerBytes, end) });
    at = end;
  }
  return entries;
}
