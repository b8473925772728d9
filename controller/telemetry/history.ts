// Readings of the past, decoded from the batches as they were received: of chosen series, thinned, within bounds.
import type { TelemetryHistoryView } from "../../protocol/api.ts";
import { equalBytes } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { decodeFrame } from "../../protocol/frames.ts";
import { checkAgentMessage } from "../../protocol/messages.ts";
import { minuteOf, type TelemetryStore } from "../store/telemetry-store.ts";
import { Readings } from "./live.ts";

export interface HistoryQuery {
  readonly host: string;
  /** By the controller's clock; whole minutes, both included. */
  readonly from: number;
  readonly to: number;
  /** Names, each with all its labels. */
  readonly names: ReadonlySet<string>;
  /** Of each series the last value within so long is kept; 0 for all. */
  readonly stepMs: number;
}

export const historyLimits = {
  rangeMs: 86_400_000,
  names: 64,
  points: 100_000,
  /** Read and decoded at a time, before others have their turn. */
  minutesAtOnce: 4,
  /** Decoded at a time within these: a dictionary may come with each batch. */
  bytesAtOnce: 1 << 20,
  /** Read before the first: a frame of differences needs the key frame before it, which comes once a minute. */
  minutesBefore: 2,
} as const;

interface Track {
  readonly series: TelemetryHistoryView["series"][number];
  /** The step that its last point is of. */
  step: number;
}

/**
 * @param pause resolves when others have had their turn
 * @throws `api.too-large` when there are more points than an answer holds
 */
export async function readHistory(
  store: Pick<TelemetryStore, "read">,
  query: HistoryQuery,
  pause: () => Promise<void>,
): Promise<TelemetryHistoryView["series"]> {
  const tracks = new Map<string, Track>();
  const decoder = new Decoder(query.names);
  const [first, last] = [minuteOf(query.from), minuteOf(query.to)];
  let points = 0;
  for (let minute = first - historyLimits.minutesBefore; minute <= last; ) {
    // Up to the first one that counts, then in stretches.
    const end = minute < first ? first - 1 : Math.min(last, minute + historyLimits.minutesAtOnce - 1);
    let bytes = 0;
    for (const { dictionary, frame } of await store.read(query.host, { from: minute, to: end })) {
      if (bytes > historyLimits.bytesAtOnce) {
        await pause();
        bytes = 0;
      }
      bytes += frame.length + (decoder.knows(dictionary) ? 0 : dictionary.length);
      const read = decoder.decode(dictionary, frame);
      if (minute < first || read === undefined) continue;
      for (const { key, series, value } of read.values) {
        let track = tracks.get(key);
        if (track === undefined) {
          track = { series: { ...series, points: [] }, step: Number.NaN };
          tracks.set(key, track);
        }
        const step = query.stepMs === 0 ? read.at : Math.floor(read.at / query.stepMs);
        if (track.step === step) track.series.points.pop();
        else points += 1;
        track.step = step;
        track.series.points.push([read.at, value]);
      }
      if (points > historyLimits.points) throw tooMany();
    }
    minute = end + 1;
    await pause();
  }
  return [...tracks.values()].map(({ series }) => series);
}

type Named = Omit<TelemetryHistoryView["series"][number], "points">;

/** Follows the stored batches of a host, through changes of its dictionary. */
class Decoder {
  readonly #names: ReadonlySet<string>;
  readonly #readings = new Readings();
  #dictionary: Uint8Array | undefined;
  #wanted: readonly { readonly index: number; readonly key: string; readonly series: Named }[] = [];

  constructor(names: ReadonlySet<string>) {
    this.#names = names;
  }

  /** Whether it is the one that came before: then it is not decoded again. */
  knows(dictionary: Uint8Array): boolean {
    // Mostly the very same bytes: the store reads each dictionary once.
    return (
      this.#dictionary === dictionary ||
      (this.#dictionary !== undefined && equalBytes(this.#dictionary, dictionary))
    );
  }

  /** Undefined where the batch cannot be read by itself: what it says only differs from one that is not here. */
  decode(
    dictionary: Uint8Array,
    frame: Uint8Array,
  ):
    | {
        readonly at: number;
        readonly values: readonly { readonly key: string; readonly series: Named; readonly value: number }[];
      }
    | undefined {
    if (!this.knows(dictionary)) this.#describe(dictionary);
    const batch = checkAgentMessage(decodeFrame(frame));
    if (batch.t !== "batch" || this.#readings.apply(batch) === "dropped") return undefined;
    const values = this.#wanted.map(({ index, key, series }) => ({
      ...{ key, series },
      value: this.#readings.value(index),
    }));
    return { at: batch.at, values };
  }

  #describe(dictionary: Uint8Array): void {
    const message = checkAgentMessage(decodeFrame(dictionary));
    if (message.t !== "dictionary") return;
    this.#dictionary = dictionary;
    this.#readings.setDictionary(message);
    this.#wanted = message.series.flatMap(({ name, labels, type }, index) =>
      this.#names.has(name)
        ? [{ index, key: `${name} ${JSON.stringify(labels)}`, series: { name, labels, type } }]
        : [],
    );
  }
}

function tooMany(): BedplateError {
  return new BedplateError(
    "api.too-large",
    `There are more than ${historyLimits.points} readings in what is asked for.`,
    { hint: "Ask for fewer series, a shorter time or a larger stepSeconds." },
  );
}
