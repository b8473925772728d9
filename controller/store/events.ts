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
  // The sequence outlives the rows: an index is never given out twice, whatever was pruned.
  const given = (): number =>
    Number(database.one("select seq from sqlite_sequence where name = 'events'")?.seq ?? 0);
  // What the disk has. One that was told of and then lost with the power would leave its index to another event.
  let newest = given();
  const put: PutEvent = (event, at) => {
    const row = database.one(
      "insert into events (at, topic, id, event) values (?, ?, ?, ?) returning number",
      at,
      event.topic,
      event.id,
      event.event,
    );
    database.afterCommit(() => {
      newest = Math.max(newest, Number(row!.number));
    });
    database.afterCommit(tell);
  };
  // A restore leaves a stretch of indexes out, which the controller of before may have given out.
  const wasGiven = (index: number): boolean => {
    const oldest = database.one("select min(number) as oldest from events")!.oldest;
    if (index >= newest || oldest === null) return index === newest;
    return (
      index + 1 === Number(oldest) ||
      database.one("select 1 from events where number = ?", index) !== undefined
    );
  };
  const store: EventStore = {
    async append(event, at) {
      await database.transaction(() => put(event, at));
    },
    async newest() {
      return newest;
    },
    async after(index, limit) {
      if (!wasGiven(index)) return "gone";
      return database
        .all(
          "select * from events where number > ? and number <= ? order by number limit ?",
          ...[index, newest, limit],
        )
        .map(eventOfRow);
    },
    follow(listener) {
      const own = (): void => listener();
      listeners.add(own);
      return { [Symbol.dispose]: () => listeners.delete(own) };
    },
    async prune(keep) {
      // By their count, not by index: a restore leaves indexes out.
      database.run(
        "delete from events where number <= (select number from events order by number desc limit 1 offset ?)",
        keep,
      );
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
