// Which commands are due in a session, which generation they get, and what becomes of a record: the pure rules.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { assignGeneration } from "../../controller/rules/generation.ts";
import { dueSteps, holdOf, type OpenCommand, offering } from "../../controller/rules/offering.ts";
import { ignoredBecause, judgeRecord, lostMax } from "../../controller/rules/record-rule.ts";
import type { OperationState } from "../../protocol/commands.ts";
import type { Standing } from "../../protocol/schema.ts";

const open = (id: string, more: Partial<OpenCommand> = {}): OpenCommand => ({
  id,
  state: "waiting",
  changesState: true,
  signatures: 0,
  signaturesWanted: 0,
  generation: null,
  cancelRequestedAt: null,
  pause: null,
  documentBytes: 300,
  ...more,
});
const sent = (
  offered: Record<string, number> = {},
  cancelled: string[] = [],
  paused: Record<string, boolean> = {},
) => ({
  offered: new Map(Object.entries(offered)),
  cancelled: new Set(cancelled),
  paused: new Map(Object.entries(paused)),
});
const due = (commands: OpenCommand[], standing: Standing = "approved", session = sent(), nowMs = 0) => {
  const { steps, rest } = dueSteps(commands, standing, session, nowMs);
  return [...steps.map(({ step, id }) => `${step} ${id}`), ...(rest === "none" ? [] : [rest])];
};

describe("what is due", () => {
  test("each command once in a session, in order of creation; a cancel after its offer, once", () => {
    const commands = [open("a"), open("b", { cancelRequestedAt: 5 }), open("c")];
    expect(due(commands)).toEqual(["offer a", "offer b", "cancel b", "offer c"]);
    expect(due(commands, "approved", sent({ a: 0, b: 0 }))).toEqual(["cancel b", "offer c"]);
    expect(due(commands, "approved", sent({ a: 0, b: 0, c: 0 }, ["b"]))).toEqual([]);
  });

  test("what lacks signatures waits and holds back nothing else; complete, it is due", () => {
    const waiting = open("a", { signatures: 1, signaturesWanted: 2 });
    expect(holdOf(waiting, "approved")).toBe("signatures");
    expect(due([waiting, open("b")])).toEqual(["offer b"]);
    expect(due([{ ...waiting, signatures: 2 }, open("b")])).toEqual(["offer a", "offer b"]);
    // Cancelled and waiting still, it was sent perhaps by a controller that was set back since: its host is to say.
    expect(due([{ ...waiting, cancelRequestedAt: 1 }])).toEqual(["cancel a"]);
    expect(due([{ ...waiting, cancelRequestedAt: 1 }], "approved", sent({}, ["a"]))).toEqual([]);
    // Set back to before it was signed, and told by the host that it runs: it is asked about all the same.
    expect(due([{ ...waiting, state: "running", cancelRequestedAt: 1 }])).toEqual(["offer a", "cancel a"]);
  });

  test("a host that is not approved gets nothing; one in quarantine only reads", () => {
    const commands = [open("write"), open("read", { changesState: false })];
    expect(due(commands, "pending")).toEqual([]);
    expect(due(commands, "revoked")).toEqual([]);
    expect(due(commands, "quarantined")).toEqual(["offer read"]);
    expect(commands.map((command) => holdOf(command, "quarantined"))).toEqual(["quarantined", null]);
  });

  test("in quarantine nothing that changes the host is offered again, but the cancel of what was offered goes out", () => {
    const asked = { cancelRequestedAt: 5 };
    const commands = [
      open("running", { state: "running", generation: 1, ...asked }),
      open("offered", { state: "offered", generation: 2 }),
      open("never", asked),
      open("read", { changesState: false, state: "received", generation: 0, ...asked }),
    ];
    // A machine that does not know it must not say that it has put an end to it.
    expect(due(commands, "quarantined")).toEqual(["offer read", "cancel read", "cancel-known running"]);
    expect(due(commands, "quarantined", sent({ read: 0 }, ["read", "running"]))).toEqual([]);
    // Released: it is offered, and the cancel that its agent did not take follows.
    expect(due(commands.slice(0, 1), "approved", sent({}, ["running"]))).toEqual([
      "offer running",
      "cancel running",
    ]);
    expect(due(commands.slice(0, 1), "approved", sent({ running: 0 }, ["running"]))).toEqual([]);
    for (const standing of ["pending", "revoked"] as const) expect(due(commands, standing)).toEqual([]);
  });

  test("what has a generation goes first, lowest first: the host takes them in rising order only", () => {
    // `a` waited for signatures while `b` was sent; then `a` got the higher generation, and the connection broke.
    const commands = [
      open("a", { generation: 6, state: "offered" }),
      open("new"),
      open("b", { generation: 5, state: "offered" }),
    ];
    expect(due(commands)).toEqual(["offer b", "offer a", "offer new"]);
  });

  test(`${offering.inFlightMax} offers wait for the agent at most; confirmed and old ones make room`, () => {
    const many = Array.from({ length: offering.inFlightMax + 6 }, (_, i) => open(`c${i}`));
    const first = due(many);
    expect(first).toHaveLength(offering.inFlightMax + 1);
    expect(first.at(-1)).toBe("in-flight");
    const flying = Object.fromEntries(many.slice(0, offering.inFlightMax).map(({ id }) => [id, 100]));
    const offered = many.map((command) =>
      command.id in flying ? { ...command, state: "offered" as const } : command,
    );
    expect(due(offered, "approved", sent(flying), 100 + offering.answerMsMax - 1)).toEqual(["in-flight"]);
    const confirmed = offered.map((command, i) =>
      i < 2 ? { ...command, state: "received" as const } : command,
    );
    expect(due(confirmed, "approved", sent(flying), 101)).toEqual(["offer c64", "offer c65", "in-flight"]);
    // An agent that has no room for some says nothing of them: that holds back the others for a while only.
    expect(due(offered, "approved", sent(flying), 100 + offering.answerMsMax)).toHaveLength(6);
    // What the agent is known to have is offered to a new session beside all that.
    const running = open("running", { state: "running", generation: 1 });
    expect(due([...offered, running], "approved", sent(flying), 101)).toEqual(["offer running", "in-flight"]);
    // A cancel is no offer.
    const doomed = offered.map((command) => ({ ...command, cancelRequestedAt: 7 }));
    expect(due(doomed, "approved", sent(flying), 101)).toHaveLength(offering.inFlightMax + 1);
  });

  test("what was ever paused: said after its offer in each session, and again when it changes", () => {
    const running = { state: "running", generation: 1 } as const;
    const pausedOne = open("a", { ...running, pause: { paused: true } });
    expect(due([pausedOne])).toEqual(["offer a", "pause a"]);
    expect(due([pausedOne], "approved", sent({ a: 1 }, [], { a: true }))).toEqual([]);
    const resumed = { ...pausedOne, pause: { paused: false } };
    expect(due([resumed], "approved", sent({ a: 1 }, [], { a: true }))).toEqual(["resume a"]);
    // Its executor may remember that it was paused.
    expect(due([resumed])).toEqual(["offer a", "resume a"]);
    expect(due([{ ...pausedOne, cancelRequestedAt: 7 }])).toEqual(["offer a", "pause a", "cancel a"]);
    // What is not sent is not paused there.
    expect(due([pausedOne], "pending")).toEqual([]);
    expect(due([pausedOne], "quarantined")).toEqual(["pause a"]);
    const held = open("a", { signaturesWanted: 1, pause: { paused: true } });
    expect(due([held])).toEqual([]);
  });

  test("a round has a bound in bytes, and takes any one command", () => {
    const half = offering.roundBytesMax / 2;
    const commands = [open("a", { documentBytes: half }), open("b", { documentBytes: half }), open("c")];
    expect(due(commands)).toEqual(["offer a", "offer b", "next-round"]);
    expect(due([open("a", { documentBytes: 10 * half }), open("b")])).toEqual(["offer a", "next-round"]);
  });
});

