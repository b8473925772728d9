import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  committed,
  firstNumbers,
  type KeptOperation,
  type OutboxChange,
} from "../../agent/link/outbox-rules.ts";
import { reduceOperations } from "../../agent/operations/reduce.ts";
import {
  type Effect,
  type JournalledOrAnswer,
  noOperations,
  type OperationsEvent,
  type OperationsFacts,
  type OperationsState,
  operationLimits,
} from "../../agent/operations/state.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { limits } from "../../protocol/limits.ts";
import type { RecordBody } from "../../protocol/messages.ts";

const offerOf = (id: string) => ({
  document: Uint8Array.from(Buffer.from(id)),
  ...{ signatures: [], generation: 1, epoch: 1, sources: [] },
});
const result = (outcome: "succeeded" | "failed", seq: number): JournalledOrAnswer => ({
  ...{ type: "result", seq, at: 1, result: { outcome, startedAt: 1, endedAt: 2 } },
});

type Given = OperationsEvent extends infer E ? (E extends { known: unknown } ? Omit<E, "known"> : E) : never;

/** The reducer with an outbox in memory: what is said to it, and what came of it. */
function agent(before: readonly (KeptOperation & { changesState: boolean })[] = []) {
  let state: OperationsState = noOperations;
  const operations = new Map<string, KeptOperation>(before.map((kept) => [kept.id, kept]));
  const records: RecordBody[] = [];
  let answered = false;
  const facts = { monotonicMs: 0, unixMs: 1000, recordBytes: 0, outputBytes: 0 };
  const tell = (given: Given): readonly Effect[] => {
    const known = "id" in given ? operations.get(given.id) : undefined;
    const event = { ...given, known: known && { ...known, answered } } as OperationsEvent;
    const step = reduceOperations(state, event, facts as OperationsFacts);
    const after = committed(firstNumbers, (id) => operations.get(id), step.changes);
    for (const operation of after.operations.values()) operations.set(operation.id, operation);
    records.push(...after.records.map(({ body }) => body));
    state = step.state;
    return step.effects;
  };
  const self = {
    ...{ facts, records, operations, tell },
    get state() {
      return state;
    },
    offer: (id: string, changesState = true, runs: "agent" | "executor" = "executor") =>
      tell({ event: "offer", id, runs, changesState, offer: offerOf(id) }),
    /** Its executor is started and listens. */
    follow(id: string) {
      return [
        ...tell({ event: "absent", id, ended: false, trouble: "" }),
        ...tell({ event: "started", id }),
        ...tell({ event: "attached", id }),
      ];
    },
    say: (id: string, said: JournalledOrAnswer) => tell({ event: "said", id, said }),
    notKnown: (id: string) =>
      self.say(id, { type: "refused", seq: 1, at: 1, error: { code: "command.not-known", message: "" } }),
    /** Everything it told was stored, and it is asked again. */
    setAnswered() {
      answered = true;
    },
    types: (id: string) =>
      records.filter((body) => "command" in body && body.command === id).map(({ type }) => type),
  };
  self.tell({ event: "opened", operations: before });
  return self;
}

const kept = (id: string, state: KeptOperation["state"]): KeptOperation & { changesState: boolean } => ({
  ...{ id, state, eventSeq: 0, outputEnd: 0, offer: offerOf(id), ending: null, endingSeq: 0 },
  changesState: true,
});
const attached = (effects: readonly Effect[]) =>
  effects.filter(({ effect }) => effect === "attach").map(({ id }) => id);
const started = (effects: readonly Effect[]) =>
  effects.flatMap((effect) => (effect.effect === "start" ? [`${effect.request} ${effect.id}`] : []));

