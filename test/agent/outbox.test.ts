import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Outbox, openOutbox } from "../../agent/link/outbox.ts";

let directory: string;
let outbox: Outbox;
const id = "01890a5d-ac96-774b-bcce-b302099a8057";
const offer = {
  document: Uint8Array.of(1, 2, 3),
  signatures: ["s"],
  generation: 1,
  epoch: 2,
  sources: [{ url: "https://a/", bearer: "b" }],
};
const reopen = () => {
  outbox[Symbol.dispose]();
  outbox = openOutbox(join(directory, "agent.db"));
};

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "bedplate-outbox-"));
  outbox = openOutbox(join(directory, "agent.db"));
});
afterEach(() => {
  outbox[Symbol.dispose]();
  rmSync(directory, { recursive: true });
});

test("an offer and its record survive a restart together", async () => {
  outbox.receive(id, offer, 5);
  reopen();
  expect(outbox.operation(id)).toMatchObject({
    id,
    state: "received",
    eventSeq: 0,
    offer: { ...offer, document: expect.any(Uint8Array) },
  });
  expect([...outbox.operation(id)!.offer.document]).toEqual([1, 2, 3]);
  await outbox.synced();
  expect(outbox.after(0, 10)).toEqual([{ seq: 1, at: 5, body: { type: "received", command: id } }]);
});

test("an event of the executor becomes one record, however often it is replayed", () => {
  outbox.receive(id, offer, 5);
  expect(outbox.record({ id, state: "accepted", eventSeq: 1 }, { type: "accepted", command: id }, 6)).toBe(
    "queued",
  );
  expect(outbox.record({ id, state: "accepted", eventSeq: 1 }, { type: "accepted", command: id }, 7)).toBe(
    "seen",
  );
  reopen();
  expect(outbox.record({ id, state: "accepted", eventSeq: 1 }, { type: "accepted", command: id }, 8)).toBe(
    "seen",
  );
  expect(outbox.recordCount).toBe(2);
});

test("a result ends the operation, and what is acknowledged is gone while numbers go on", async () => {
  outbox.receive(id, offer, 5);
  outbox.record(
    { id, state: "succeeded", eventSeq: 3 },
    { type: "result", command: id, result: { outcome: "succeeded", startedAt: 1, endedAt: 2 } },
    9,
  );
  expect(outbox.openOperations()).toEqual([]);
  outbox.acknowledge(2);
  expect(outbox.recordBytes).toBe(0);
  reopen();
  outbox.append({ type: "gap", from: 1, to: 2, count: 2 }, 10);
  await outbox.synced();
  expect(outbox.after(0, 10).map(({ seq }) => seq)).toEqual([3]);
});

test("a young file goes on above what the controller has, so that nothing is taken for a repetition", async () => {
  outbox.append({ type: "gap", from: 1, to: 1, count: 1 }, 1);
  outbox.append({ type: "gap", from: 2, to: 2, count: 1 }, 2);
  outbox.resume(100);
  outbox.append({ type: "gap", from: 3, to: 3, count: 1 }, 3);
  await outbox.synced();
  expect(outbox.after(100, 10).map(({ seq, at }) => [seq, at])).toEqual([
    [101, 1],
    [102, 2],
    [103, 3],
  ]);
});

test("a resumed session forgets what the controller has stored", async () => {
  for (let i = 0; i < 3; i++) outbox.append({ type: "gap", from: i, to: i, count: 1 }, i);
  outbox.resume(2);
  await outbox.synced();
  expect(outbox.after(2, 10).map(({ seq }) => seq)).toEqual([3]);
  expect(outbox.recordCount).toBe(1);
});

test("a record is handed out only when it is durable, and then it is told", async () => {
  let told = 0;
  using other = openOutbox(join(directory, "other.db"), () => told++);
  other.append({ type: "gap", from: 1, to: 1, count: 1 }, 1);
  expect(other.after(0, 10)).toEqual([]);
  await other.synced();
  expect(told).toBeGreaterThan(0);
  expect(other.after(0, 10)).toHaveLength(1);
});

test("no command is taken while there is no room for its result", () => {
  const large = "x".repeat(1 << 20);
  for (let i = 0; i < 16; i++)
    outbox.append({ type: "refused", command: id, error: { code: "internal", message: large } }, i);
  expect(() => outbox.receive(id, offer, 1)).toThrow(expect.objectContaining({ code: "agent.outbox-full" }));
  expect(outbox.operation(id)).toBeUndefined();
});
