// Single commands in SQLite, read, and changed by the reducer, within the transaction that runs now.
import { isTerminal, type OperationState, type Result } from "../../protocol/commands.ts";
import type { Standing } from "../../protocol/schema.ts";
import { holding } from "../rules/holding.ts";
import {
  type CancelAnswer,
  type CommandEvent,
  endedBy,
  eventOf,
  type PauseRequest,
  reduceCommand,
} from "../rules/reduce.ts";
import type { KeptSignature } from "../rules/signatures.ts";
import type { StoredCommand } from "./command-store.ts";
import type { Database, Row } from "./database.ts";
import type { PutEvent } from "./events.ts";
import { recountHeld } from "./held.ts";

export function getCommand(database: Database, id: string): StoredCommand | undefined {
  const row = database.one("select * from commands where id = ?", id);
  return row === undefined ? undefined : commandOfRow(row);
}

/** Reduces one event into a command and appends what the API tells of it. */
export function applyToCommand(
  database: Database,
  put: PutEvent,
  id: string,
  event: CommandEvent,
  at: number,
): StoredCommand | undefined {
  const before = getCommand(database, id);
  if (before === undefined) return undefined;
  const after = reduceCommand(before, event, at);
  if (after === before) return before;
  database.run(
    "update commands set state = ?, open = ?, updated_at = ?, cancel_requested_at = ?, cancel_answer = ?, pause = ?, runs = ?, result = ?, history = ? where id = ?",
    after.state,
    isTerminal(after.state) ? 0 : 1,
    after.updatedAt,
    after.cancelRequestedAt,
    after.cancelAnswer === null ? null : JSON.stringify(after.cancelAnswer),
    after.pause === null ? null : JSON.stringify(after.pause),
    after.runs,
    after.result === null ? null : JSON.stringify(after.result),
    JSON.stringify(after.history),
    id,
  );
  if (endedBy(before, after)) recountHeld(database, id, holding);
  const name = eventOf(before, after);
  if (name !== undefined) put({ topic: "command", id, event: name }, at);
  return { ...before, ...after };
}

/** The host that a command is for; undefined when there is no such command. */
export function hostOfCommand(database: Database, id: string): string | undefined {
  return database.one("select host from commands where id = ?", id)?.host as string | undefined;
}

export function standingOf(database: Database, host: string): Standing | undefined {
  return database.one("select standing from hosts where id = ?", host)?.standing as Standing | undefined;
}

export function pauseOf({ pause }: Row): PauseRequest | null {
  return pause === null ? null : (JSON.parse(String(pause)) as PauseRequest);
}

export function commandOfRow(row: Row): StoredCommand {
  return {
    id: String(row.id),
    host: String(row.host),
    kind: String(row.kind),
    mode: String(row.mode),
    document: Uint8Array.from(row.document as Uint8Array),
    signatures: JSON.parse(String(row.signatures)) as KeptSignature[],
    signaturesWanted: Number(row.signatures_wanted),
    outputBytes: Number(row.output_bytes),
    createdAt: Number(row.created_at),
    notAfter: row.not_after as number | null,
    generation: row.generation as number | null,
    state: row.state as OperationState,
    updatedAt: Number(row.updated_at),
    cancelRequestedAt: row.cancel_requested_at as number | null,
    cancelAnswer: row.cancel_answer === null ? null : (JSON.parse(String(row.cancel_answer)) as CancelAnswer),
    pause: pauseOf(row),
    runs: Number(row.runs),
    result: row.result === null ? null : (JSON.parse(String(row.result)) as Result),
    history: JSON.parse(String(row.history)) as StoredCommand["history"],
    setBack: row.set_back === 1,
  };
}
