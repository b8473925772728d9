// What the agent knows of the operations that have not ended, what can happen to them, and what then is to be done.
import type { AuditHead } from "../../protocol/audit.ts";
import type { OperationState, Result } from "../../protocol/commands.ts";
import type { ErrorReport } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import type { ExecutorEvent, FollowerRequest } from "../door/contract.ts";
import type { KeptOffer, KeptOperation, OutboxChange } from "../link/outbox-rules.ts";

export const operationLimits = {
  /** Open at once; the executor's lanes bound what really runs. */
  openMax: 256,
  /** Commands that run in the agent itself, at once. */
  hereMax: 64,
  /** Offers that wait in memory for room in the outbox. */
  waitingMax: 256,
  waitingBytesMax: 4 << 20,
  /** Records of programs' output that wait for the controller; beyond, no executor is asked for more. */
  outputBytesMax: 256 << 10,
  /** Beyond it nothing more is said for the controller's sake, not even that there is no room. */
  refusalBytesMax: 2 * limits.outboxRecordBytesMax,
  /** Executors that died in a row, each younger than `stableMs`, before the agent gives up on an operation. */
  deathsMax: 10,
  /** The same where only the journal is asked what came of an operation. */
  replayDeathsMax: 3,
  stableMs: 60_000,
  deathPauseMs: { first: 250, max: 30_000 },
  /** How often it is tried to attach to an executor that was just started. */
  attachTriesMax: 500,
  attachPauseMs: 20,
  /** Operations that the journal is asked about, at once: each takes an executor. */
  askingMax: 4,
  /** How long a link must be up, and the controller silent about it, until what it does not repeat is not wanted any more. */
  confirmMs: 600_000,
} as const;

export interface OpenOperation {
  readonly id: string;
  /** Its effect is more than to read: such ones start one after the other. */
  readonly changesState: boolean;
  /** `replay`: it has ended, and the journal is only asked once more how. */
  readonly mode: "run" | "replay";
  readonly state: OperationState;
  readonly eventSeq: number;
  readonly outputEnd: number;
  /**
   * `unconfirmed`: the journal does not know it, and it waits for the controller to offer it again.
   * `full`: its output has no room, and its executor is left until there is some.
   */
  readonly step: "queued" | "attaching" | "starting" | "following" | "pausing" | "unconfirmed" | "full";
  /**
   * Offered to this very process. What an earlier one took may come from an old copy of the outbox, and have been
   * cancelled since: it goes on where the journal knows it, and does not begin before the controller repeats it.
   */
  readonly confirmed: boolean;
  /** An executor is told to begin it, or was. */
  readonly begun: boolean;
  /** An executor has got that. */
  readonly handedOver: boolean;
  /** The last executor that was started only answers whether the journal knows it. */
  readonly asked: boolean;
  /** Since the last death an executor was started. */
  readonly started: boolean;
  /** Tries to attach to it. */
  readonly tries: number;
  readonly deaths: number;
  /** When it was last begun with, monotonic. */
  readonly sinceMs: number;
  readonly cancel: boolean;
  /**
   * Whether an operator wants it to wait, as the controller said last; undefined: it said nothing. `unknown`: its executor
   * may have been told so in another session, and in this one nothing was said yet.
   */
  readonly pausing: boolean | "unknown" | undefined;
  /** No more is read from its executor until records of output are acknowledged. */
  readonly held: boolean;
  /** The entry of the host's audit that was the newest known one when it first went to an executor. */
  readonly auditFloor: number;
}

/** An offer that came when there was no room. */
export interface WaitingOffer {
  readonly id: string;
  readonly runs: "agent" | "executor";
  readonly changesState: boolean;
  readonly offer: KeptOffer;
  /** Asked to end meanwhile: when there is room, it does not begin. */
  readonly cancel: boolean;
  readonly pausing?: boolean | undefined;
  /** Of an operation that is open already: it waits for no room of its own, but arrives after those before it. */
  readonly repeats: boolean;
}

