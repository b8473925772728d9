// What a command's handler is given and gives.
import type {
  CommandKind,
  CommandOf,
  commandKinds,
  OutputStream,
  Progress,
} from "../../protocol/commands.ts";
import type { GuardFinding } from "../../protocol/disks.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import type { DiskListing } from "../devices/disks.ts";
import type { Facts } from "../devices/facts.ts";
import type { Clock } from "../host/clock.ts";
import type { Files } from "../host/files.ts";
import type { Pause } from "../host/pause.ts";
import type { Processes } from "../host/processes.ts";
import type { Random } from "../host/random.ts";
import type { Policy } from "../policy/policy.ts";

/** Kinds that run in an executor. */
export type ExecutorKind = {
  [K in CommandKind]: (typeof commandKinds)[K]["runs"] extends "executor" ? K : never;
}[CommandKind];

/** The machine, through interfaces: what a simulated host replaces. */
export interface Host {
  readonly clock: Clock;
  readonly random: Random;
  readonly files: Files;
  readonly processes: Processes;
  /** Fresh facts: what was unreadable is noted for each collection anew. */
  readonly facts: () => Facts;
}

/** What an operation keeps across its runs. Each change is durable when the method returns. */
export interface Notes {
  get(name: string): Uint8Array | undefined;
  /** All or none. */
  set(entries: { readonly [name: string]: Uint8Array }): void;
}

/** Takes what a program prints: the newest of it is kept on disk, and told to whoever follows. */
export interface ProgramOutput {
  append(stream: OutputStream, bytes: Uint8Array): void;
  readonly stdoutBytes: number;
  readonly stderrBytes: number;
  readonly bytes: number;
  /** The newest bytes of both, at most so many. */
  tail(bytesMax: number): Uint8Array;
}

export interface CommandContext {
  readonly host: Host;
  readonly policy: Policy;
  readonly sources: readonly ImageSource[];
  /** PEM of the authority that https sources are signed by. */
  readonly ca: string;
  /** Counts from 1; above 1 the operation is resumed. */
  readonly run: number;
  readonly notes: Notes;
  /** Lists the disks as they are now. */
  readonly disks: (facts: Facts) => DiskListing;
  /** Progress is read from `done` once a second until the next phase. */
  readonly phase: (phase: Phase) => void;
  /** While the link is away, and the command says so. */
  readonly pause: Pause;
  readonly output: ProgramOutput;
  /**
   * Throws the signal's reason when the operation is to stop; after it, neither a cancel nor a limit nor a lost link
   * does. Only the executor's own end still aborts the signal, with `executor.lost`. Later runs are past it too, and are
   * not held against the policy again: what keeps them from doing it twice are `notes`, durable together with it.
   */
  readonly pointOfNoReturn: (why: string, notes?: { readonly [name: string]: Uint8Array }) => void;
  readonly log: (text: string) => void;
}

export interface Phase {
  /** One word: fetch, write, verify, seal. */
  readonly name: string;
  /** 0 where nobody knows. */
  readonly total: number;
  readonly unit: "bytes" | "groups" | "items";
  readonly done: () => number;
  /** Of several things that are worked on one after the other: which one this phase is about. */
  readonly at?: NonNullable<Progress["at"]>;
}

/** What a handler gives: the kind's output, and with `error` an operation that failed and has output none the less. */
export interface CommandEnd {
  readonly output: unknown;
  readonly error?: Error;
  /** In mode plan: what the signed plan says. Without it: the command's own arguments, the output as facts, no findings. */
  readonly plan?: {
    /** What apply must carry, member by member. */
    readonly arguments: Readonly<Record<string, unknown>>;
    /** For people to read before they sign. */
    readonly facts: Readonly<Record<string, unknown>>;
    readonly findings: readonly GuardFinding[];
  };
}

export interface Command<K extends CommandKind> {
  /** How long it may run where the command itself does not say. */
  readonly runForSeconds?: number;
  /** Ends soon after the signal aborts, with its reason. Whatever it throws is the operation's failure. */
  run(command: CommandOf<K>, context: CommandContext, signal: AbortSignal): Promise<CommandEnd>;
}
