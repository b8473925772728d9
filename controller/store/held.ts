// What commands that have ended hold, in SQLite: counted along by triggers, let go of oldest first beyond the bounds.
import type { Result } from "../../protocol/commands.ts";
import { type HoldingBounds, letGoOf, trimmedResult } from "../rules/holding.ts";
import type { KeptSignature } from "../rules/signatures.ts";
import type { Database } from "./database.ts";

/** Counts anew what an ended command holds, and lets go of what is too much, within the transaction that runs now. */
export function recountHeld(database: Database, id: string, bounds: HoldingBounds): void {
  database.run(
    "update commands set held_bytes = length(document) + length(signatures) + coalesce(length(result), 0) + coalesce((select sum(length(data)) from outputs where command = commands.id), 0) where id = ? and open = 0",
    id,
  );
  const host = String(database.one("select host from commands where id = ?", id)!.host);
  for (;;) {
    const held = {
      hostBytes: Number(database.one("select bytes from held where host = ?", host)?.bytes ?? 0),
      bytes: Number(database.one("select sum(bytes) as bytes from held")!.bytes ?? 0),
    };
    const whose = letGoOf(held, bounds);
    if (whose === "none") return;
    const oldest =
      whose === "host"
        ? database.one(
            "select id from commands where open = 0 and held_bytes > 0 and host = ? order by updated_at limit 1",
            host,
          )
        : database.one(
            "select id from commands where open = 0 and held_bytes > 0 order by updated_at limit 1",
          );
    // What is counted is there.
    letGo(database, String(oldest!.id));
  }
}

/** How many of a host's commands have ended and are remembered. */
export function endedCount(database: Database, host: string): number {
  return Number(database.one("select commands from held where host = ?", host)?.commands ?? 0);
}

// Id, digest, state and how it ended stay: the same id is answered for as long as any.
function letGo(database: Database, id: string): void {
  const row = database.one("select signatures, result from commands where id = ?", id)!;
  const signatures = JSON.parse(String(row.signatures)) as KeptSignature[];
  const result = trimmedResult(row.result === null ? null : (JSON.parse(String(row.result)) as Result));
  database.run("delete from outputs where command = ?", id);
  database.run(
    "update commands set document = x'', signatures = ?, result = ?, held_bytes = 0 where id = ?",
    JSON.stringify(signatures.map((signature) => ({ ...signature, text: "" }))),
    result === null ? null : JSON.stringify(result),
    id,
  );
}
