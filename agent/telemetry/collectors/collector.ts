// What a collector is, and the small words that collectors are written in. Adding one: a file here, a line in index.ts.
import type { Series } from "../../../protocol/messages.ts";

/** Series that change: numbers of one file. */
export interface FileCollector {
  readonly name: string;
  /** Relative to the root of /proc. */
  readonly file: string;
  /** Many kernels do not have the file: its absence is not worth a report. */
  readonly optional?: boolean;
  /**
   * Pure: for each number of the text, in the meter's order, its series, or null to leave it out. Called at start and
   * when the text's shape changes, never for each sample. Garbage gives fewer series and no error.
   */
  describe(text: string): readonly (Series | null)[];
}

/** Series that say something in their labels, such as the kernel's release. */
export interface ConstantCollector {
  readonly name: string;
  /** Relative to the root of /proc. */
  readonly files: readonly string[];
  /** Pure: by the texts of those files that could be read. */
  constants(texts: ReadonlyMap<string, string>): readonly Constant[];
}

export interface Constant {
  readonly series: Series;
  readonly value: bigint;
}

export type Collector = FileCollector | ConstantCollector;

export interface SeriesOptions {
  readonly labels?: Readonly<Record<string, string>>;
  /** What one of the kernel's integers is in the unit that the name ends with. Default 1. */
  readonly scale?: number;
}

/** A series that only grows. */
export function counter(name: string, help: string, options: SeriesOptions = {}): Series {
  return seriesOf("counter", name, help, options);
}

/** A series that goes up and down. */
export function gauge(name: string, help: string, options: SeriesOptions = {}): Series {
  return seriesOf("gauge", name, help, options);
}

function seriesOf(type: Series["type"], name: string, help: string, options: SeriesOptions): Series {
  const { labels = {}, scale = 1 } = options;
  return { name, labels: { ...labels }, type, scale, help };
}