describe("whatever there is", () => {
  const states: OperationState[] = ["waiting", "offered", "received", "accepted", "running"];
  const anyOpen = fc.record({
    state: fc.constantFrom(...states),
    changesState: fc.boolean(),
    signatures: fc.nat(3),
    signaturesWanted: fc.nat(3),
    generation: fc.option(fc.nat(9)),
    cancelRequestedAt: fc.option(fc.nat(9)),
    pause: fc.option(fc.record({ paused: fc.boolean() })),
    documentBytes: fc.nat(offering.roundBytesMax),
    wasOffered: fc.option(fc.nat(60_000)),
    wasCancelled: fc.boolean(),
  });
  const anyStanding = fc.constantFrom<Standing>("pending", "approved", "quarantined", "revoked");

  test("rounds come to an end, offer all that is not held once, and nothing that is", () => {
    fc.assert(
      fc.property(fc.array(anyOpen, { maxLength: 150 }), anyStanding, (drawn, standing) => {
        let commands = drawn.map((command, i) => ({ ...command, id: `c${i}` }));
        const offered = new Map<string, number>();
        const cancelled = new Set<string>();
        const paused = new Map<string, boolean>();
        for (const { id, wasOffered, wasCancelled } of commands) {
          if (wasOffered !== null) offered.set(id, wasOffered);
          if (wasOffered !== null && wasCancelled) cancelled.add(id);
        }
        const before = new Set(offered.keys());
        const told: string[] = [];
        let nowMs = 60_000;
        for (let rounds = 0; ; rounds++) {
          expect(rounds).toBeLessThanOrEqual(drawn.length + 5);
          const { steps, rest } = dueSteps(commands, standing, { offered, cancelled, paused }, nowMs);
          let bytes = 0;
          for (const { step, id } of steps) {
            const command = commands.find((each) => each.id === id)!;
            expect(told).not.toContain(`${step} ${id}`);
            told.push(`${step} ${id}`);
            if (step === "pause" || step === "resume") {
              expect(command.pause).toEqual({ paused: step === "pause" });
              expect(offered.has(id) || standing === "quarantined").toBe(true);
              paused.set(id, step === "pause");
              continue;
            }
            if (step !== "offer") {
              const lacking = holdOf(command, standing) === "signatures";
              expect(offered.has(id) || lacking).toBe(step === "cancel");
              expect(command.cancelRequestedAt !== null).toBe(true);
              cancelled.add(id);
              continue;
            }
            expect(holdOf(command, standing)).toBeNull();
            expect(bytes === 0 || bytes + command.documentBytes <= offering.roundBytesMax).toBe(true);
            bytes += command.documentBytes;
            offered.set(id, nowMs);
          }
          const flying = commands.filter(
            ({ id, state }) =>
              (state === "waiting" || state === "offered") &&
              offered.has(id) &&
              nowMs - offered.get(id)! < offering.answerMsMax,
          );
          const more = steps.some(
            ({ step, id }) => step === "offer" && flying.some((each) => each.id === id),
          );
          if (more) expect(flying.length).toBeLessThanOrEqual(offering.inFlightMax);
          if (rest === "none") break;
          // The agent confirms what it has, or the wait is over.
          if (rest === "in-flight") {
            commands = commands.map((each) => (offered.has(each.id) ? { ...each, state: "received" } : each));
            nowMs += offering.answerMsMax;
          }
        }
        for (const command of commands) {
          expect(offered.has(command.id)).toBe(before.has(command.id) || holdOf(command, standing) === null);
          expect(
            cancelled.has(command.id) || command.cancelRequestedAt === null || !offered.has(command.id),
          ).toBe(true);
        }
      }),
      { numRuns: 200 },
    );
  });

  test("generations: in the order of first offers, kept for ever, never the same for two that change state", () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.array(fc.tuple(fc.nat(9), fc.boolean())), (start, offers) => {
        let host = start;
        const given = new Map<number, number>();
        const writes: number[] = [];
        for (const [id, changesState] of offers) {
          const known = given.get(id) ?? null;
          const step = assignGeneration({ generation: known, changesState }, host);
          expect(step.host).toBeGreaterThanOrEqual(host);
          if (known !== null) expect(step).toEqual({ generation: known, host });
          else if (changesState) writes.push(step.generation);
          else expect(step).toEqual({ generation: host, host });
          given.set(id, step.generation);
          host = step.host;
        }
        expect(writes).toEqual(writes.map((_, i) => start + 1 + i));
      }),
    );
  });
});

