// Putting steps of the operations' reducer together: states are never changed, changes and effects add up in order.
import type { OutboxChange } from "../link/outbox-rules.ts";
import type { Effect, OpenOperation, OperationsState, OperationsStep } from "./state.ts";

/** Nothing happened. */
export function nothing(state: OperationsState): OperationsStep {
  return { state, changes: [], effects: [] };
}

export function step(
  state: OperationsState,
  changes: readonly OutboxChange[] = [],
  effects: readonly Effect[] = [],
): OperationsStep {
  return { state, changes, effects };
}

// Not called `then`: a module that exports one is taken for a promise by whoever imports it dynamically.
export function andThen(
  first: OperationsStep,
  next: (state: OperationsState) => OperationsStep,
): OperationsStep {
  const second = next(first.state);
  if (second.state === first.state && second.changes.length === 0 && second.effects.length === 0)
    return first;
  return step(second.state, [...first.changes, ...second.changes], [...first.effects, ...second.effects]);
}

export function withOperation(state: OperationsState, operation: OpenOperation): OperationsState {
  return { ...state, open: new Map(state.open).set(operation.id, operation) };
}

export function withoutOperation(state: OperationsState, id: string): OperationsState {
  const open = new Map(state.open);
  open.delete(id);
  return { ...state, open };
}
