// What the sampler's two threads say to each other.
import type { Dictionary } from "./dictionary.ts";
import type { SamplingReport } from "./sampling.ts";

/** Given to the worker at its start. */
export interface SamplerWorkerData {
  readonly procRoot: string;
  readonly intervalMs: number;
}

/** To the worker: make the next frame a key frame; finish and exit. */
export type ToSampler = "key" | "stop";

/** One second's readings. */
export interface SampleMessage {
  readonly type: "sample";
  /** Of this batch and those that follow; absent while it stays the same. */
  readonly dictionary?: Dictionary;
  readonly dictionaryId: number;
  readonly at: number;
  readonly key: boolean;
  readonly data: Uint8Array<ArrayBuffer>;
  /** How long the pass took. */
  readonly passMs: number;
  /** Ticks left out just before this one. */
  readonly skipped: number;
}

export type FromSampler = SampleMessage | { readonly type: "report"; readonly report: SamplingReport };