describe("turns", () => {
  test("what changes the host begins one after the other, in order of arrival; reads begin at once", () => {
    const self = agent();
    expect(attached(self.offer("a"))).toEqual(["a"]);
    expect(attached(self.offer("b"))).toEqual([]);
    expect(attached(self.offer("read", false))).toEqual(["read"]);
    expect(attached(self.offer("c"))).toEqual([]);
    self.follow("a");
    expect(attached(self.say("a", { type: "accepted", seq: 1, at: 1 }))).toEqual(["b"]);
    self.follow("b");
    const error = { code: "executor.lane-busy", message: "busy" };
    expect(attached(self.say("b", { type: "refused", seq: 1, at: 1, error }))).toEqual(["c"]);
  });

  test("one whose executors die keeps its turn until the agent gives up", () => {
    const self = agent();
    self.offer("a");
    self.offer("b");
    let began: readonly string[] = [];
    for (let death = 1; death <= operationLimits.deathsMax; death++) {
      expect(began).toEqual([]);
      self.tell({ event: "absent", id: "a", ended: false, trouble: "" });
      self.tell({ event: "started", id: "a" });
      began = attached(self.tell({ event: "absent", id: "a", ended: true, trouble: "it fell over" }));
      self.tell({ event: "paused", id: "a" });
    }
    expect(began).toEqual(["b"]);
    expect(self.records.find(({ type }) => type === "result")).toMatchObject({
      command: "a",
      result: { outcome: "indeterminate", error: { code: "executor.failed", message: /fell over/ } },
    });
  });

  test("what no executor ever got is refused, not in doubt", () => {
    const self = agent();
    self.offer("a");
    for (let death = 1; death <= operationLimits.deathsMax; death++) {
      self.tell({ event: "absent", id: "a", ended: false, trouble: "" });
      self.tell({ event: "not-started", id: "a", trouble: "no fork" });
      self.tell({ event: "paused", id: "a" });
    }
    expect(self.types("a")).toEqual(["received", "refused"]);
  });
});

test("a pause is told to its executor, to each that follows it, and kept for an offer that waits for room", () => {
  const pauses = (effects: readonly Effect[]) =>
    effects.flatMap((effect) =>
      effect.effect === "send" && "pause" in effect.request ? [effect.request.pause.paused] : [],
    );
  const self = agent();
  // Of what is not here nothing is kept: it is said again after its offer.
  expect(self.tell({ event: "pausing", id: "a", paused: true })).toEqual([]);
  self.offer("a");
  self.tell({ event: "pausing", id: "a", paused: true });
  expect(pauses(self.follow("a"))).toEqual([true]);
  expect(pauses(self.tell({ event: "pausing", id: "a", paused: false }))).toEqual([false]);
  self.tell({ event: "lost", id: "a", trouble: "" });
  self.tell({ event: "paused", id: "a" });
  expect(pauses(self.follow("a"))).toEqual([false]);
  self.tell({ event: "pausing", id: "a", paused: true });
  self.tell({ event: "link", link: "up" });
  self.facts.monotonicMs += operationLimits.confirmMs - 1;
  expect(pauses(self.tell({ event: "paused", id: "a" }))).toEqual([]);
  // A controller that says nothing of it in this session does not know that it waits.
  self.facts.monotonicMs += 1;
  expect(pauses(self.tell({ event: "paused", id: "a" }))).toEqual([false]);
  self.tell({ event: "link", link: "down" });
  self.tell({ event: "link", link: "up" });
  self.tell({ event: "pausing", id: "a", paused: true });
  self.facts.monotonicMs += operationLimits.confirmMs;
  expect(pauses(self.tell({ event: "paused", id: "a" }))).toEqual([]);
  self.facts.recordBytes = limits.outboxRecordBytesMax;
  self.offer("b", false);
  self.tell({ event: "pausing", id: "b", paused: true });
  self.offer("b", false);
  self.facts.recordBytes = 0;
  self.tell({ event: "acknowledged" });
  expect(pauses(self.follow("b"))).toEqual([true]);
});

