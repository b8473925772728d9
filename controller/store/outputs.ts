// What programs printed, in SQLite: the newest pieces of each command, by their offset in the whole.
import { holding } from "../rules/holding.ts";
import { judgeOutput, outputKept, surplusPieces } from "../rules/output-rule.ts";
import type { OutputPage } from "./command-store.ts";
import type { Database } from "./database.ts";
import { recountHeld } from "./held.ts";
import type { OutputRecord } from "./record-store.ts";

/** Keeps a piece within the transaction that runs now. */
export function addOutput(
  database: Database,
  { command, stream, offset, data }: OutputRecord,
): "added" | "known" {
  const bytes = Buffer.from(data, "base64");
  const { output_bytes, open } = database.one(
    "select output_bytes, open from commands where id = ?",
    command,
  )!;
  const end = Number(output_bytes);
  const newest = database.one(
    "select stream, offset, length(data) as bytes from outputs where command = ? order by offset desc limit 1",
    command,
  );
  const verdict = judgeOutput(
    end,
    newest === undefined
      ? undefined
      : { stream: String(newest.stream), offset: Number(newest.offset), bytes: Number(newest.bytes) },
    { stream, offset, bytes: bytes.length },
  );
  if (verdict.do === "nothing") return "known";
  const fresh = bytes.subarray(verdict.skip);
  if (verdict.merge) {
    database.run(
      "update outputs set data = cast(data || ? as blob) where command = ? and offset = ?",
      fresh,
      command,
      newest!.offset as number,
    );
  } else {
    database.run(
      "insert into outputs (command, offset, stream, data) values (?, ?, ?, ?)",
      command,
      offset + verdict.skip,
      stream,
      fresh,
    );
  }
  database.run("update commands set output_bytes = ? where id = ?", verdict.end, command);
  prune(database, command);
  // The last of it may come after the result.
  if (open === 0) recountHeld(database, command, holding);
  return "added";
}

/** Pieces after `after`, oldest first: whole ones up to `bytesMax` in all, and at least one. */
export function readOutput(
  database: Database,
  command: string,
  after: number,
  bytesMax: number,
): OutputPage | undefined {
  const end = database.one("select output_bytes from commands where id = ?", command)?.output_bytes;
  if (end === undefined) return undefined;
  const pieces: OutputPage["pieces"][number][] = [];
  let bytes = 0;
  for (const row of database.all(
    "select stream, offset, length(data) as bytes from outputs where command = ? and offset + length(data) > ? order by offset",
    command,
    after,
  )) {
    if (pieces.length > 0 && bytes + Number(row.bytes) > bytesMax) break;
    const [offset, stream] = [Number(row.offset), row.stream as OutputRecord["stream"]];
    const data = database.one(
      "select data from outputs where command = ? and offset = ?",
      command,
      offset,
    )!.data;
    const skip = Math.max(0, after - offset);
    const fresh = Uint8Array.from((data as Uint8Array).subarray(skip));
    pieces.push({ stream, offset: offset + skip, data: fresh });
    bytes += fresh.length;
  }
  return { end: Number(end), pieces };
}

// Looked at only when there can be something: most output is small.
function prune(database: Database, command: string): void {
  const kept = database.one(
    "select count(*) as pieces, sum(length(data)) as bytes from outputs where command = ?",
    command,
  )!;
  if (Number(kept.pieces) <= outputKept.piecesMax && Number(kept.bytes) <= outputKept.bytesMax) return;
  const pieces = database.all(
    "select offset, length(data) as bytes from outputs where command = ? order by offset",
    command,
  );
  const surplus = surplusPieces(pieces.map(({ bytes }) => Number(bytes)));
  if (surplus > 0)
    database.run(
      "delete from outputs where command = ? and offset < ?",
      command,
      Number(pieces[surplus]!.offset),
    );
}
