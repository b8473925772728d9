// The newest value of every series, from the very frames that are sent. Nobody may ask for long, so they are kept
// undecoded: a frame of differences has a hundred bytes, and each key frame replaces all before it.
import { assert } from "../../protocol/errors.ts";
import type { Series } from "../../protocol/messages.ts";
import { decodeReadings, readingValue } from "../../protocol/readings.ts";
import type { Dictionary } from "./dictionary.ts";

export interface Snapshot {
  readonly at: number;
  readonly dictionary: Dictionary;
  /** The k-th is the value of the dictionary's k-th series, in the unit its name ends with. */
  readonly values: Float64Array;
}

export interface Frame {
  readonly dictionary: number;
  readonly at: number;
  readonly key: boolean;
  readonly data: Uint8Array;
}

export class NewestValues {
  #dictionary: Dictionary | null = null;
  #raw = new BigUint64Array(0);
  #pending: Frame[] = [];
  #at = 0;

  get seriesCount(): number {
    return this.#dictionary?.series.length ?? 0;
  }

  setDictionary(dictionary: Dictionary): void {
    this.#dictionary = dictionary;
    this.#raw = new BigUint64Array(dictionary.series.length);
    this.#pending = [];
    this.#at = 0;
  }

  add(frame: Frame): void {
    assert(frame.dictionary === this.#dictionary?.id, "a frame follows its dictionary");
    if (frame.key) this.#pending = [];
    this.#pending.push(frame);
    this.#at = frame.at;
  }

  read(): Snapshot | undefined {
    if (this.#dictionary === null || this.#at === 0) return undefined;
    for (const { data, key } of this.#pending) decodeReadings(data, this.#raw, { key });
    this.#pending = [];
    const { series } = this.#dictionary;
    const values = Float64Array.from(this.#raw, (raw, k) => readingValue(raw, series[k] as Series));
    return { at: this.#at, dictionary: this.#dictionary, values };
  }
}
