// One open operation and its executor, pure: attach to it, start one where none lives, note what it says, and what its end
// means. Which of several starts when is decided here too.

import { relayHead } from "../../protocol/audit-heads.ts";
import { isTerminal, type OperationState } from "../../protocol/commands.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import type { OutboxChange } from "../link/outbox-rules.ts";
import { endedAs, givenUp, withdrawn } from "./endings.ts";
import {
  type Effect,
  type JournalledOrAnswer,
  type OpenOperation,
  type OperationsFacts,
  type OperationsState,
  type OperationsStep,
  operationLimits,
} from "./state.ts";
import { andThen, nothing, step, withOperation, withoutOperation } from "./steps.ts";

/**
 * Begins with every operation whose turn it is. Those that change the host begin one after the other, in order of arrival:
 * the next when the one before is accepted or has ended, so that the order on the host is the controller's. Asking whether
 * the journal knows one waits for no turn: nothing begins by it.
 */
export function startDue(state: OperationsState, facts: OperationsFacts): OperationsStep {
  const open = [...state.open.values()];
  const inTurn = open.filter(takesTurns);
  let asking = open.filter((each) => isAsking(each) && each.step !== "queued").length;
  const begun = inTurn.some((each) => !isAsking(each) && each.step !== "queued");
  return open
    .filter((operation) => {
      if (operation.step !== "queued") return false;
      if (isAsking(operation)) return asking++ < operationLimits.askingMax;
      return !takesTurns(operation) || (!begun && operation === inTurn[0]);
    })
    .reduce((all, operation) => andThen(all, (next) => begin(next, operation, facts)), nothing(state));
}

function takesTurns({ mode, changesState, state, step, begun, cancel }: OpenOperation): boolean {
  if (mode === "replay" || !changesState || state !== "received" || step === "unconfirmed") return false;
  return begun || !cancel;
}

/** Whether it must not begin now, so that only the journal is asked about it. */
function onlyAsks({ state, confirmed, cancel }: OpenOperation): boolean {
  return state === "received" && (!confirmed || cancel);
}

/** Its executor was told to answer, not to begin it; or the next one will be. */
function isAsking(operation: OpenOperation): boolean {
  const { step, asked, state } = operation;
  if (step === "unconfirmed" || state !== "received") return false;
  return step === "queued" ? onlyAsks(operation) : asked || onlyAsks(operation);
}

function begin(state: OperationsState, operation: OpenOperation, facts: OperationsFacts): OperationsStep {
  const asked = onlyAsks(operation);
  return attach(state, { ...operation, asked, started: false, tries: 0, sinceMs: facts.monotonicMs });
}

function attach(state: OperationsState, operation: OpenOperation): OperationsStep {
  const { id, mode, eventSeq, outputEnd } = operation;
  return step(
    withOperation(state, { ...operation, step: "attaching" }),
    [],
    // Of one that is asked again how it ended, all events, and no output.
    [
      mode === "run"
        ? { effect: "attach", id, afterSeq: eventSeq, afterOutput: outputEnd }
        : { effect: "attach", id, afterSeq: 0, afterOutput: undefined },
    ],
  );
}

export function attached(state: OperationsState, operation: OpenOperation): OperationsStep {
  const { id } = operation;
  const effects: Effect[] = [{ effect: "send", id, request: { link: state.link } }];
  if (typeof operation.pausing === "boolean") effects.push(pauseOf(id, operation.pausing));
  if (operation.cancel) effects.push(cancelOf(id));
  return step(withOperation(state, { ...operation, step: "following", held: false }), [], effects);
}

export function pauseOf(id: string, paused: boolean): Effect {
  return { effect: "send", id, request: { pause: { paused } } };
}

export function cancelOf(id: string): Effect {
  return { effect: "send", id, request: { cancel: { reason: "asked by the controller" } } };
}

export function absent(
  state: OperationsState,
  operation: OpenOperation,
  { ended, trouble }: { readonly ended: boolean; readonly trouble: string },
  facts: OperationsFacts,
): OperationsStep {
  const { id, mode, tries } = operation;
  if (!operation.started) {
    // Repeated by the controller while it was looked up: it waits for its turn, which it has not.
    if (operation.asked && !onlyAsks(operation))
      return nothing(withOperation(state, { ...operation, step: "queued" }));
    const asked = onlyAsks(operation);
    const request = mode === "replay" ? "follow" : asked ? "ask" : "run";
    // What an executor writes into the audit from now on comes after all that is known of it.
    const auditFloor = operation.begun ? operation.auditFloor : (state.audit?.seq ?? 0);
    return step(
      withOperation(state, {
        ...operation,
        ...{ step: "starting", asked, auditFloor, begun: operation.begun || !asked },
      }),
      [],
      [{ effect: "start", id, request }],
    );
  }
  if (ended || tries + 1 >= operationLimits.attachTriesMax) return died(state, operation, trouble, facts);
  return step(
    withOperation(state, { ...operation, step: "pausing", tries: tries + 1 }),
    [],
    [{ effect: "pause", id, ms: operationLimits.attachPauseMs }],
  );
}

