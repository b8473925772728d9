// What the journal forgets, and what it must not: by age, by number, and whatever the clock says.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { endedKeptMin, idleKeptMax, type Journal, openJournal } from "../../agent/executor/journal.ts";
import type { Effect } from "../../protocol/commands.ts";
import { mintId } from "../support/executor-host.ts";

const year2000 = Date.UTC(2000, 0, 1);
const now = Date.UTC(2026, 10, 22);

interface Added {
  readonly effect?: Effect;
  readonly at?: number;
  readonly signatures?: readonly string[];
  readonly type?: "accepted" | "refused";
}

function add(
  journal: Journal,
  { effect = "once", at = now, signatures = [], type = "accepted" }: Added = {},
) {
  const id = mintId();
  const operation = { id, digest: new Uint8Array(32), document: new Uint8Array(4), kind: "host.exec" };
  const error = { code: "policy.outside-window", message: "Not now." };
  journal.add(
    { ...operation, effect, epoch: 1, generation: 1, signatures, at },
    type === "accepted" ? { type, at } : { type, at, error },
  );
  return id;
}

function end(journal: Journal, id: string, at: number) {
  journal.startRun(id, at);
  journal.finish(id, { type: "result", at, result: { outcome: "succeeded", startedAt: at, endedAt: at } });
}

async function openTestJournal() {
  const directory = await mkdtemp(join(tmpdir(), "bp-journal-"));
  const journal = openJournal(directory);
  return {
    journal,
    async [Symbol.asyncDispose]() {
      journal[Symbol.dispose]();
      await rm(directory, { recursive: true });
    },
  };
}

test("what ended while the clock said 2000 is known after it was set: its result is told, it is not run again", async () => {
  await using opened = await openTestJournal();
  const { journal } = opened;
  const id = add(journal, { at: year2000 });
  end(journal, id, year2000 + 1000);
  const read = add(journal, { effect: "read", at: year2000 });
  end(journal, read, year2000 + 1000);
  journal.prune(now);
  expect(journal.operation(id)).toMatchObject({ state: "succeeded", runs: 1 });
  expect(journal.events(id, 0).at(-1)).toMatchObject({ type: "result" });
  expect(journal.operation(read)).toBeUndefined();
  // The bound of that: newer ones take its place.
  for (let more = 0; more < endedKeptMin; more++) end(journal, add(journal), now);
  journal.prune(now - 1);
  expect(journal.operation(id)).toBeUndefined();
});

test("a refusal of what an operator has signed is not pushed out by others: it could be taken then", async () => {
  await using opened = await openTestJournal();
  const { journal } = opened;
  const signed = add(journal, { type: "refused", signatures: ["-----BEGIN SSH SIGNATURE-----"] });
  const bare = add(journal, { type: "refused" });
  journal.atomically(() => {
    for (let more = 0; more < idleKeptMax; more++) add(journal, { type: "refused" });
  });
  journal.prune(0);
  expect(journal.operation(signed)).toMatchObject({ state: "refused" });
  expect(journal.operation(bare)).toBeUndefined();
});