describe("cancel", () => {
  test("only if it is known: what another machine may have is not called cancelled, and is taken when it comes", () => {
    const self = agent();
    self.tell({ event: "opened", operations: [], audit: undefined });
    self.tell({ event: "cancel", id: "a", ifKnown: true });
    expect(self.records).toEqual([]);
    self.offer("a");
    expect(self.types("a")).toEqual(["received"]);
    self.follow("a");
    const effects = self.tell({ event: "cancel", id: "a", ifKnown: true });
    expect(effects).toContainEqual(expect.objectContaining({ effect: "send", id: "a" }));
  });

  test("is passed to the executor once, again to the next one, and its answer is a record", () => {
    const self = agent();
    self.offer("a");
    self.follow("a");
    self.say("a", { type: "accepted", seq: 1, at: 1 });
    const sent = (effects: readonly Effect[]) =>
      effects.filter((effect) => effect.effect === "send" && "cancel" in effect.request).length;
    expect(sent(self.tell({ event: "cancel", id: "a" }))).toBe(1);
    expect(sent(self.tell({ event: "cancel", id: "a" }))).toBe(0);
    self.say("a", { type: "cancel", answer: "cancelling", reason: "soon" });
    expect(self.records.at(-1)).toEqual({
      ...{ type: "cancel", command: "a", answer: "cancelling", reason: "soon" },
    });
    self.tell({ event: "lost", id: "a", trouble: "" });
    self.tell({ event: "paused", id: "a" });
    expect(sent(self.follow("a"))).toBe(1);
  });

  test("of what waits for its turn asks the journal, holds back no other, and is answered when that knows nothing", () => {
    const self = agent();
    self.offer("a");
    self.offer("b");
    self.offer("c");
    expect(attached(self.tell({ event: "cancel", id: "b" }))).toEqual(["b"]);
    expect(started(self.follow("b"))).toEqual(["ask b"]);
    self.notKnown("b");
    expect(self.types("b")).toEqual(["received", "cancel", "result"]);
    expect(self.operations.get("b")).toMatchObject({ state: "cancelled" });
    self.follow("a");
    expect(attached(self.say("a", { type: "accepted", seq: 1, at: 1 }))).toEqual(["c"]);
  });

  test("of what the journal does know reaches its executor", () => {
    const self = agent();
    self.offer("a");
    self.offer("b");
    self.tell({ event: "cancel", id: "b" });
    const effects = self.follow("b");
    expect(effects).toContainEqual({
      ...{ effect: "send", id: "b", request: { cancel: { reason: "asked by the controller" } } },
    });
    self.say("b", { type: "accepted", seq: 1, at: 1 });
    expect(self.types("b")).toEqual(["received", "accepted"]);
  });

  test("of what never came is remembered: a late offer is answered, and never run", () => {
    const self = agent();
    self.tell({ event: "cancel", id: "a" });
    expect(self.types("a")).toEqual(["cancel", "result"]);
    expect(self.operations.get("a")).toMatchObject({ state: "cancelled", offer: null });
    expect(self.offer("a")).toEqual([]);
    expect(self.types("a")).toEqual(["cancel", "result"]);
    self.setAnswered();
    expect(self.offer("a")).toEqual([]);
    expect(self.types("a")).toEqual(["cancel", "result", "result"]);
  });

  test("of what has ended is too late", () => {
    const self = agent();
    self.offer("a");
    self.follow("a");
    self.say("a", result("succeeded", 1));
    self.tell({ event: "cancel", id: "a" });
    expect(self.records.at(-1)).toMatchObject({ type: "cancel", answer: "too-late" });
  });
});

describe("what an earlier process took", () => {
  test("goes on where the journal knows it", () => {
    const self = agent([kept("a", "received"), kept("b", "running")]);
    expect(started(self.follow("a"))).toEqual(["ask a"]);
    expect(started(self.follow("b"))).toEqual(["run b"]);
    self.say("a", { type: "accepted", seq: 1, at: 1 });
    expect(self.types("a")).toEqual(["accepted"]);
  });

  test("does not begin before the controller repeats it, and then in its turn", () => {
    const self = agent([kept("a", "received"), kept("b", "received")]);
    for (const id of ["a", "b"]) {
      self.follow(id);
      self.notKnown(id);
    }
    expect([...self.state.open.values()].map(({ step }) => step)).toEqual(["unconfirmed", "unconfirmed"]);
    expect(attached(self.offer("a"))).toEqual(["a"]);
    expect(started(self.follow("a"))).toEqual(["run a"]);
    expect(attached(self.offer("b"))).toEqual([]);
  });

  test("begins in the order in which it is repeated, which may not be that in which it first came", () => {
    const self = agent([kept("a", "received")]);
    self.follow("a");
    self.notKnown("a");
    expect(attached(self.offer("earlier"))).toEqual(["earlier"]);
    expect(attached(self.offer("a"))).toEqual([]);
    // While it is looked up nobody knows whether it comes first.
    const other = agent([kept("a", "received")]);
    expect(attached(other.offer("earlier"))).toEqual([]);
    expect(attached(other.offer("a"))).toEqual(["earlier"]);
    other.follow("a");
    other.notKnown("a");
    other.tell({ event: "paused", id: "a" });
    expect(other.state.open.get("a")?.step).toBe("queued");
  });

  test("repeated while the journal is asked, it still waits for its turn", () => {
    const self = agent([kept("a", "received"), kept("b", "received")]);
    self.offer("a");
    self.offer("b");
    expect(started(self.tell({ event: "absent", id: "b", ended: false, trouble: "" }))).toEqual([]);
    expect(self.state.open.get("b")?.step).toBe("queued");
  });

  test("is given up when the link has been up for long and nobody asked for it", () => {
    const self = agent([kept("a", "received")]);
    self.follow("a");
    self.notKnown("a");
    self.tell({ event: "paused", id: "a" });
    const [patience] = self.tell({ event: "link", link: "up" }).filter(({ effect }) => effect === "pause");
    expect(patience).toMatchObject({ id: "a" });
    self.facts.monotonicMs = operationLimits.confirmMs - 1;
    self.tell({ event: "paused", id: "a" });
    expect(self.state.open.size).toBe(1);
    self.facts.monotonicMs = operationLimits.confirmMs;
    self.tell({ event: "paused", id: "a" });
    expect(self.state.open.size).toBe(0);
    expect(self.types("a")).toEqual(["result"]);
  });
});