export function started(state: OperationsState, operation: OpenOperation): OperationsStep {
  const handedOver = operation.handedOver || !operation.asked;
  return attach(state, { ...operation, handedOver, started: true, tries: 0 });
}

export function notStarted(
  state: OperationsState,
  operation: OpenOperation,
  trouble: string,
  facts: OperationsFacts,
): OperationsStep {
  return died(state, operation, trouble, facts);
}

export function lost(
  state: OperationsState,
  operation: OpenOperation,
  trouble: string,
  facts: OperationsFacts,
): OperationsStep {
  return died(state, operation, trouble, facts);
}

export function resumeAfterPause(
  state: OperationsState,
  operation: OpenOperation,
  facts: OperationsFacts,
): OperationsStep {
  const linkedMs = state.link === "up" ? facts.monotonicMs - state.linkSinceMs : 0;
  if (operation.step === "unconfirmed") {
    return linkedMs < operationLimits.confirmMs ? nothing(state) : withdraw(state, operation, facts);
  }
  if (operation.pausing === "unknown" && linkedMs >= operationLimits.confirmMs) {
    // A controller that was set back does not know that it is paused: it would wait for ever.
    const effects = operation.step === "following" ? [pauseOf(operation.id, false)] : [];
    return step(withOperation(state, { ...operation, pausing: false }), [], effects);
  }
  if (operation.step !== "pausing") return nothing(state);
  if (operation.started) return attach(state, operation);
  // One that was asked about waits for its turn now.
  if (isAsking(operation)) return nothing(withOperation(state, { ...operation, step: "queued" }));
  return begin(state, operation, facts);
}

function died(
  state: OperationsState,
  operation: OpenOperation,
  trouble: string,
  facts: OperationsFacts,
): OperationsStep {
  const { id, mode, sinceMs } = operation;
  const { deathsMax, replayDeathsMax, stableMs, deathPauseMs } = operationLimits;
  const deaths = facts.monotonicMs - sinceMs >= stableMs ? 1 : operation.deaths + 1;
  if (deaths >= (mode === "run" ? deathsMax : replayDeathsMax)) {
    const ending =
      mode === "run" ? givenUp(operation, trouble, facts.unixMs) : endedAs(id, operation.state, facts.unixMs);
    return end(state, operation, [
      { change: "move", id, state: stateOf(ending), ending },
      { change: "record", body: ending },
    ]);
  }
  const pause = Math.min(deathPauseMs.max, deathPauseMs.first * 2 ** (deaths - 1));
  return step(
    withOperation(state, { ...operation, step: "pausing", started: false, held: false, deaths }),
    [],
    [
      { effect: "detach", id },
      {
        effect: "log",
        level: "warn",
        id,
        message: `its executor is gone (${deaths}), starting another: ${trouble}`,
      },
      { effect: "pause", id, ms: pause },
    ],
  );
}

/** The journal does not know it: nothing of it has begun, and nothing will where it is not wanted. */
function notKnown(state: OperationsState, operation: OpenOperation, facts: OperationsFacts): OperationsStep {
  const { id } = operation;
  if (operation.cancel) return withdraw(state, operation, facts);
  // Repeated meanwhile: it begins when it is its turn, and the one who answered is gone.
  if (operation.confirmed) {
    return step(
      withOperation(state, {
        ...operation,
        step: "pausing",
        started: false,
        begun: false,
        handedOver: false,
      }),
      [],
      [
        { effect: "detach", id },
        { effect: "pause", id, ms: operationLimits.attachPauseMs },
      ],
    );
  }
  return step(
    withOperation(state, { ...operation, step: "unconfirmed", begun: false, handedOver: false }),
    [],
    [{ effect: "detach", id }, ...(state.link === "up" ? [patience(id)] : [])],
  );
}

/** When an operation that the controller does not repeat is looked at again: surely later, whatever timers and clocks do. */
export function patience(id: string): Effect {
  return { effect: "pause", id, ms: operationLimits.confirmMs + 1000 };
}

/** Ends what no executor knows of. */
export function withdraw(
  state: OperationsState,
  { id, cancel }: OpenOperation,
  facts: OperationsFacts,
): OperationsStep {
  const ending = withdrawn(id, facts.unixMs);
  const answer: RecordBody = {
    type: "cancel",
    command: id,
    answer: "cancelling",
    reason: "it had not begun",
  };
  return end(state, { id }, [
    { change: "move", id, state: "cancelled", ending },
    ...(cancel ? [{ change: "record", body: answer } as const] : []),
    { change: "record", body: ending },
  ]);
}

function end(
  state: OperationsState,
  { id }: Pick<OpenOperation, "id">,
  changes: readonly OutboxChange[],
): OperationsStep {
  return step(withoutOperation(state, id), changes, [{ effect: "detach", id }]);
}

