// The newest readings of every host, decoded as they arrive, and who follows them.
import type { LiveDictionary, TelemetryView } from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import type { AgentMessage, Series } from "../../protocol/messages.ts";
import { decodeReadings, readingValue } from "../../protocol/readings.ts";

export type DictionaryMessage = Extract<AgentMessage, { t: "dictionary" }>;
export type BatchMessage = Extract<AgentMessage, { t: "batch" }>;

/** The readings of one session: its dictionary and the integers that the batches add up to. */
export class Readings {
  #dictionary: { readonly id: number; readonly series: readonly Series[] } | undefined;
  #values = new BigUint64Array(0);
  /** The batch that the values stand at; undefined until a key frame came. */
  #seq: number | undefined;
  #at = 0;

  get series(): readonly Series[] {
    return this.#dictionary?.series ?? [];
  }

  /** When the host took the newest readings, by its clock; undefined when there are none. */
  get at(): number | undefined {
    return this.#seq === undefined ? undefined : this.#at;
  }

  setDictionary(message: DictionaryMessage): void {
    this.#dictionary = { id: message.id, series: message.series };
    this.#values = new BigUint64Array(message.series.length);
    this.#seq = undefined;
  }

  /**
   * Applies a batch. `dropped`: it says only what changed since one that never came here, or is of another dictionary.
   * @throws `message.invalid`
   */
  apply(batch: BatchMessage): "applied" | "dropped" {
    if (batch.data.length > limits.batchBytesMax)
      throw new BedplateError(
        "message.invalid",
        `A batch has ${batch.data.length} bytes; at most ${limits.batchBytesMax} are taken.`,
      );
    if (this.#dictionary === undefined || this.#dictionary.id !== batch.dictionary) return "dropped";
    if (!batch.key && this.#seq !== batch.seq - 1) {
      this.#seq = undefined;
      return "dropped";
    }
    decodeReadings(batch.data, this.#values, { key: batch.key });
    this.#seq = batch.seq;
    this.#at = batch.at;
    return "applied";
  }

  /** In the units that the names end with. */
  values(): number[] {
    return this.series.map((_, index) => this.value(index));
  }

  /** Of one series, by its place in the dictionary. */
  value(index: number): number {
    return finite(readingValue(this.#values[index]!, this.series[index]!));
  }
}

// A host may choose a scale that takes a reading beyond what JSON's numbers hold.
function finite(value: number): number {
  return Math.max(-Number.MAX_VALUE, Math.min(Number.MAX_VALUE, value));
}

export interface Follower {
  dictionary(dictionary: LiveDictionary): void;
  sample(at: number, values: readonly number[]): void;
}

export class LiveTelemetry {
  // One entry a host that was ever online since the start, of at most 8192 series.
  readonly #newest = new Map<string, Readings>();
  readonly #followers = new Map<string, Set<Follower>>();

  /** A session's readings take the place of the one's before; those stay until the first batch. */
  changed(host: string, readings: Readings, what: "dictionary" | "sample"): void {
    if (what === "sample") this.#newest.set(host, readings);
    const followers = this.#followers.get(host);
    if (followers === undefined) return;
    if (what === "dictionary") {
      for (const follower of followers) follower.dictionary({ series: [...readings.series] });
    } else {
      const values = readings.values();
      for (const follower of followers) follower.sample(readings.at ?? 0, values);
    }
  }

  seriesCount(host: string): number | undefined {
    return this.#newest.get(host)?.series.length;
  }

  view(host: string): TelemetryView {
    const readings = this.#newest.get(host);
    if (readings?.at === undefined) return { at: 0, series: [] };
    const values = readings.values();
    return {
      at: readings.at,
      series: readings.series.map(({ name, labels, type }, index) => ({
        name,
        labels,
        type,
        value: values[index]!,
      })),
    };
  }

  /** Tells `follower` the dictionary and newest values at once, if there are any, and then each change. */
  follow(host: string, follower: Follower): Disposable {
    const followers = this.#followers.get(host) ?? new Set();
    this.#followers.set(host, followers.add(follower));
    const readings = this.#newest.get(host);
    if (readings?.at !== undefined) {
      follower.dictionary({ series: [...readings.series] });
      follower.sample(readings.at, readings.values());
    }
    return {
      [Symbol.dispose]: () => {
        followers.delete(follower);
        if (followers.size === 0 && this.#followers.get(host) === followers) this.#followers.delete(host);
      },
    };
  }
}