describe("a controller that lost the answer", () => {
  test("hears the end from the journal, without a second run", () => {
    const self = agent();
    self.offer("a");
    self.follow("a");
    self.say("a", { type: "accepted", seq: 1, at: 1 });
    self.say("a", result("failed", 2));
    expect(self.offer("a")).toEqual([]);
    self.setAnswered();
    expect(attached(self.offer("a"))).toEqual(["a"]);
    expect(attached(self.offer("a"))).toEqual([]);
    expect(started(self.follow("a"))).toEqual(["follow a"]);
    self.say("a", { type: "accepted", seq: 1, at: 1 });
    self.say("a", result("failed", 2));
    expect(self.types("a")).toEqual(["received", "accepted", "result", "result"]);
    expect(self.state.open.size).toBe(0);
  });

  test("hears at least how it ended when the journal is silent", () => {
    const self = agent();
    self.offer("a");
    self.follow("a");
    self.say("a", result("succeeded", 1));
    self.setAnswered();
    self.offer("a");
    for (let death = 1; death <= operationLimits.replayDeathsMax; death++) {
      self.tell({ event: "absent", id: "a", ended: false, trouble: "" });
      self.tell({ event: "started", id: "a" });
      self.tell({ event: "absent", id: "a", ended: true, trouble: "" });
      self.tell({ event: "paused", id: "a" });
    }
    expect(self.records.at(-1)).toMatchObject({ type: "result", result: { outcome: "succeeded" } });
    expect(self.state.open.size).toBe(0);
  });
});

describe("output", () => {
  const piece = (offset: number, bytes: number): JournalledOrAnswer => ({
    ...{ type: "output", stream: "stdout", offset, data: Buffer.alloc(bytes, 7).toString("base64") },
  });
  const running = () => {
    const self = agent();
    self.offer("a");
    self.follow("a");
    self.say("a", { type: "running", seq: 1, at: 1, run: 1 });
    return self;
  };

  test("becomes records once, whatever an executor repeats", () => {
    const self = running();
    self.say("a", piece(0, 10));
    self.say("a", piece(0, 10));
    self.say("a", piece(5, 10));
    self.say("a", piece(100, 1));
    const output = self.records.filter((body) => body.type === "output");
    expect(output.map(({ offset, data }) => [offset, Buffer.from(data, "base64").length])).toEqual([
      [0, 10],
      [10, 5],
      [100, 1],
    ]);
    expect(self.operations.get("a")).toMatchObject({ outputEnd: 101 });
  });

  test("is read no further when too much of it waits, until some is acknowledged", () => {
    const self = running();
    self.facts.outputBytes = operationLimits.outputBytesMax - 10;
    expect(self.say("a", piece(0, 30))).toEqual([{ effect: "hold", id: "a" }]);
    self.facts.outputBytes = operationLimits.outputBytesMax + 30;
    expect(self.tell({ event: "acknowledged" })).toEqual([]);
    self.facts.outputBytes = 0;
    expect(self.tell({ event: "acknowledged" })).toEqual([{ effect: "read-on", id: "a" }]);
    expect(self.tell({ event: "acknowledged" })).toEqual([]);
  });

  test("is not taken where there is no room at all, and read again from there", () => {
    const self = running();
    self.facts.outputBytes = operationLimits.outputBytesMax;
    expect(self.say("a", piece(0, 30))).toEqual([{ effect: "detach", id: "a" }]);
    expect(self.types("a")).not.toContain("output");
    self.facts.outputBytes = 0;
    expect(self.tell({ event: "acknowledged" })).toEqual([
      { effect: "attach", id: "a", afterSeq: 1, afterOutput: 0 },
    ]);
  });
});