export function said(
  state: OperationsState,
  operation: OpenOperation,
  said: JournalledOrAnswer,
  facts: OperationsFacts,
): OperationsStep {
  const { id } = operation;
  switch (said.type) {
    case "cancel":
      return step(state, [
        { change: "record", body: { type: "cancel", command: id, answer: said.answer, reason: said.reason } },
      ]);
    case "output":
      return printed(state, operation, said, facts);
    case "accepted":
    case "running":
    case "refused":
    case "result": {
      // Replayed after a reconnect: it became a record before.
      if (said.seq <= operation.eventSeq) return nothing(state);
      if (said.type === "refused" && said.error.code === "command.not-known")
        return notKnown(state, operation, facts);
      const body = recordOf(id, said);
      const next = stateOf(body);
      // Of what is only asked again, the end is all that counts.
      if (operation.mode === "replay" && !isTerminal(next)) return nothing(state);
      const head = audited(state, operation, said);
      const changes: OutboxChange[] = [
        ...(operation.mode === "run"
          ? [{ change: "move", id, state: next, eventSeq: said.seq } as const]
          : []),
        { change: "record", body },
        ...head.changes,
      ];
      const rest = isTerminal(next)
        ? end(head.state, operation, changes)
        : step(withOperation(head.state, { ...operation, state: next, eventSeq: said.seq }), changes);
      return step(rest.state, rest.changes, [...head.effects, ...rest.effects]);
    }
  }
}

/** Where the host's audit stood then: told when it goes further than all that is known, or cannot be true. */
function audited(state: OperationsState, operation: OpenOperation, said: JournalledOrAnswer): OperationsStep {
  const head = "audit" in said ? said.audit : undefined;
  if (head === undefined) return nothing(state);
  const record: OutboxChange = { change: "record", body: { type: "audit-head", ...head } };
  const { seq, hash } = head;
  switch (relayHead(state.audit, operation.auditFloor, head)) {
    case "covered":
      return nothing(state);
    case "sent":
      return step({ ...state, audit: { seq, hash } }, [record]);
    case "broken": {
      const message = `audit.broken: its executor signed entry ${seq} of this host's audit, which was at ${state.audit?.seq} before it began: the audit was cut off or there are two. Run \`bedplate audit verify\` here`;
      return step(state, [record], [{ effect: "log", level: "error", id: operation.id, message }]);
    }
  }
}

type Numbered = Extract<JournalledOrAnswer, { seq: number }>;

function recordOf(command: string, said: Numbered): RecordBody {
  switch (said.type) {
    case "accepted":
      return { type: "accepted", command };
    case "running":
      return { type: "running", command, run: said.run };
    case "refused":
      return { type: "refused", command, error: said.error };
    case "result":
      return { type: "result", command, result: said.result };
  }
}

function stateOf(body: RecordBody): OperationState {
  switch (body.type) {
    case "accepted":
    case "running":
    case "refused":
      return body.type;
    case "result":
      return body.result.outcome;
    case "received":
    case "cancel":
    case "output":
    case "identity":
    case "audit-head":
    case "gap":
      throw new Error("assertion failed: only these move an operation on");
  }
}

/** A piece of output, once; beyond the window no more is read until the controller has stored some. */
function printed(
  state: OperationsState,
  operation: OpenOperation,
  { stream, offset, data }: Extract<JournalledOrAnswer, { type: "output" }>,
  facts: OperationsFacts,
): OperationsStep {
  const { id, outputEnd } = operation;
  const bytes = Buffer.from(data, "base64");
  const end = offset + bytes.length;
  if (operation.mode === "replay" || end <= outputEnd) return nothing(state);
  // Held too late, by an executor that another agent's life was reading: it is read again from here.
  if (facts.outputBytes >= operationLimits.outputBytesMax) {
    return step(withOperation(state, { ...operation, step: "full" }), [], [{ effect: "detach", id }]);
  }
  const from = Math.max(offset, outputEnd);
  const body: RecordBody = {
    type: "output",
    command: id,
    stream,
    offset: from,
    data: from === offset ? data : bytes.subarray(from - offset).toString("base64"),
  };
  const full = facts.outputBytes + body.data.length >= operationLimits.outputBytesMax;
  return step(
    // Who gets somewhere is not dying.
    withOperation(state, { ...operation, outputEnd: end, held: full, deaths: 0 }),
    [
      { change: "move", id, state: operation.state, outputEnd: end },
      { change: "record", body },
    ],
    full ? [{ effect: "hold", id }] : [],
  );
}

/** Records were acknowledged: executors that were held back are read on, while there is room. */
export function readOn(state: OperationsState, facts: OperationsFacts): OperationsStep {
  if (facts.outputBytes >= operationLimits.outputBytesMax) return nothing(state);
  return [...state.open.values()].reduce((all, operation) => {
    if (operation.step === "full")
      return andThen(all, (next) => nothing(withOperation(next, { ...operation, step: "queued" })));
    if (!operation.held) return all;
    return andThen(all, (next) =>
      step(withOperation(next, { ...operation, held: false }), [], [{ effect: "read-on", id: operation.id }]),
    );
  }, nothing(state));
}
