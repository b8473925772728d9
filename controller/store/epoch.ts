// The epoch that is in the database: 1, and one more after each restore.
import { textOf } from "../../protocol/bytes.ts";
import type { Database } from "./database.ts";

export function readEpoch(database: Database): number {
  const kept = database.one("select value from meta where key = 'epoch'");
  return kept === undefined ? 1 : Number(textOf(kept.value as Uint8Array));
}
