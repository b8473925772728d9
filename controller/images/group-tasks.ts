// What importing and receiving ask of their worker threads, and what they get back.
import type { ErrorReport } from "../../protocol/errors.ts";

/** Memory that main thread and workers share: a group on the way in, its frame on the way out. */
export type SlotBytes = Uint8Array<SharedArrayBuffer>;

export interface Packed {
  readonly digest: Uint8Array<ArrayBuffer>;
  /** Length of the frame that now is in the slot; 0 for a group of zeroes, which has none. */
  readonly frameBytes: number;
}

interface GroupOf {
  readonly slot: SlotBytes;
  readonly length: number;
  readonly group: number;
  /** The group is the whole image. */
  readonly root: boolean;
}

export interface GroupTasks {
  /** Hashes and compresses the group in the slot. */
  pack: { task: GroupOf & { readonly level: number }; result: Packed };
  /** The same for a group read from `fd` at its own offset. */
  packFrom: { task: GroupOf & { readonly level: number; readonly fd: number }; result: Packed };
  /** Decodes the frame in the slot and compares its digest: `image.corrupt` names group and offset. */
  verify: { task: GroupOf & { readonly frameBytes: number; readonly digest: Uint8Array }; result: undefined };
  /** Compares the digests of groups that claim to be zeroes. */
  verifyZeroes: {
    task: {
      readonly groups: readonly {
        readonly group: number;
        readonly length: number;
        readonly digest: Uint8Array;
      }[];
      readonly root: boolean;
    };
    result: undefined;
  };
  /** The root that digests add up to. */
  merge: { task: { readonly digests: Uint8Array; readonly count: number }; result: Uint8Array<ArrayBuffer> };
}

export type TaskKind = keyof GroupTasks;
export type TaskMessage = { [K in TaskKind]: { readonly kind: K } & GroupTasks[K]["task"] }[TaskKind];
/** Errors travel as reports: a thrown one would lose its code between threads. */
export type TaskAnswer = { readonly value: GroupTasks[TaskKind]["result"] } | { readonly error: ErrorReport };
