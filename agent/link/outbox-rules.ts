// The outbox's decisions, pure: which number a record gets, what waits and what was told when a session begins, and what an
// operation's row is after a change. The SQLite shell applies them; a simulator drives these very functions.
import { isTerminal, type OperationState } from "../../protocol/commands.ts";
import { assert } from "../../protocol/errors.ts";
import type { RecordBody } from "../../protocol/messages.ts";

/** An offer as it is kept, so that the executor can be started again without the controller. */
export interface KeptOffer {
  readonly document: Uint8Array;
  readonly signatures: readonly string[];
  readonly generation: number;
  readonly epoch: number;
  readonly sources: readonly {
    readonly url: string;
    readonly bearer?: string | undefined;
    readonly layout?: "frames" | "raw" | undefined;
    readonly mirror?: true | undefined;
  }[];
}

export interface KeptOperation {
  readonly id: string;
  readonly state: OperationState;
  /** The last event of the executor that became a record. */
  readonly eventSeq: number;
  /** Output before this offset became records, or was lost. */
  readonly outputEnd: number;
  /** Null for a tombstone: cancelled before any offer came. */
  readonly offer: KeptOffer | null;
  /** The last record of an operation that the agent itself ended: no executor's journal has it. */
  readonly ending: RecordBody | null;
  /** The number of its last record, result or refusal; 0 before it. */
  readonly endingSeq: number;
}

/** One step of a transaction on the outbox. */
export type OutboxChange =
  | { readonly change: "keep"; readonly id: string; readonly offer: KeptOffer }
  /** A later offer of the same command brings fresh sources, and perhaps a higher epoch. */
  | { readonly change: "refresh"; readonly id: string; readonly offer: KeptOffer }
  | { readonly change: "tombstone"; readonly id: string; readonly ending: RecordBody }
  | {
      readonly change: "move";
      readonly id: string;
      readonly state: OperationState;
      readonly eventSeq?: number;
      readonly outputEnd?: number;
      readonly ending?: RecordBody;
    }
  | { readonly change: "record"; readonly body: RecordBody };

/** What an outbox knows of its numbers. Those above `acknowledged`, up to `highest`, wait; they follow each other. */
export interface OutboxNumbers {
  readonly acknowledged: number;
  readonly highest: number;
  /** The highest that a controller may have been sent before this file was last opened. */
  readonly told: number;
  /** A session has begun since then, so that all up to `highest` may have been sent. */
  readonly linked: boolean;
}

export const firstNumbers: OutboxNumbers = { acknowledged: 0, highest: 0, told: 0, linked: false };

/** The file is opened: what the process before may have sent is fixed. */
export function opened(kept: OutboxNumbers): OutboxNumbers {
  return { ...kept, told: mayBeTold(kept), linked: false };
}

function mayBeTold({ linked, highest, told }: OutboxNumbers): number {
  return linked ? highest : told;
}

export interface Resumption {
  readonly numbers: OutboxNumbers;
  /** Waiting records up to here need not be sent. */
  readonly forget: number;
  /** Added to the number of every record that still waits. */
  readonly shift: number;
}

/**
 * A session begins, and the controller has stored records up to `stored`. More than this file can have told it: the file
 * is new, or was set back to an old copy, and those numbers mean other records. What waits then goes on above them, even
 * what the controller may have: twice does no harm, never does.
 */
export function resumed(numbers: OutboxNumbers, stored: number): Resumption {
  if (stored > mayBeTold(numbers)) {
    const shift = stored - numbers.acknowledged;
    return {
      numbers: { acknowledged: stored, highest: numbers.highest + shift, told: stored, linked: true },
      forget: numbers.acknowledged,
      shift,
    };
  }
  return { numbers: acknowledged({ ...numbers, linked: true }, stored), forget: stored, shift: 0 };
}

/**
 * The controller has stored everything up to `seq`; less than before (it was set back itself) takes nothing back.
 * @returns the very same object when nothing changes
 */
export function acknowledged(numbers: OutboxNumbers, seq: number): OutboxNumbers {
  const upTo = Math.min(seq, numbers.highest);
  return upTo <= numbers.acknowledged ? numbers : { ...numbers, acknowledged: upTo };
}

/**
 * Whether a controller has stored the operation's last record. One that asks for it all the same has asked before, and
 * hears it twice, or did not know the command then, or has lost it: it must hear it again.
 */
export function isAnswered({ endingSeq }: KeptOperation, numbers: OutboxNumbers): boolean {
  return endingSeq !== 0 && endingSeq <= numbers.acknowledged;
}

export interface Commit {
  readonly numbers: OutboxNumbers;
  /** Rows as they are now, of every operation that the changes touch. */
  readonly operations: ReadonlyMap<string, KeptOperation>;
  readonly records: readonly { readonly seq: number; readonly body: RecordBody }[];
}

/** What a transaction with these changes leaves. */
export function committed(
  before: OutboxNumbers,
  operationOf: (id: string) => KeptOperation | undefined,
  changes: readonly OutboxChange[],
): Commit {
  const operations = new Map<string, KeptOperation>();
  const records: { seq: number; body: RecordBody }[] = [];
  let { highest } = before;
  const known = (id: string) => operations.get(id) ?? operationOf(id);
  const keep = (operation: KeptOperation) => operations.set(operation.id, operation);
  for (const change of changes) {
    switch (change.change) {
      case "keep":
        assert(known(change.id) === undefined, "an operation is kept once");
        keep({ ...newOperation(change.id), offer: change.offer });
        break;
      case "refresh": {
        const operation = known(change.id);
        assert(operation !== undefined && operation.offer !== null, "only a kept offer is refreshed");
        keep({ ...operation, offer: change.offer });
        break;
      }
      case "tombstone":
        assert(known(change.id) === undefined, "a tombstone stands for what was never offered");
        keep({ ...newOperation(change.id), state: "cancelled", ending: change.ending });
        break;
      case "move":
        keep(moved(known(change.id), change));
        break;
      case "record": {
        highest += 1;
        const { body } = change;
        records.push({ seq: highest, body });
        const operation = body.type === "result" || body.type === "refused" ? known(body.command) : undefined;
        if (operation !== undefined) keep({ ...operation, endingSeq: highest });
        break;
      }
    }
  }
  return { numbers: { ...before, highest }, operations, records };
}

function newOperation(id: string): KeptOperation {
  return { id, state: "received", eventSeq: 0, outputEnd: 0, offer: null, ending: null, endingSeq: 0 };
}

function moved(
  before: KeptOperation | undefined,
  change: Extract<OutboxChange, { change: "move" }>,
): KeptOperation {
  assert(before !== undefined, "only a kept operation moves on");
  assert(!isTerminal(before.state) || before.state === change.state, "a terminal state never changes");
  return {
    ...before,
    state: change.state,
    eventSeq: Math.max(before.eventSeq, change.eventSeq ?? 0),
    outputEnd: Math.max(before.outputEnd, change.outputEnd ?? 0),
    ending: change.ending ?? before.ending,
  };
}
