import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Outbox, openOutbox } from "../../agent/link/outbox.ts";
import type { OutboxChange } from "../../agent/link/outbox-rules.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { intact } from "../sim/bugs.ts";
import { createHistory } from "../sim/history.ts";
import { Machine } from "../sim/machine.ts";
import { emptyOutbox, Outbox as ModelOutbox, type OutboxState } from "../sim/outbox.ts";
import { createRandom } from "../sim/random.ts";
import { Store } from "../sim/store.ts";
import { World } from "../sim/world.ts";

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
const received: OutboxChange[] = [
  { change: "keep", id, offer },
  { change: "record", body: { type: "received", command: id } },
];
const gap = (n: number) => ({ type: "gap", from: n, to: n, count: 1 }) as const;
const sent = async (after: number) => {
  await outbox.synced();
  return outbox.after(after, 10).map(({ seq, at }) => [seq, at]);
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

test("on a full disk a session begins, and what was stored is forgotten when there is room", async () => {
  outbox.resume(0);
  for (const n of [1, 2, 3]) outbox.append(gap(n), n);
  await outbox.synced();
  const { exec } = DatabaseSync.prototype;
  const full = vi.spyOn(DatabaseSync.prototype, "exec").mockImplementation(function (
    this: DatabaseSync,
    sql,
  ) {
    if (sql === "COMMIT") throw Object.assign(new Error("database or disk is full"), { errcode: 13 });
    exec.call(this, sql);
  });
  try {
    expect(() => outbox.append(gap(4), 4)).toThrow("full");
    outbox.acknowledge(1);
    outbox.resume(2);
    expect(outbox.recordCount).toBe(3);
  } finally {
    full.mockRestore();
  }
  expect(await sent(2)).toEqual([[3, 3]]);
  outbox.acknowledge(2);
  expect(outbox.recordCount).toBe(1);
  reopen();
  expect(outbox.recordCount).toBe(1);
});

test("an offer and its record survive a restart together", async () => {
  outbox.commit(received, 5);
  reopen();
  expect(outbox.operation(id)).toMatchObject({
    ...{ id, state: "received", eventSeq: 0, outputEnd: 0, ending: null, answered: false },
    offer: { ...offer, document: expect.any(Uint8Array) },
  });
  expect([...outbox.operation(id)!.offer!.document]).toEqual([1, 2, 3]);
  await outbox.synced();
  expect(outbox.after(0, 10)).toEqual([{ seq: 1, at: 5, body: { type: "received", command: id } }]);
});

test("a transaction that cannot be made leaves nothing", () => {
  outbox.commit(received, 5);
  expect(() => outbox.commit([{ change: "record", body: gap(1) }, ...received], 6)).toThrow();
  expect(outbox.recordCount).toBe(1);
  reopen();
  expect(outbox.recordCount).toBe(1);
});

test("a result ends the operation, and what is acknowledged is gone while numbers go on", async () => {
  const result = { outcome: "succeeded", startedAt: 1, endedAt: 2 } as const;
  outbox.commit(received, 5);
  outbox.commit(
    [
      { change: "move", id, state: "succeeded", eventSeq: 3 },
      { change: "record", body: { type: "result", command: id, result } },
    ],
    9,
  );
  expect(outbox.openOperations()).toEqual([]);
  expect(outbox.operation(id)).toMatchObject({ eventSeq: 3, endingSeq: 2, answered: false });
  outbox.acknowledge(2);
  expect(outbox.operation(id)).toMatchObject({ answered: true });
  expect(outbox.recordBytes).toBe(0);
  reopen();
  expect(outbox.operation(id)).toMatchObject({ answered: true });
  outbox.append(gap(1), 10);
  expect(await sent(0)).toEqual([[3, 10]]);
});

test("sizes are counted along, as a recount would find them", () => {
  const counted = () => [outbox.recordCount, outbox.recordBytes, outbox.outputBytes];
  for (let i = 0; i < 20; i++) {
    outbox.append(gap(i), i);
    outbox.append({ type: "output", command: id, stream: "stdout", offset: i, data: "AAAA" }, i);
  }
  outbox.resume(0);
  outbox.acknowledge(7);
  outbox.resume(9);
  const before = counted();
  expect(before[0]).toBe(31);
  expect(before[2]).toBeGreaterThan(0);
  expect(before[2]).toBeLessThan(before[1]!);
  reopen();
  expect(counted()).toEqual(before);
});

test("a young file goes on above what the controller has, so that nothing is taken for a repetition", async () => {
  outbox.append(gap(1), 1);
  outbox.append(gap(2), 2);
  outbox.resume(100);
  outbox.append(gap(3), 3);
  expect(await sent(100)).toEqual([
    [101, 1],
    [102, 2],
    [103, 3],
  ]);
});

test("a file set back to an old copy loses nothing of what came after, and leaves no hole", async () => {
  for (let i = 1; i <= 3; i++) outbox.append(gap(i), i);
  outbox.resume(0);
  outbox.acknowledge(2);
  await outbox.synced();
  outbox[Symbol.dispose]();
  // From here on the controller heard 40 records of another life of this file; this one makes some of its own, offline.
  outbox = openOutbox(join(directory, "agent.db"));
  for (let i = 4; i <= 6; i++) outbox.append(gap(i), i);
  reopen();
  outbox.resume(40);
  expect(await sent(40)).toEqual([
    [41, 3],
    [42, 4],
    [43, 5],
    [44, 6],
  ]);
});

test("what was kept before a controller was set back is not sent twice, nor forgotten", async () => {
  for (let i = 1; i <= 5; i++) outbox.append(gap(i), i);
  outbox.resume(0);
  outbox.acknowledge(4);
  outbox.resume(1);
  expect(await sent(1)).toEqual([[5, 5]]);
  outbox.acknowledge(1);
  expect(await sent(1)).toEqual([[5, 5]]);
});

test("a resumed session forgets what the controller has stored", async () => {
  for (let i = 0; i < 3; i++) outbox.append(gap(i), i);
  outbox.resume(0);
  outbox.resume(2);
  expect(await sent(2)).toEqual([[3, 2]]);
  expect(outbox.recordCount).toBe(1);
});

test("a record is handed out only when it is durable, and then it is told", async () => {
  let told = 0;
  using other = openOutbox(join(directory, "other.db"), { onDurable: () => told++ });
  other.append(gap(1), 1);
  expect(other.after(0, 10)).toEqual([]);
  await other.synced();
  expect(told).toBeGreaterThan(0);
  expect(other.after(0, 10)).toHaveLength(1);
});

test("nothing is handed out before it is durable that a session began", async () => {
  outbox.append(gap(1), 1);
  await outbox.synced();
  expect(outbox.after(0, 10)).toHaveLength(1);
  outbox.resume(0);
  expect(outbox.after(0, 10)).toEqual([]);
  await outbox.synced();
  expect(outbox.after(0, 10)).toHaveLength(1);
});

test("a file of the first version is brought up to date, and counts as told", () => {
  const file = join(directory, "old.db");
  const old = new DatabaseSync(file);
  old.exec(`
    CREATE TABLE operations (id TEXT PRIMARY KEY, state TEXT NOT NULL, ended INTEGER NOT NULL, event_seq INTEGER NOT NULL,
      document BLOB NOT NULL, rest TEXT NOT NULL, changed_at INTEGER NOT NULL) STRICT;
    CREATE TABLE records (seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, bytes INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
    INSERT INTO operations VALUES ('${id}', 'running', 0, 2, x'01', '{"signatures":[],"generation":1,"epoch":1,"sources":[]}', 1);
    INSERT INTO records (at, bytes, body) VALUES (1, 2, '{"type":"gap","from":1,"to":1,"count":1}'), (2, 2, '{"type":"gap","from":2,"to":2,"count":1}');
    DELETE FROM records WHERE seq = 1;
    PRAGMA user_version = 1;
  `);
  old.close();
  using outbox = openOutbox(file);
  expect(outbox.openOperations()).toMatchObject([{ id, state: "running", eventSeq: 2, outputEnd: 0 }]);
  outbox.resume(1);
  expect(outbox.recordCount).toBe(1);
  outbox.resume(2);
  expect(outbox.recordCount).toBe(0);
});

test("tombstones are kept, but not without end", () => {
  const ending = { type: "refused", command: id, error: { code: "internal", message: "m" } } as const;
  for (let batch = 0; batch < 12; batch++) {
    const changes = Array.from({ length: 1000 }, (_, i) => {
      return { change: "tombstone", id: `t-${batch}-${i}`, ending } as const;
    });
    outbox.commit(changes, batch);
  }
  expect(outbox.operation("t-11-999")).toMatchObject({ offer: null, state: "cancelled", ending });
  expect(outbox.operation("t-0-0")).toBeUndefined();
});

// The simulator's outbox keeps no rule of its own, but it does keep: it must do so as the real one does.
test("the simulator's outbox is like this one, whatever is done to both", async () => {
  const ids = ["a", "b", "c"];
  const act = fc.oneof(
    fc.record({ act: fc.constant("keep" as const), id: fc.constantFrom(...ids) }),
    fc.record({ act: fc.constant("end" as const), id: fc.constantFrom(...ids) }),
    fc.record({ act: fc.constant("tombstone" as const), id: fc.constantFrom(...ids) }),
    fc.record({ act: fc.constant("append" as const), n: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ act: fc.constant("output" as const), bytes: fc.integer({ min: 1, max: 40 }) }),
    fc.record({ act: fc.constant("acknowledge" as const), seq: fc.integer({ min: 0, max: 30 }) }),
    fc.record({ act: fc.constant("resume" as const), stored: fc.integer({ min: 0, max: 30 }) }),
    fc.constant({ act: "reopen" as const }),
  );
  let file = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(act, { maxLength: 25 }), async (acts) => {
      const world = new World();
      const history = createHistory(() => 0, false);
      const machine = new Machine({ name: "model", world, random: createRandom(1, "model"), history });
      const store = new Store<OutboxState>(machine, "outbox", emptyOutbox(intact));
      let uid = 0;
      const openModel = () =>
        new ModelOutbox({
          ...{ owner: { name: "model", alive: true }, store, rules: intact, uid: () => ++uid },
          ...{ onDurable() {}, onAcknowledged() {}, onForgotten() {} },
        });
      const path = join(directory, `model-${file++}.db`);
      let [model, real] = [openModel(), openOutbox(path)];
      const commit = (...changes: OutboxChange[]) => {
        model.commit(changes, 1);
        real.commit(changes, 1);
      };
      try {
        for (const each of acts) {
          const known = "id" in each ? model.operation(each.id) : undefined;
          switch (each.act) {
            case "keep":
              if (known === undefined)
                commit({ change: "keep", id: each.id, offer }, record(each.id, "received"));
              break;
            case "end":
              if (known?.state === "received")
                commit({ change: "move", id: each.id, state: "refused" }, record(each.id, "refused"));
              break;
            case "tombstone":
              if (known === undefined) commit({ change: "tombstone", id: each.id, ending: gap(1) });
              break;
            case "append":
              for (let i = 0; i < each.n; i++) commit({ change: "record", body: gap(i) });
              break;
            case "output":
              commit({ change: "record", body: outputOf(each.bytes) });
              break;
            case "acknowledge":
              model.acknowledge(each.seq);
              real.acknowledge(each.seq);
              break;
            case "resume":
              model.resume(each.stored);
              real.resume(each.stored);
              break;
            case "reopen":
              real[Symbol.dispose]();
              [model, real] = [openModel(), openOutbox(path)];
          }
          await real.synced();
          model.synced(() => {});
          world.run(world.now + 2_000);
          expect(real.after(0, 100).map(({ seq, body }) => [seq, body])).toEqual(
            model.after(0, 100).map(({ seq, body }) => [seq, body]),
          );
          expect(real.recordCount).toBe(model.state.records.length);
          expect(real.outputBytes > 0).toBe(model.outputBytes > 0);
          for (const id of ids) expect(stateOf(real.operation(id))).toEqual(stateOf(model.operation(id)));
        }
      } finally {
        real[Symbol.dispose]();
      }
    }),
    { numRuns: 30 },
  );
});

const record = (command: string, type: "received" | "refused"): OutboxChange => ({
  change: "record",
  body:
    type === "received"
      ? { type, command }
      : { type, command, error: { code: "policy.denied", message: "no" } },
});
const outputOf = (bytes: number): RecordBody => ({
  ...({ type: "output", command: id, stream: "stdout", offset: 0 } as const),
  data: Buffer.alloc(bytes).toString("base64"),
});
const stateOf = (operation: ReturnType<Outbox["operation"]>) =>
  operation && {
    ...operation,
    offer: operation.offer && { ...operation.offer, document: [...operation.offer.document] },
  };
