// What the controller keeps of commands and of what their programs print, and what each call on them means.
import type { OperationState } from "../../protocol/commands.ts";
import type { DueSteps, SentInSession, Step } from "../rules/offering.ts";
import type { CommandEvent, CommandState } from "../rules/reduce.ts";
import type { AddedSignature, KeptSignature } from "../rules/signatures.ts";
import type { OutputRecord } from "./record-store.ts";

export interface StoredCommand extends CommandState {
  readonly id: string;
  readonly host: string;
  readonly kind: string;
  readonly mode: string;
  /** The caller's very bytes; empty when it has ended and was let go of, see `holding`. */
  readonly document: Uint8Array;
  /** One a key. Without its text when the command was let go of. */
  readonly signatures: readonly KeptSignature[];
  /** It is not offered before it has so many. */
  readonly signaturesWanted: number;
  /** Of output that the host has told of. */
  readonly outputBytes: number;
  readonly createdAt: number;
  /** After which it is not started; null for no limit. */
  readonly notAfter: number | null;
  /** The host's generation that it was first offered with; null before. */
  readonly generation: number | null;
}

export interface NewCommand {
  readonly id: string;
  readonly host: string;
  readonly kind: string;
  readonly mode: string;
  readonly document: Uint8Array;
  readonly signatures: readonly KeptSignature[];
  readonly signaturesWanted: number;
  readonly notAfter: number | null;
  readonly at: number;
}

/** What a session was sent, and what time it is: what `dueSteps` asks for. */
export interface SessionNow extends SentInSession {
  /** Monotonic. */
  readonly nowMs: number;
  /** What was taken before this, by the wall clock, has waited too long and is not sent any more. */
  readonly takenBefore: number;
}

/** Steps of `dueSteps`, done in the store: what is sent when they are durable, in this order. */
export interface DueOffers {
  readonly steps: readonly (
    | { readonly step: "offer"; readonly command: StoredCommand }
    | { readonly step: Exclude<Step["step"], "offer">; readonly id: string }
  )[];
  readonly rest: DueSteps["rest"];
  readonly epoch: number;
}

export interface CommandFilter {
  readonly host?: string | undefined;
  readonly state?: OperationState | undefined;
  readonly limit: number;
  /** Of documents and results in all; the first is always there. Absent: no bound. */
  readonly bytesMax?: number;
}

export interface CommandStore {
  /**
   * `known`: the same id with the same document; `conflict`: with another one; `full`: the host has too many open ones;
   * `too-many-kept`: too many that ended are remembered, see `holding`;
   * `revoked`: its key is, so nothing can be sent to it. With a session, what is due to it is offered in the same
   * transaction; `due` says what.
   */
  create(
    command: NewCommand,
    session?: SessionNow,
  ): Promise<
    | { readonly status: "created"; readonly command: StoredCommand; readonly due: DueOffers }
    | { readonly status: "known" | "conflict"; readonly command: StoredCommand }
    | { readonly status: "full" | "too-many-kept" | "revoked" }
  >;
  get(id: string): Promise<StoredCommand | undefined>;
  /** Whether it has ended; without reading all of it. */
  standing(id: string): Promise<"open" | "ended" | "unknown">;
  /** Newest first. */
  list(filter: CommandFilter): Promise<readonly StoredCommand[]>;
  /**
   * Decides by `dueSteps` what of a host's open commands the session is sent, and marks it so: a command's first offer
   * gives it its generation by `assignGeneration`.
   */
  offerDue(host: string, session: SessionNow, at: number): Promise<DueOffers>;
  /** Commands of a host that it was offered, that have not ended, and whose cancel was asked for. */
  cancelling(host: string): Promise<readonly string[]>;
  /** Adds by `addSignature`. Undefined when there is no such command. */
  sign(
    id: string,
    signature: KeptSignature,
  ): Promise<{ readonly status: AddedSignature["status"]; readonly command: StoredCommand } | undefined>;
  /**
   * Those that wait and whose own time limit to start is before `at`, or that were taken before `takenBefore`, with the
   * number of signatures that each still lacks.
   */
  expired(
    at: number,
    takenBefore: number,
  ): Promise<readonly { readonly id: string; readonly missing: number; readonly limit: "own" | "waited" }[]>;
  /** Deletes commands that ended before `before`, oldest first, with their output. Answers how many, at most `limit`. */
  forget(before: number, limit: number): Promise<number>;
  /** Applies an event by `reduceCommand`, and appends the API event of what changed. */
  apply(id: string, event: CommandEvent, at: number): Promise<StoredCommand | undefined>;
  /** What the command's program printed after an offset: at most `bytesMax` of it, or one piece that is longer. */
  output(id: string, after: number, bytesMax: number): Promise<OutputPage | undefined>;
  /** How many there are in each state. */
  counts(): Promise<ReadonlyMap<OperationState, number>>;
}

export interface OutputPage {
  /** How far the output came so far. */
  readonly end: number;
  /** In order of their offsets, none twice; a jump is output that was lost or is no longer kept. */
  readonly pieces: readonly {
    readonly stream: OutputRecord["stream"];
    readonly offset: number;
    readonly data: Uint8Array;
  }[];
}
