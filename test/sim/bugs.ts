// Deliberate bugs, put around the product's rules one at a time, to show that the checker finds what it is there to find.
// Several are bugs that the product had, or that others in its place have had.
import { operationStates } from "../../protocol/commands.ts";
import { productRules, type Rules } from "./rules.ts";

export interface Bug {
  readonly what: string;
  readonly rules: Rules;
}

export const intact: Rules = productRules;

function withAgent(change: Partial<Rules["agent"]>): Rules {
  return { ...intact, agent: { ...intact.agent, ...change } };
}

function withOutbox(change: Partial<Rules["agent"]["outbox"]>): Rules {
  return withAgent({ outbox: { ...intact.agent.outbox, ...change } });
}

function withExecutor(change: Partial<Rules["executor"]>): Rules {
  return { ...intact, executor: { ...intact.executor, ...change } };
}

function withController(change: Partial<Rules["controller"]>): Rules {
  return { ...intact, controller: { ...intact.controller, ...change } };
}

function withShell(change: Partial<Rules["shell"]>): Rules {
  return { ...intact, shell: { ...intact.shell, ...change } };
}

const { admit } = intact.executor;
const { judgeRecord, dueSteps, reduceCommand } = intact.controller;

export const bugs = {
  "acknowledge-before-sync": {
    what: "The controller answers and acknowledges before its disk has it.",
    rules: withShell({ controllerWaitsForSync: false }),
  },
  "tell-before-sync": {
    what: "The agent sends records, and starts executors, before its disk has them.",
    rules: withShell({ agentWaitsForSync: false }),
  },
  "journal-forgotten-on-restart": {
    what: "Each executor begins with an empty memory: what was seen before is not known.",
    rules: withShell({ journalIsRemembered: false }),
  },
  "once-runs-again": {
    what: "What must not be repeated is resumed after a crash.",
    rules: withExecutor({
      admit: (facts) => {
        const admission = admit(facts);
        return admission.do === "conclude" && facts.known?.effect === "once"
          ? { do: "resume", lane: typeof facts.lane === "object" ? "wait" : "ready" }
          : admission;
      },
    }),
  },
  "generation-takes-equal": {
    what: "The fence lets pass what is ≥ the last generation, where it must be >: another command of the same one runs.",
    rules: withExecutor({
      admit: (facts) => {
        const { fence } = facts;
        return admit(
          fence === undefined ? facts : { ...facts, fence: { ...fence, generation: fence.generation - 1 } },
        );
      },
    }),
  },
  "generation-refuses-next": {
    what: "The fence is one too strict: the generation that follows is refused.",
    rules: withExecutor({
      admit: (facts) => {
        const { fence } = facts;
        return admit(
          fence === undefined ? facts : { ...facts, fence: { ...fence, generation: fence.generation + 1 } },
        );
      },
    }),
  },
  "epoch-unfenced": {
    what: "An executor takes offers of an older epoch.",
    rules: withExecutor({
      admit: (facts) =>
        admit(
          facts.fence === undefined || facts.epoch >= facts.fence.epoch
            ? facts
            : { ...facts, fence: undefined },
        ),
    }),
  },
  "mark-over-hole": {
    what: "The controller raises a host's mark over records that did not come, and says nothing.",
    rules: withController({
      judgeRecord: (outbox, seq, place) => {
        const verdict = judgeRecord(outbox, seq, place);
        return verdict.status === "known" ? verdict : { status: "next", mark: seq, lost: 0 };
      },
    }),
  },
  "repetition-applied": {
    what: "The controller applies a record that it has again.",
    rules: withController({
      judgeRecord: (outbox, seq, place) => {
        const verdict = judgeRecord(outbox, seq, place);
        return verdict.status === "known" ? { status: "next", mark: verdict.mark, lost: 0 } : verdict;
      },
    }),
  },
  "tombstone-forgotten": {
    what: "The agent does not keep that it cancelled what had not begun.",
    rules: withOutbox({
      committed: (before, operationOf, changes) => {
        const after = intact.agent.outbox.committed(before, operationOf, changes);
        const operations = new Map(after.operations);
        for (const [id, operation] of operations)
          if (operation.state === "cancelled" && operation.ending !== null)
            operations.set(id, { ...operation, state: "received", ending: null, endingSeq: 0 });
        return { ...after, operations };
      },
    }),
  },
  "numbers-from-stored": {
    what: "After it was set back, the outbox adds what the controller has to its numbers, and leaves a hole.",
    rules: withOutbox({
      resumed: (numbers, stored) => {
        const resumption = intact.agent.outbox.resumed(numbers, stored);
        if (resumption.shift === 0) return resumption;
        const highest = numbers.highest + stored;
        return { ...resumption, shift: stored, numbers: { ...resumption.numbers, highest } };
      },
    }),
  },
  "told-forgotten": {
    what: "The outbox takes the controller's mark for its own, also when it was set back.",
    rules: withOutbox({
      resumed: (numbers, stored) => {
        const acknowledged = Math.max(numbers.acknowledged, Math.min(stored, numbers.highest));
        return stored > numbers.highest
          ? intact.agent.outbox.resumed(numbers, stored)
          : {
              numbers: { ...numbers, acknowledged, linked: true },
              forget: stored,
              shift: 0,
            };
      },
    }),
  },
  "offers-in-parallel": {
    what: "The agent starts executors of state-changing commands as they come, all at once.",
    rules: withAgent({
      reduceOperations: (state, event, facts) =>
        intact.agent.reduceOperations(
          state,
          event.event === "offer" ? { ...event, changesState: false } : event,
          facts,
        ),
    }),
  },
  "offers-by-age": {
    what: "The controller repeats offers in the order in which commands were made, not in that of their generations.",
    rules: withController({
      dueSteps: (open, standing, sent, nowMs) => {
        const due = dueSteps(open, standing, sent, nowMs);
        const age = (id: string) => open.findIndex((each) => each.id === id);
        return { ...due, steps: due.steps.toSorted((a, b) => age(a.id) - age(b.id)) };
      },
    }),
  },
  "ended-not-told-again": {
    what: "The agent is silent about what ended, also to a controller that was set back and asks.",
    rules: withAgent({
      reduceOperations: (state, event, facts) =>
        intact.agent.reduceOperations(
          state,
          event.event === "offer" && event.known !== undefined
            ? { ...event, known: { ...event.known, answered: false } }
            : event,
          facts,
        ),
    }),
  },
  "cancelled-by-word": {
    what: "The agent says that what it has not begun is cancelled, without asking the journal whether a former life did.",
    rules: withAgent({
      reduceOperations: (state, event, facts) => {
        const first = intact.agent.reduceOperations(state, event, facts);
        const operation = event.event === "cancel" ? first.state.open.get(event.id) : undefined;
        if (operation === undefined || operation.state !== "received" || operation.begun) return first;
        const error = { code: "command.not-known", message: "" };
        const said = { type: "refused", seq: 1, at: facts.unixMs, error } as const;
        const { id } = operation;
        const second = intact.agent.reduceOperations(first.state, { event: "said", id, said }, facts);
        return {
          state: second.state,
          changes: [...first.changes, ...second.changes],
          effects: [...first.effects, ...second.effects],
        };
      },
    }),
  },
  "events-recorded-twice": {
    what: "The agent records an executor's event again when it is replayed.",
    rules: withAgent({
      reduceOperations: (state, event, facts) =>
        intact.agent.reduceOperations(
          event.event === "said"
            ? {
                ...state,
                open: new Map([...state.open].map(([id, each]) => [id, { ...each, eventSeq: 0 }])),
              }
            : state,
          event,
          facts,
        ),
    }),
  },
  "state-goes-back": {
    what: "A late record takes a command back to an earlier state.",
    rules: withController({
      reduceCommand: (before, event, at) => {
        const after = reduceCommand(before, event, at);
        const late =
          after === before &&
          (event.type === "received" || event.type === "accepted" || event.type === "running") &&
          operationStates.indexOf(event.type) < operationStates.indexOf(before.state);
        return late ? { ...before, state: event.type, result: null } : after;
      },
    }),
  },
  "output-unbounded": {
    what: "The agent reads what programs print as fast as they print it.",
    rules: withAgent({
      reduceOperations: (state, event, facts) =>
        intact.agent.reduceOperations(state, event, { ...facts, outputBytes: 0 }),
    }),
  },
  "gap-forgotten": {
    what: "Of several stretches of dropped readings the first is not told.",
    rules: withAgent({
      createSampleQueue: (bytesMax) => {
        const queue = intact.agent.createSampleQueue(bytesMax);
        return { ...bound(queue), takeGaps: () => queue.takeGaps().slice(1) };
      },
    }),
  },
  "link-loss-is-copy": {
    what: "Whoever comes back while its old connection seems to live is taken for a copy.",
    rules: withController({ contest: () => "probe", verdictOf: () => "both" }),
  },
} as const satisfies Readonly<Record<string, Bug>>;

export type BugName = keyof typeof bugs;

function bound(queue: ReturnType<Rules["agent"]["createSampleQueue"]>): typeof queue {
  return {
    get bytes() {
      return queue.bytes;
    },
    get dropped() {
      return queue.dropped;
    },
    add: (batch) => queue.add(batch),
    resume: (stored) => queue.resume(stored),
    peek: () => queue.peek(),
    take: () => queue.take(),
    acknowledge: (seq) => queue.acknowledge(seq),
    takeGaps: () => queue.takeGaps(),
    returnGaps: (untold) => queue.returnGaps(untold),
  };
}