describe("records", () => {
  test("the next one is stored, one before is known, one after is a hole", () => {
    expect(judgeRecord(undefined, 1)).toEqual({ status: "next", mark: 1, lost: 0 });
    expect(judgeRecord(undefined, 2)).toEqual({ status: "hole", mark: 0 });
    expect(judgeRecord(undefined, lostMax + 1, "first")).toMatchObject({ status: "next", lost: lostMax });
    expect(judgeRecord(undefined, lostMax + 2, "first")).toEqual({ status: "hole", mark: 0 });
    const outbox = { records: 7, restored: false };
    expect(judgeRecord(outbox, 7)).toEqual({ status: "known", mark: 7 });
    expect(judgeRecord(outbox, 8)).toEqual({ status: "next", mark: 8, lost: 0 });
    expect(judgeRecord(outbox, 9)).toEqual({ status: "hole", mark: 7 });
  });

  test("after a restore the host goes on from where it is, once, and the loss is counted", () => {
    expect(judgeRecord({ records: 7, restored: true }, 12)).toEqual({ status: "next", mark: 12, lost: 4 });
    expect(judgeRecord({ records: 12, restored: false }, 14)).toEqual({ status: "hole", mark: 12 });
  });

  test("the first of a session may leave a hole, which nobody could fill", () => {
    const outbox = { records: 7, restored: false };
    expect(judgeRecord(outbox, 12, "first")).toEqual({ status: "next", mark: 12, lost: 4 });
    expect(judgeRecord(outbox, 12, "later")).toEqual({ status: "hole", mark: 7 });
    expect(judgeRecord(outbox, 7, "first")).toEqual({ status: "known", mark: 7 });
  });

  test("in any order of arrival each is stored once and in order", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 200 }), (arrivals) => {
        let records = 0;
        const stored: number[] = [];
        for (const seq of arrivals) {
          const verdict = judgeRecord({ records, restored: false }, seq);
          if (verdict.status !== "next") expect(verdict.mark).toBe(records);
          else {
            stored.push(seq);
            records = verdict.mark;
          }
        }
        expect(stored).toEqual(stored.map((_, i) => i + 1));
      }),
    );
  });

  test("a host speaks only for its own commands, and only while it is approved", () => {
    const record = { command: "c", host: "h" };
    expect(ignoredBecause(record, { commandHost: "h", standing: "approved" })).toBeUndefined();
    expect(ignoredBecause(record, { commandHost: "h", standing: "quarantined" })).toBeUndefined();
    expect(ignoredBecause(record, { commandHost: undefined, standing: "approved" })).toMatch(/not known/);
    expect(ignoredBecause(record, { commandHost: "x", standing: "approved" })).toMatch(/another host/);
    expect(ignoredBecause(record, { commandHost: "h", standing: "pending" })).toMatch(/not approved/);
  });
});