describe("room", () => {
  test("offers wait for it in order, and are taken as it comes", () => {
    const self = agent();
    self.facts.recordBytes = 16 << 20;
    self.offer("a");
    self.offer("b", false);
    expect([self.records, self.state.waiting.map(({ id }) => id)]).toEqual([[], ["a", "b"]]);
    self.facts.recordBytes = 0;
    expect(attached(self.tell({ event: "acknowledged" }))).toEqual(["a", "b"]);
    expect(self.records.map((body) => "command" in body && body.command)).toEqual(["a", "b"]);
  });

  test("a cancel meanwhile is answered from the journal, when there is room to ask", () => {
    const self = agent();
    self.facts.recordBytes = 16 << 20;
    self.offer("a");
    self.tell({ event: "cancel", id: "a" });
    expect(self.records).toEqual([]);
    self.facts.recordBytes = 0;
    self.tell({ event: "acknowledged" });
    expect(started(self.follow("a"))).toEqual(["ask a"]);
    self.notKnown("a");
    expect(self.types("a")).toEqual(["received", "cancel", "result"]);
  });

  test("what is repeated does not overtake what waits", () => {
    const self = agent([kept("b", "received")]);
    self.follow("b");
    self.notKnown("b");
    self.facts.recordBytes = 16 << 20;
    self.offer("a");
    expect(self.offer("b")).toEqual([]);
    expect(self.state.open.get("b")?.step).toBe("unconfirmed");
    self.facts.recordBytes = 0;
    expect(attached(self.tell({ event: "acknowledged" }))).toEqual(["a"]);
    self.follow("a");
    expect(attached(self.say("a", { type: "accepted", seq: 1, at: 1 }))).toEqual(["b"]);
  });

  test("what waits when the link breaks comes again with the next session", () => {
    const self = agent();
    self.tell({ event: "link", link: "up" });
    self.facts.recordBytes = 16 << 20;
    self.offer("a");
    self.tell({ event: "link", link: "down" });
    expect(self.state.waiting).toEqual([]);
  });

  test("beyond the bound of what may wait a command is refused, and beyond that nothing is said", () => {
    const self = agent();
    self.facts.recordBytes = 16 << 20;
    for (let i = 0; i < operationLimits.waitingMax; i++) self.offer(`${i}`);
    expect(self.records).toEqual([]);
    self.offer("more");
    expect(self.records).toMatchObject([{ type: "refused", error: { code: "agent.outbox-full" } }]);
    self.facts.recordBytes = operationLimits.refusalBytesMax;
    expect(self.offer("even more")).toMatchObject([{ effect: "log" }]);
    expect(self.records).toHaveLength(1);
  });
});

test("executors that are followed are told of the link, and at once how it is", () => {
  const self = agent();
  self.tell({ event: "link", link: "up" });
  self.offer("a");
  expect(self.follow("a")).toContainEqual({ effect: "send", id: "a", request: { link: "up" } });
  expect(self.tell({ event: "link", link: "down" })).toEqual([
    { effect: "send", id: "a", request: { link: "down" } },
  ]);
  expect(self.tell({ event: "link", link: "down" })).toEqual([]);
});

test("what needs no right is recorded in one step, and run again when a controller lost the answer", () => {
  const self = agent();
  const [run] = self.offer("a", false, "agent");
  expect(run).toMatchObject({ effect: "run-here", id: "a" });
  expect(self.offer("a", false, "agent")).toEqual([]);
  const done = { outcome: "succeeded", startedAt: 1, endedAt: 2 } as const;
  self.tell({ event: "done-here", id: "a", offer: offerOf("a"), result: done });
  expect(self.types("a")).toEqual(["received", "accepted", "result"]);
  self.setAnswered();
  expect(self.offer("a", false, "agent")).toMatchObject([{ effect: "run-here" }]);
  self.tell({ event: "done-here", id: "a", offer: offerOf("a"), result: done });
  expect(self.types("a")).toEqual(["received", "accepted", "result", "result"]);
});

test("other content under a known id is ignored", () => {
  const self = agent();
  self.offer("a");
  const effects = self.tell({
    ...{ event: "offer", id: "a", runs: "executor", changesState: true, offer: offerOf("other") },
  });
  expect(effects).toMatchObject([{ effect: "log", level: "error" }]);
  expect(Buffer.from(self.operations.get("a")!.offer!.document).toString()).toBe("a");
});

