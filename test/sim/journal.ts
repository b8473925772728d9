// The executor's journal without SQLite: what it keeps of each operation, and the fence. Durable when a commit returns.

import type { ExecutorEvent } from "../../agent/door/contract.ts";
import type { Fence } from "../../agent/executor/fence.ts";
import type { WaitNote } from "../../agent/executor/lane-wait.ts";
import { type Effect, isTerminal, type OperationState } from "../../protocol/commands.ts";

export type JournalledEvent = Extract<ExecutorEvent, { seq: number }>;
export type NewEvent = JournalledEvent extends infer E
  ? E extends { seq: number }
    ? Omit<E, "seq">
    : never
  : never;

export interface JournalledOperation {
  readonly id: string;
  readonly digest: string;
  readonly effect: Effect;
  readonly state: OperationState;
  readonly runs: number;
  readonly server: "run" | "follow";
  readonly noReturn: boolean;
  readonly events: readonly JournalledEvent[];
  readonly notes: {
    readonly step?: number;
    readonly waited?: WaitNote;
    readonly fromBootId?: string;
    readonly paused?: boolean;
  };
}

export interface JournalState {
  /** In the order in which they came. */
  readonly operations: ReadonlyMap<string, JournalledOperation>;
  readonly fence: Fence | undefined;
}

export const emptyJournal: JournalState = { operations: new Map(), fence: undefined };

export function withOperation(state: JournalState, operation: JournalledOperation): JournalState {
  return { ...state, operations: new Map(state.operations).set(operation.id, operation) };
}

export function withEvent(operation: JournalledOperation, event: NewEvent): JournalledOperation {
  const numbered = { ...event, seq: operation.events.length + 1 } as JournalledEvent;
  return { ...operation, events: [...operation.events, numbered] };
}

/** A state-changing operation other than `id` that is running, if any. */
export function otherRunning({ operations }: JournalState, id: string): string | undefined {
  return [...operations.values()].find(
    (each) =>
      each.id !== id && each.effect !== "read" && (each.state === "accepted" || each.state === "running"),
  )?.id;
}

/** State-changing operations that were accepted and have not begun, in the order of their acceptance. */
export function waitingForLane({ operations }: JournalState): readonly string[] {
  return [...operations.values()]
    .filter(({ effect, state, runs }) => effect !== "read" && state === "accepted" && runs === 0)
    .map(({ id }) => id);
}

export function isOpen({ state }: JournalledOperation): boolean {
  return !isTerminal(state);
}
