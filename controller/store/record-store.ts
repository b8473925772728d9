// What becomes of a record that a host sent: each is applied once, with its effect.
import type { RecordBody } from "../../protocol/messages.ts";
import type { Vouched } from "../rules/record-rule.ts";

export type OutputRecord = Extract<RecordBody, { type: "output" }>;

export interface IncomingRecord {
  readonly host: string;
  readonly instance: string;
  readonly seq: number;
  /** In its session; absent: later. */
  readonly place?: "first" | "later";
  readonly body: RecordBody;
  /** By the controller's clock. */
  readonly at: number;
  /** What the host's keys say of it; a record that needs their word has no effect without. */
  readonly vouched?: Vouched | undefined;
}

export interface RecordAnswer {
  /** `known`: stored before, nothing done; `hole`: records before it are missing, nothing done. */
  readonly status: "stored" | "known" | "hole";
  /** The highest record stored. */
  readonly mark: number;
  /** Why the record had no effect though it was stored. */
  readonly ignored?: string;
  /** How many records before it are lost: those that came after the backup which this store was restored from. */
  readonly lost?: number;
}

export interface RecordStore {
  /**
   * Applies a record and raises the host's mark in one transaction, so that none is applied twice or lost. Calls for one
   * host are applied in the order in which they are made, also when one is made before another's promise has resolved.
   */
  apply(record: IncomingRecord): Promise<RecordAnswer>;
  /** Calls with the command's id when output of it is durable. */
  followOutput(listener: (command: string) => void): Disposable;
}