// Whatever happens in whatever order, also what a shell that keeps to the effects would never say.
test("any sequence of events leaves a legal outbox, one turn at a time, and nothing begun that must not", () => {
  const id = fc.constantFrom("a", "b", "c", "d");
  const said: fc.Arbitrary<JournalledOrAnswer> = fc.oneof(
    fc.record({
      type: fc.constant("accepted" as const),
      seq: fc.integer({ min: 1, max: 5 }),
      at: fc.constant(1),
    }),
    fc.record({
      ...{ type: fc.constant("running" as const), seq: fc.integer({ min: 1, max: 5 }), at: fc.constant(1) },
      run: fc.integer({ min: 1, max: 3 }),
    }),
    fc.integer({ min: 1, max: 5 }).map((seq) => result("succeeded", seq)),
    fc.constantFrom("policy.denied", "command.not-known").map((code) => ({
      ...{ type: "refused" as const, seq: 1, at: 1, error: { code, message: "" } },
    })),
    fc.constant({ type: "cancel" as const, answer: "cancelling" as const, reason: "" }),
  );
  const happening: fc.Arbitrary<Given> = fc
    .oneof(
      { weight: 4, arbitrary: fc.record({ event: fc.constant("offer" as const), id, read: fc.boolean() }) },
      { weight: 2, arbitrary: fc.record({ event: fc.constant("cancel" as const), id }) },
      { weight: 3, arbitrary: fc.record({ event: fc.constant("attached" as const), id }) },
      { weight: 4, arbitrary: fc.record({ event: fc.constant("absent" as const), id, ended: fc.boolean() }) },
      { weight: 3, arbitrary: fc.record({ event: fc.constant("started" as const), id }) },
      { weight: 1, arbitrary: fc.record({ event: fc.constant("not-started" as const), id }) },
      { weight: 6, arbitrary: fc.record({ event: fc.constant("said" as const), id, said }) },
      { weight: 2, arbitrary: fc.record({ event: fc.constant("lost" as const), id }) },
      { weight: 3, arbitrary: fc.record({ event: fc.constant("paused" as const), id }) },
      {
        weight: 1,
        arbitrary: fc.record({ event: fc.constant("link" as const), link: fc.constantFrom("up", "down") }),
      },
      { weight: 1, arbitrary: fc.constant({ event: "acknowledged" as const }) },
    )
    .map((each) =>
      each.event === "offer"
        ? {
            ...{ event: "offer" as const, id: each.id, runs: "executor" as const },
            ...{ changesState: !each.read, offer: offerOf(each.id) },
          }
        : ({ trouble: "", ...each } as Given),
    );
  fc.assert(
    fc.property(
      fc.array(happening, { maxLength: 80 }),
      fc.array(fc.constantFrom("received", "accepted", "running"), { maxLength: 3 }),
      fc.boolean(),
      (happenings, states, answered) => {
        const self = agent(states.map((state, index) => kept(["a", "b", "c"][index]!, state as "received")));
        if (answered) self.setAnswered();
        for (const each of happenings) {
          self.facts.monotonicMs += 10_000;
          const before = self.state;
          const effects = self.tell(each);
          for (const effect of effects) {
            if (effect.effect !== "start" || effect.request !== "run") continue;
            const operation = self.state.open.get(effect.id)!;
            expect(operation.state !== "received" || (operation.confirmed && !operation.cancel)).toBe(true);
          }
          const turns = [...self.state.open.values()].filter(
            ({ mode, changesState, state, step, begun, asked, confirmed }) =>
              mode === "run" &&
              changesState &&
              state === "received" &&
              begun &&
              !asked &&
              confirmed &&
              step !== "queued",
          );
          expect(turns.length).toBeLessThanOrEqual(1);
          expect(new Set([...before.open.keys(), ...self.state.open.keys()]).size).toBeLessThanOrEqual(4);
        }
        for (const { id, mode } of self.state.open.values())
          expect(isTerminal(self.operations.get(id)!.state)).toBe(mode === "replay");
      },
    ),
    { numRuns: 500 },
  );
});

test("changes are applied as they are told", () => {
  const changes: OutboxChange[] = [
    { change: "keep", id: "a", offer: offerOf("a") },
    { change: "record", body: { type: "received", command: "a" } },
    { change: "move", id: "a", state: "refused", eventSeq: 1 },
    { change: "record", body: { type: "refused", command: "a", error: { code: "internal", message: "" } } },
  ];
  const after = committed(firstNumbers, () => undefined, changes);
  expect(after.records.map(({ seq }) => seq)).toEqual([1, 2]);
  expect(after.operations.get("a")).toMatchObject({ state: "refused", eventSeq: 1, endingSeq: 2 });
});
