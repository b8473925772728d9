// What the controller keeps of readings: batches as they were received, by the minute.

export interface StoredBatch {
  readonly host: string;
  readonly instance: string;
  readonly seq: number;
  /** By the controller's clock. */
  readonly at: number;
  /** From `TelemetryStore.dictionary`. */
  readonly dictionary: number;
  /** The message as received. */
  readonly frame: Uint8Array;
}

export interface Sighting {
  readonly host: string;
  readonly at: number;
  readonly clockOffsetMs: number | null;
}

export interface TelemetryStore {
  /** Keeps a dictionary message as received, once, and answers its number. */
  dictionary(host: string, frame: Uint8Array, series: number, at: number): Promise<number>;
  /** Appends what need not be durable at once: batches, when hosts were seen, progress events. */
  append(late: {
    readonly batches: readonly StoredBatch[];
    readonly seen: readonly Sighting[];
    readonly progressed: readonly string[];
    readonly at: number;
  }): Promise<void>;
  /** Batches received in the minutes `from` to `to` (since 1970), oldest first, with their dictionaries. */
  read(
    host: string,
    minutes: { readonly from: number; readonly to: number },
  ): Promise<readonly { readonly dictionary: Uint8Array; readonly frame: Uint8Array }[]>;
  /** Forgets what was received before the minute. */
  prune(beforeMinute: number): Promise<void>;
}

export function minuteOf(unixMs: number): number {
  return Math.floor(unixMs / 60_000);
}
