// What happens to the agent's operations, pure: (state, event, facts) → state, changes to the outbox, effects. Decides
// nothing about the work itself; that is the executor's, behind its journal. A simulator drives this very function.
import { equalBytes } from "../../protocol/bytes.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { limits } from "../../protocol/limits.ts";
import { refusedForRoom, tooLate, withdrawn } from "./endings.ts";
import {
  absent,
  attached,
  cancelOf,
  lost,
  notStarted,
  patience,
  pauseOf,
  readOn,
  resumeAfterPause,
  said,
  startDue,
  started,
  withdraw,
} from "./following.ts";
import {
  type Known,
  noOperations,
  type OpenOperation,
  type OperationsEvent,
  type OperationsFacts,
  type OperationsState,
  type OperationsStep,
  operationLimits,
  type WaitingOffer,
} from "./state.ts";
import { andThen, nothing, step, withOperation, withoutOperation } from "./steps.ts";

export function reduceOperations(
  state: OperationsState,
  event: OperationsEvent,
  facts: OperationsFacts,
): OperationsStep {
  const first = happened(state, event, facts);
  return andThen(
    andThen(first, (next) => takeWaiting(next, facts)),
    (next) => startDue(next, facts),
  );
}

function happened(state: OperationsState, event: OperationsEvent, facts: OperationsFacts): OperationsStep {
  switch (event.event) {
    case "opened":
      return nothing({
        ...noOperations,
        audit: event.audit,
        open: new Map(event.operations.map((kept) => [kept.id, reopened(kept)])),
      });
    case "offer":
      return offered(state, event, facts);
    case "cancel":
      return cancelled(state, event, facts);
    case "pausing":
      return pausing(state, event);
    case "link":
      return linkIs(state, event.link, facts);
    case "acknowledged":
      return readOn(state, facts);
    case "done-here":
      return doneHere(state, event);
    case "attached":
    case "absent":
    case "started":
    case "not-started":
    case "said":
    case "lost":
    case "paused":
      return happenedTo(state, event, facts);
  }
}

function happenedTo(
  state: OperationsState,
  event: Exclude<
    OperationsEvent,
    { event: "opened" | "offer" | "cancel" | "pausing" | "link" | "acknowledged" | "done-here" }
  >,
  facts: OperationsFacts,
): OperationsStep {
  const operation = state.open.get(event.id);
  // What comes of an operation that has ended meanwhile is of no use any more.
  if (operation === undefined) return nothing(state);
  switch (event.event) {
    case "attached":
      return attached(state, operation);
    case "absent":
      // An answer to a question that is not asked any more begins nothing.
      return operation.step === "attaching" ? absent(state, operation, event, facts) : nothing(state);
    case "started":
      return started(state, operation);
    case "not-started":
      return notStarted(state, operation, event.trouble, facts);
    case "said":
      return said(state, operation, event.said, facts);
    case "lost":
      return lost(state, operation, event.trouble, facts);
    case "paused":
      return resumeAfterPause(state, operation, facts);
  }
}

function reopened(kept: Extract<OperationsEvent, { event: "opened" }>["operations"][number]): OpenOperation {
  const { id, changesState, state, eventSeq, outputEnd } = kept;
  const confirmed = !changesState || state !== "received";
  // Whether the process before started an executor for it is not known.
  return {
    ...newOperation({ id, changesState }),
    state,
    eventSeq,
    outputEnd,
    confirmed,
    begun: true,
    handedOver: true,
    pausing: "unknown",
  };
}

function newOperation({ id, changesState }: Pick<OpenOperation, "id" | "changesState">): OpenOperation {
  return {
    ...{ id, changesState, mode: "run", state: "received", eventSeq: 0, outputEnd: 0, step: "queued" },
    ...{ confirmed: true, begun: false, handedOver: false, asked: false, started: false, tries: 0 },
    ...{ deaths: 0, sinceMs: 0, cancel: false, pausing: undefined, held: false, auditFloor: 0 },
  };
}