export interface OperationsState {
  /** In order of arrival. */
  readonly open: ReadonlyMap<string, OpenOperation>;
  readonly waiting: readonly WaitingOffer[];
  /** Commands that run in the agent itself now. */
  readonly here: ReadonlySet<string>;
  readonly link: "up" | "down";
  /** Monotonic. */
  readonly linkSinceMs: number;
  /** The furthest that the host's audit is known to be. */
  readonly audit: Pick<AuditHead, "seq" | "hash"> | undefined;
}

export const noOperations: OperationsState = {
  ...{ open: new Map(), waiting: [], here: new Set(), link: "down", linkSinceMs: 0, audit: undefined },
};

/** What the outbox has of an operation; `answered`: nothing of it waits there for the controller. */
export type Known = KeptOperation & { readonly answered: boolean };

export type OperationsEvent =
  /** The process starts with what an earlier one left open. */
  | {
      readonly event: "opened";
      readonly operations: readonly (KeptOperation & { readonly changesState: boolean })[];
      readonly audit?: OperationsState["audit"];
    }
  | {
      readonly event: "offer";
      readonly id: string;
      readonly runs: "agent" | "executor";
      readonly changesState: boolean;
      readonly offer: KeptOffer;
      readonly known: Known | undefined;
    }
  /** `ifKnown`: what is not known here is another machine's affair. */
  | {
      readonly event: "cancel";
      readonly id: string;
      readonly known: Known | undefined;
      readonly ifKnown?: boolean;
    }
  /** An operator wants it to wait, or to go on. */
  | { readonly event: "pausing"; readonly id: string; readonly paused: boolean }
  | { readonly event: "attached"; readonly id: string }
  /** Nobody listens for this operation; `ended`: the executor that was started is known to be gone. */
  | { readonly event: "absent"; readonly id: string; readonly ended: boolean; readonly trouble: string }
  | { readonly event: "started"; readonly id: string }
  | { readonly event: "not-started"; readonly id: string; readonly trouble: string }
  | { readonly event: "said"; readonly id: string; readonly said: JournalledOrAnswer }
  /** The connection to its executor ended. */
  | { readonly event: "lost"; readonly id: string; readonly trouble: string }
  | { readonly event: "paused"; readonly id: string }
  | { readonly event: "link"; readonly link: "up" | "down" }
  /** The controller has stored records. */
  | { readonly event: "acknowledged" }
  | {
      readonly event: "done-here";
      readonly id: string;
      readonly offer: KeptOffer;
      readonly known: Known | undefined;
      readonly result: Result;
    };

/** What an executor says, but for progress, which is nobody's decision. */
export type JournalledOrAnswer = Exclude<ExecutorEvent, { type: "progress" }>;

/** The moment, and how full the outbox is. */
export interface OperationsFacts {
  readonly monotonicMs: number;
  readonly unixMs: number;
  readonly recordBytes: number;
  readonly outputBytes: number;
}

export type Effect =
  | {
      readonly effect: "attach";
      readonly id: string;
      readonly afterSeq: number;
      readonly afterOutput: number | undefined;
    }
  /** Only when all changes so far are durable. `ask`: goes on with what the journal knows; `follow`: only replays it. */
  | { readonly effect: "start"; readonly id: string; readonly request: "run" | "ask" | "follow" }
  | { readonly effect: "send"; readonly id: string; readonly request: FollowerRequest }
  | { readonly effect: "detach"; readonly id: string }
  | { readonly effect: "pause"; readonly id: string; readonly ms: number }
  | { readonly effect: "hold" | "read-on"; readonly id: string }
  | { readonly effect: "run-here"; readonly id: string; readonly offer: KeptOffer }
  | {
      readonly effect: "log";
      readonly level: "info" | "warn" | "error";
      readonly id: string;
      readonly message: string;
    };

/** A step: the changes are one transaction, and the effects come after it. */
export interface OperationsStep {
  readonly state: OperationsState;
  readonly changes: readonly OutboxChange[];
  readonly effects: readonly Effect[];
}

/** Why the agent itself ended an operation, as the wire has it. */
export function wireReport(report: ErrorReport): {
  code: string;
  message: string;
  hint?: string;
  details?: Record<string, unknown>;
} {
  const { details, ...rest } = report;
  return details === undefined ? rest : { ...rest, details: { ...details } };
}
