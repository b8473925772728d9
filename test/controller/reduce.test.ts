// The reducer of a command's life: it only goes forward, ends once, and no order of events does harm.
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type CommandEvent,
  type CommandState,
  eventOf,
  historyMax,
  newCommandState,
  reduceCommand,
} from "../../controller/rules/reduce.ts";
import { isTerminal, operationStates } from "../../protocol/commands.ts";

const command = "01890000-0000-7000-8000-000000000000";
const result = (
  outcome: "succeeded" | "failed" | "cancelled" | "timed-out" | "indeterminate",
): CommandEvent => ({ type: "result", command, result: { outcome, startedAt: 1, endedAt: 2 } });
const error = { code: "policy.denied", message: "No." };
const run = (...events: CommandEvent[]) =>
  events.reduce((state, event, i) => reduceCommand(state, event, 10 + i), newCommandState(1));
const states = ({ history }: CommandState) => history.map(({ state }) => state);

test("the straight life of a command", () => {
  const end = run(
    { type: "offered" },
    { type: "received", command },
    { type: "accepted", command },
    { type: "running", command, run: 1 },
    { type: "running", command, run: 2 },
    result("succeeded"),
  );
  expect(states(end)).toEqual([
    "waiting",
    "offered",
    "received",
    "accepted",
    "running",
    "running",
    "succeeded",
  ]);
  expect(end).toMatchObject({ runs: 2, updatedAt: 15, result: { outcome: "succeeded" } });
});

test("a refusal is a failed result with the refusal's error", () => {
  expect(run({ type: "offered" }, { type: "refused", command, error })).toMatchObject({
    state: "refused",
    result: { outcome: "failed", error },
  });
});

test("revocation ends what waits as failed, and what the host had as indeterminate", () => {
  const code = { error: { code: "enrol.host-revoked" } };
  expect(run({ type: "revoke" })).toMatchObject({ state: "failed", result: code });
  expect(run({ type: "offered" }, { type: "revoke" })).toMatchObject({
    ...{ state: "indeterminate", result: { outcome: "indeterminate", ...code } },
  });
  expect(run({ type: "running", command, run: 1 }, { type: "revoke" }).state).toBe("indeterminate");
  expect(run({ type: "offered" }, result("succeeded"), { type: "revoke" }).state).toBe("succeeded");
  expect(run({ type: "offered" }, { type: "revoke" }, result("succeeded")).state).toBe("indeterminate");
});

test("cancel and expiry end only what was never offered", () => {
  expect(run({ type: "ask-cancel" })).toMatchObject({
    state: "cancelled",
    result: { error: { code: "command.cancelled" } },
  });
  expect(run({ type: "expire", missing: 0 })).toMatchObject({
    state: "failed",
    result: { error: { code: "command.expired" } },
  });
  expect(run({ type: "waited-out", missing: 2 })).toMatchObject({
    state: "timed-out",
    result: {
      outcome: "timed-out",
      error: { code: "command.expired", message: expect.stringMatching(/30 days and was not signed/) },
    },
  });
  for (const type of ["expire", "waited-out"] as const)
    expect(run({ type: "offered" }, { type, missing: 0 })).toMatchObject({ state: "offered", result: null });
  const asked = run(
    { type: "offered" },
    { type: "ask-cancel" },
    { type: "running", command, run: 1 },
    { type: "ask-cancel" },
  );
  expect(asked).toMatchObject({ state: "running", cancelRequestedAt: 11, result: null });
});

test("the last word on pausing holds until the end; to resume is said also of what was not paused", () => {
  const paused = run({ type: "offered" }, { type: "ask-pause", paused: true });
  expect(paused).toMatchObject({ state: "offered", pause: { paused: true, at: 11 } });
  expect(reduceCommand(paused, { type: "ask-pause", paused: true }, 99)).toBe(paused);
  const resumed = reduceCommand(paused, { type: "ask-pause", paused: false }, 50);
  expect(resumed).toMatchObject({ pause: { paused: false, at: 50 } });
  expect([eventOf(newCommandState(0), paused), eventOf(paused, resumed)]).toEqual([
    "offered",
    "resume-asked",
  ]);
  expect(eventOf(resumed, reduceCommand(resumed, { type: "ask-pause", paused: true }, 60))).toBe(
    "pause-asked",
  );
  expect(run({ type: "ask-pause", paused: false }).pause).toMatchObject({ paused: false });
  const ended = run({ type: "offered" }, { type: "refused", command, error: { code: "x", message: "" } });
  expect(reduceCommand(ended, { type: "ask-pause", paused: true }, 99)).toBe(ended);
});

test("what waited when the controller was set back was sent perhaps: its host says how it ended, or nobody knows", () => {
  const waiting = { ...newCommandState(1), setBack: true };
  const cancelled = reduceCommand(waiting, { type: "ask-cancel" }, 20);
  expect(cancelled).toMatchObject({ state: "waiting", cancelRequestedAt: 20, result: null });
  expect(reduceCommand(waiting, { type: "expire", missing: 0 }, 20)).toBe(waiting);
  for (const type of ["waited-out", "revoke"] as const) {
    const { state, result } = reduceCommand(cancelled, { type, missing: 0 }, 30);
    expect([state, result?.outcome]).toEqual(["indeterminate", "indeterminate"]);
  }
  const done = { outcome: "succeeded", startedAt: 1, endedAt: 2 } as const;
  const told = reduceCommand(cancelled, { type: "result", command, result: done }, 40);
  expect(told).toMatchObject({ state: "succeeded", result: done });
});

