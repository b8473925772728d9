// The sources of an image that a worker still uses, and the means to read them.
import { BedplateError } from "../../protocol/errors.ts";
import type { Clock } from "../host/clock.ts";
import type { Random } from "../host/random.ts";
import type { Connections } from "./connections.ts";
import { addTo, type ImageJob } from "./image-job.ts";
import type { UsableSource } from "./open-sources.ts";
import { createPace, type Pace } from "./pace.ts";
import { noteBytes, noteGivenUp } from "./source-account.ts";

/** The sources still in use, best first. */
export interface Sources {
  /** @throws `image.fetch-failed` when there is none */
  readonly current: UsableSource;
  uses(source: UsableSource): boolean;
  /** Never asked again by this worker. @throws `why` when it was the last one */
  giveUp(source: UsableSource, why: unknown): void;
}

/** @param onGivenUp told of each as it is given up, also of the last */
export function sourcesOf(
  all: readonly UsableSource[],
  onGivenUp: (source: UsableSource, why: unknown) => void,
): Sources {
  const left = [...all];
  return {
    get current() {
      const [first] = left;
      if (first === undefined)
        throw new BedplateError("image.fetch-failed", "No source of the image is left.");
      return first;
    },
    uses: (source) => left.includes(source),
    giveUp(source, why) {
      const at = left.indexOf(source);
      if (at >= 0) {
        left.splice(at, 1);
        onGivenUp(source, why);
      }
      if (left.length === 0) throw why;
    },
  };
}

export interface FetchingMeans {
  readonly connections: Connections;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}

export interface Fetching extends FetchingMeans {
  readonly sources: Sources;
  /** Of the image. */
  readonly sizeBytes: number;
  /** Waits until so many more bytes may be fetched. */
  readonly pace?: Pace;
  /** Told of every byte that came, also of those that come to nothing. */
  readonly onBytes: (count: number, source: UsableSource) => void;
}

/** How one thread of an operation fetches, its bytes and its bad sources counted for all. */
export function fetchingOf(
  {
    sources,
    sizeBytes,
    shared,
    fetchBytesPerSecondMax,
  }: Pick<ImageJob, "sources" | "sizeBytes" | "shared" | "fetchBytesPerSecondMax">,
  means: FetchingMeans,
): Fetching {
  return {
    ...means,
    sizeBytes,
    pace: createPace(fetchBytesPerSecondMax, means.clock, means.signal),
    sources: sourcesOf(sources, (source, why) => noteGivenUp(shared, sources.indexOf(source), why)),
    onBytes(count, source) {
      addTo(shared, "fetched", count);
      noteBytes(shared, sources.indexOf(source), count);
    },
  };
}