function offered(
  state: OperationsState,
  { id, runs, changesState, offer, known }: Extract<OperationsEvent, { event: "offer" }>,
  facts: OperationsFacts,
): OperationsStep {
  const fresh: WaitingOffer = { id, runs, changesState, offer, cancel: false, repeats: false };
  if (known !== undefined) return offeredAgain(state, fresh, known);
  if (state.here.has(id)) return nothing(state);
  const index = state.waiting.findIndex((each) => each.id === id);
  if (index >= 0) {
    const { cancel, pausing } = state.waiting[index]!;
    return nothing({ ...state, waiting: state.waiting.with(index, { ...fresh, cancel, pausing }) });
  }
  // In order of arrival: where others wait for room, it waits behind them.
  const waiting = [...state.waiting, fresh];
  if (fits(waiting)) return nothing({ ...state, waiting });
  if (facts.recordBytes >= operationLimits.refusalBytesMax)
    return step(
      state,
      [],
      [{ effect: "log", level: "error", id, message: "dropped: nothing more fits here" }],
    );
  return step(state, [{ change: "record", body: refusedForRoom(id) }]);
}

function fits(waiting: readonly WaitingOffer[]): boolean {
  const bytes = waiting.reduce((sum, { offer }) => sum + offer.document.length, 0);
  return waiting.length <= operationLimits.waitingMax && bytes <= operationLimits.waitingBytesMax;
}

/** Takes offers while there is room for their results: a result must never find the outbox full. */
function takeWaiting(state: OperationsState, facts: OperationsFacts): OperationsStep {
  let all = nothing(state);
  for (const waiting of state.waiting) {
    if (!waiting.repeats && !hasRoom(all.state, facts)) break;
    all = andThen(all, (next) => take({ ...next, waiting: next.waiting.slice(1) }, waiting));
  }
  return all;
}

function hasRoom({ open, here }: OperationsState, { recordBytes }: OperationsFacts): boolean {
  return (
    recordBytes + limits.resultBytesMax <= limits.outboxRecordBytesMax &&
    open.size < operationLimits.openMax &&
    here.size < operationLimits.hereMax
  );
}

function take(
  state: OperationsState,
  { id, runs, changesState, offer, cancel, pausing, repeats }: WaitingOffer,
): OperationsStep {
  // It may have ended while its repetition waited.
  if (repeats)
    return state.open.has(id)
      ? step(confirmed(state, id), [{ change: "refresh", id, offer }])
      : nothing(state);
  if (runs === "agent") return runHere(state, { id, offer });
  return step(withOperation(state, { ...newOperation({ id, changesState }), cancel, pausing }), [
    { change: "keep", id, offer },
    { change: "record", body: { type: "received", command: id } },
  ]);
}

function runHere(state: OperationsState, { id, offer }: Pick<WaitingOffer, "id" | "offer">): OperationsStep {
  return step({ ...state, here: new Set(state.here).add(id) }, [], [{ effect: "run-here", id, offer }]);
}

// What needs no right is a read: it may run again after a crash, so that one transaction at its end is enough.
function doneHere(
  state: OperationsState,
  { id, offer, known, result }: Extract<OperationsEvent, { event: "done-here" }>,
): OperationsStep {
  const here = new Set(state.here);
  here.delete(id);
  const next = { ...state, here };
  const end = { change: "record", body: { type: "result", command: id, result } } as const;
  if (known !== undefined) return step(next, [end]);
  return step(next, [
    { change: "keep", id, offer },
    { change: "record", body: { type: "received", command: id } },
    { change: "record", body: { type: "accepted", command: id } },
    { change: "move", id, state: result.outcome },
    end,
  ]);
}

/** The same id again: what is known of it is the answer, and nothing is done twice. */
function offeredAgain(
  state: OperationsState,
  { id, runs, changesState, offer }: WaitingOffer,
  known: Known,
): OperationsStep {
  if (known.offer !== null && !equalBytes(known.offer.document, offer.document)) {
    const message = "command.id-conflict: the controller offered other content under a known id; ignored";
    return step(state, [], [{ effect: "log", level: "error", id, message }]);
  }
  if (!isTerminal(known.state)) {
    const repeats: WaitingOffer = { id, runs, changesState, offer, cancel: false, repeats: true };
    const waiting = [...state.waiting.filter((each) => each.id !== id), repeats];
    return nothing(fits(waiting) ? { ...state, waiting } : state);
  }
  // Its last record is on its way; or it is being asked for already.
  if (!known.answered || state.open.has(id) || state.here.has(id)) return nothing(state);
  // The controller had it and has it no more: it was set back to a backup.
  if (known.ending !== null) return step(state, [{ change: "record", body: known.ending }]);
  if (runs === "agent") return runHere(state, { id, offer });
  if (state.open.size >= operationLimits.openMax) return nothing(state);
  return nothing(
    withOperation(state, {
      ...newOperation({ id, changesState }),
      ...{ mode: "replay", state: known.state, begun: true, handedOver: true },
    }),
  );
}

