// Events with an index that grows by one, in SQLite.
import type { ApiEvent } from "../../protocol/api.ts";
import type { Database, Row } from "./database.ts";
import type { EventStore } from "./store.ts";

/** Appends an event within the transaction that runs now. */
export type PutEvent = (event: Pick<ApiEvent, "topic" | "id" | "event">, at: number) => void;

export function sqliteEvents(database: Database): { readonly store: EventStore; readonly put: PutEvent } {
  const listeners = new Set<() => void>();
  const tell = (): void => {
    for (const listener of listeners) listener();
  };
  const put: PutEvent = (event, at) => {
    database.run(
      "insert into events (at, topic, id, event) values (?, ?, ?, ?)",
      at,
      event.topic,
      event.id,
      event.event,
    );
    database.afterCommit(tell);
  };
  // The sequence outlives the rows: an index is never given out twice, whatever was pruned.
  const newest = (): number =>
    Number(database.one("select seq from sqlite_sequence where name = 'events'")?.seq ?? 0);
  const store: EventStore = {
    async append(event, at) {
      await database.transaction(() => put(event, at));
    },
    async newest() {
      return newest();
    },
    async after(index, limit) {
      const oldest = Number(database.one("select min(number) as oldest from events")?.oldest ?? newest() + 1);
      if (index + 1 < oldest || index > newest()) return "gone";
      return database
        .all("select * from events where number > ? order by number limit ?", index, limit)
        .map(eventOfRow);
    },
    follow(listener) {
      const own = (): void => listener();
      listeners.add(own);
      return { [Symbol.dispose]: () => listeners.delete(own) };
    },
    async prune(keep) {
      database.run("delete from events where number <= ?", newest() - keep);
    },
  };
  return { store, put };
}

function eventOfRow(row: Row): ApiEvent {
  return {
    index: Number(row.number),
    at: Number(row.at),
    topic: row.topic as ApiEvent["topic"],
    id: String(row.id),
    event: String(row.event),
  };
}
