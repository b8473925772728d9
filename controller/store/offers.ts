// Offers in SQLite: what the rule says is due is marked, with its generation, within the transaction that runs now.
import type { OperationState } from "../../protocol/commands.ts";
import { assert } from "../../protocol/errors.ts";
import { assignGeneration } from "../rules/generation.ts";
import { changesState, dueSteps, type OpenCommand } from "../rules/offering.ts";
import { applyToCommand, pauseOf, standingOf } from "./command-rows.ts";
import type { DueOffers, SessionNow, StoredCommand } from "./command-store.ts";
import type { Database } from "./database.ts";
import { readEpoch } from "./epoch.ts";
import type { PutEvent } from "./events.ts";

export function offerDue(
  database: Database,
  put: PutEvent,
  host: string,
  session: SessionNow,
  at: number,
): DueOffers {
  const epoch = readEpoch(database);
  const standing = standingOf(database, host);
  if (standing === undefined) return { steps: [], rest: "none", epoch };
  const open = openCommands(database, host, session.takenBefore);
  const { steps, rest } = dueSteps([...open.values()], standing, session, session.nowMs);
  return {
    steps: steps.map(({ step, id }) =>
      step === "offer" ? { step, command: offer(database, put, host, open.get(id)!, at) } : { step, id },
    ),
    rest,
    epoch,
  };
}

// What has waited too long is not sent any more, also where nobody was there yet to end it.
function openCommands(
  database: Database,
  host: string,
  takenBefore: number,
): ReadonlyMap<string, OpenCommand> {
  const rows = database.all(
    "select id, kind, mode, state, generation, cancel_requested_at, pause, signatures_wanted, json_array_length(signatures) as signatures, length(document) as bytes from commands where host = ? and open = 1 and not (state = 'waiting' and created_at < ?) order by number",
    host,
    takenBefore,
  );
  return new Map(
    rows.map((row) => [
      String(row.id),
      {
        id: String(row.id),
        state: row.state as OperationState,
        changesState: changesState(String(row.kind), String(row.mode)),
        signatures: Number(row.signatures),
        signaturesWanted: Number(row.signatures_wanted),
        generation: row.generation as number | null,
        cancelRequestedAt: row.cancel_requested_at as number | null,
        pause: pauseOf(row),
        documentBytes: Number(row.bytes),
      },
    ]),
  );
}

function offer(
  database: Database,
  put: PutEvent,
  host: string,
  command: OpenCommand,
  at: number,
): StoredCommand {
  if (command.generation === null) {
    const before = Number(database.one("select generation from hosts where id = ?", host)!.generation);
    const step = assignGeneration(command, before);
    const set = database.run(
      "update hosts set generation = ? where id = ? and generation = ?",
      step.host,
      host,
      before,
    );
    assert(set === 1, "a generation is compared and set within one transaction");
    database.run("update commands set generation = ? where id = ?", step.generation, command.id);
  }
  return applyToCommand(database, put, command.id, { type: "offered" }, at)!;
}
