// What hash-file.ts and its workers share: the job, and the slots of its control block.
import type { CompiledKernel } from "./load.ts";

export interface HashWorkerData {
  readonly kernel: CompiledKernel;
}

/** Int32 slots that all workers of one file share. */
export const slots = {
  /** The next group that nobody has claimed. */
  next: 0,
  /** Groups finished. */
  done: 1,
  /** 1: leave as soon as possible. */
  stop: 2,
} as const;

/** One worker's part in hashing a file: all workers get the same job and claim groups of it. */
export interface HashJob {
  readonly algorithm: "blake3" | "sha256";
  readonly path: string;
  /** Open in this process as long as any job of the file runs. */
  readonly fd: number;
  readonly bytes: number;
  readonly control: Int32Array<SharedArrayBuffer>;
  /** BLAKE3: a digest for each group. SHA-256: the digest. */
  readonly output: Uint8Array<SharedArrayBuffer>;
}