test("records out of order never take a command back", () => {
  const late = run(
    { type: "running", command, run: 2 },
    { type: "received", command },
    { type: "running", command, run: 1 },
    { type: "offered" },
  );
  expect(late).toMatchObject({ state: "running", runs: 2 });
  expect(states(late)).toEqual(["waiting", "running"]);
});

test("nothing changes nothing: the same object, and no event", () => {
  const state = run({ type: "offered" });
  expect(reduceCommand(state, { type: "offered" }, 99)).toBe(state);
  expect(eventOf(state, state)).toBeUndefined();
  expect(eventOf(newCommandState(0), state)).toBe("offered");
});

const anyEvent: fc.Arbitrary<CommandEvent> = fc.oneof(
  fc.constantFrom<CommandEvent>(
    { type: "offered" },
    { type: "received", command },
    { type: "accepted", command },
    { type: "ask-cancel" },
    { type: "expire", missing: 0 },
    { type: "refused", command, error },
    { type: "cancel", command, answer: "cancelling", reason: "Stopping." },
    { type: "cancel", command, answer: "too-late", reason: "Sealed." },
    { type: "revoke" },
  ),
  fc.nat(200).map((number): CommandEvent => ({ type: "running", command, run: number })),
  fc
    .constantFrom("succeeded", "failed", "cancelled", "timed-out", "indeterminate")
    .map((outcome) => result(outcome as "failed")),
);

test("whatever comes in whatever order: states go forward, the end is kept, history stays bounded", () => {
  fc.assert(
    fc.property(fc.array(anyEvent, { maxLength: 300 }), (events) => {
      let state = newCommandState(0);
      for (const [i, event] of events.entries()) {
        const next = reduceCommand(state, event, i);
        // After the end only the host's word about a cancel is still taken in.
        if (isTerminal(state.state)) {
          if (event.type !== "cancel") expect(next).toBe(state);
          expect({ ...next, cancelAnswer: null }).toEqual({ ...state, cancelAnswer: null });
        }
        expect(operationStates.indexOf(next.state)).toBeGreaterThanOrEqual(
          operationStates.indexOf(state.state),
        );
        expect(next.runs).toBeGreaterThanOrEqual(state.runs);
        expect(isTerminal(next.state)).toBe(next.result !== null);
        expect(next.history.length).toBeLessThanOrEqual(historyMax);
        expect(next.history.at(-1)!.state).toBe(next.state);
        expect(next.history[0]!.state).toBe("waiting");
        // The same event again changes nothing.
        expect(reduceCommand(next, event, i)).toBe(next);
        state = next;
      }
    }),
    { numRuns: 500 },
  );
});

const anyEnd: fc.Arbitrary<CommandEvent> = fc.oneof(
  fc.constant<CommandEvent>({ type: "refused", command, error }),
  fc
    .constantFrom("succeeded", "failed", "cancelled", "timed-out", "indeterminate")
    .map((outcome) => result(outcome as "failed")),
);

test("the records of one operation, in any order and any number of times, end it the same way", () => {
  const life: CommandEvent[] = [
    { type: "offered" },
    { type: "received", command },
    { type: "accepted", command },
    { type: "running", command, run: 1 },
    { type: "running", command, run: 2 },
    { type: "cancel", command, answer: "cancelling", reason: "Stopping." },
  ];
  const ends = ({ state, result, cancelAnswer }: CommandState) => ({
    ...{ state, outcome: result?.outcome, error: result?.error, output: result?.output },
    answer: cancelAnswer?.answer,
  });
  const arrivals = anyEnd.chain((end) =>
    fc.record({
      end: fc.constant(end),
      // Every record at least once, some again, in any order.
      events: fc
        .array(fc.constantFrom(...life, end), { maxLength: 30 })
        .chain((more) =>
          fc.shuffledSubarray([...life, end, ...more], { minLength: life.length + 1 + more.length }),
        ),
    }),
  );
  fc.assert(
    fc.property(arrivals, ({ end, events }) => {
      expect(ends(run(...events))).toEqual(ends(run(...life, end)));
    }),
    { numRuns: 500 },
  );
});

test("a host's answer to a cancel is kept, the last one, also after the end", () => {
  const cancel = (answer: "cancelling" | "too-late", reason: string): CommandEvent => ({
    ...{ type: "cancel", command, answer, reason },
  });
  const stopping = run({ type: "offered" }, { type: "ask-cancel" }, cancel("cancelling", "Soon."));
  expect(stopping).toMatchObject({
    ...{ state: "offered", cancelAnswer: { answer: "cancelling", reason: "Soon.", at: 12 } },
  });
  const late = reduceCommand(
    reduceCommand(stopping, result("succeeded"), 20),
    cancel("too-late", "Done."),
    21,
  );
  expect(late).toMatchObject({
    state: "succeeded",
    updatedAt: 20,
    cancelAnswer: { answer: "too-late", at: 21 },
  });
  expect(eventOf(run({ type: "offered" }), run({ type: "offered" }, { type: "ask-cancel" }))).toBe(
    "cancel-asked",
  );
  expect(eventOf(run({ type: "offered" }, { type: "ask-cancel" }), stopping)).toBe("cancel-answered");
});

test("what expires says what it waited for", () => {
  const message = (missing: number) => run({ type: "expire", missing }).result?.error?.message;
  expect(message(0)).toContain("not connected");
  expect(message(1)).toContain("a signature was missing");
  expect(message(3)).toContain("3 signatures were missing");
});