/** The controller repeats what an earlier process took: it still wants it. */
function confirmed(state: OperationsState, id: string): OperationsState {
  const operation = state.open.get(id);
  if (operation === undefined || operation.confirmed) return state;
  const turn = operation.step === "unconfirmed" ? "queued" : operation.step;
  // It arrives now: the controller repeats in the order of its generations, which this one may have come out of.
  return withOperation(withoutOperation(state, id), { ...operation, confirmed: true, step: turn });
}

function cancelled(
  state: OperationsState,
  { id, known, ifKnown }: Extract<OperationsEvent, { event: "cancel" }>,
  facts: OperationsFacts,
): OperationsStep {
  const operation = state.open.get(id);
  if (operation?.mode === "run") {
    if (operation.step === "unconfirmed") return withdraw(state, { ...operation, cancel: true }, facts);
    // Asked once; a new executor of it is asked again.
    if (operation.cancel) return nothing(state);
    const effects = operation.step === "following" ? [cancelOf(id)] : [];
    return step(withOperation(state, { ...operation, cancel: true }), [], effects);
  }
  if (facts.recordBytes >= operationLimits.refusalBytesMax) return nothing(state);
  if (known !== undefined || state.here.has(id))
    return step(state, [{ change: "record", body: tooLate(id, "it has ended, or ends at once") }]);
  const waiting = state.waiting.findIndex((each) => each.id === id);
  if (waiting >= 0) {
    // A former life of this agent may have begun it: when there is room, the journal is asked.
    const offer = { ...state.waiting[waiting]!, cancel: true };
    return nothing({ ...state, waiting: state.waiting.with(waiting, offer) });
  }
  if (ifKnown) return nothing(state);
  // A late offer of it is then answered, and never run.
  const ending = withdrawn(id, facts.unixMs);
  const reason = "it had not come to this host";
  return step(state, [
    { change: "tombstone", id, ending },
    { change: "record", body: { type: "cancel", command: id, answer: "cancelling", reason } },
    { change: "record", body: ending },
  ]);
}

/** Said to its executor, now and to each that follows; of what is not here it is said again after its offer. */
function pausing(
  state: OperationsState,
  { id, paused }: Extract<OperationsEvent, { event: "pausing" }>,
): OperationsStep {
  const operation = state.open.get(id);
  if (operation?.mode === "run") {
    const effects = operation.step === "following" ? [pauseOf(id, paused)] : [];
    return step(withOperation(state, { ...operation, pausing: paused }), [], effects);
  }
  const at = state.waiting.findIndex((each) => each.id === id);
  if (at < 0) return nothing(state);
  return nothing({ ...state, waiting: state.waiting.with(at, { ...state.waiting[at]!, pausing: paused }) });
}

function waitsForWord({ step, pausing, mode }: OpenOperation): boolean {
  return step === "unconfirmed" || (pausing === "unknown" && mode === "run");
}

function linkIs(state: OperationsState, link: "up" | "down", facts: OperationsFacts): OperationsStep {
  if (link === state.link) return nothing(state);
  const open = [...state.open.values()];
  const following = open.filter((each) => each.step === "following");
  // What is paused is said in each session: what this one does not say is not known to hold.
  const heard = new Map<string, OpenOperation>(
    [...state.open].map(([id, each]) => [id, each.pausing === true ? { ...each, pausing: "unknown" } : each]),
  );
  const silent = link === "up" ? [...heard.values()].filter(waitsForWord) : [];
  return step(
    // What had no room is offered again in the next session, all in order.
    {
      ...{ ...state, link, open: heard, linkSinceMs: facts.monotonicMs },
      waiting: link === "down" ? [] : state.waiting,
    },
    [],
    [
      ...following.map(({ id }) => ({ effect: "send", id, request: { link } }) as const),
      ...silent.map(({ id }) => patience(id)),
    ],
  );
}
