// One pass over the kernel's files: read into WebAssembly memory, parsed, put into the table of values, encoded.
//
// Each file knows which of its numbers are series (its columns) and where in the table they go (its target). That holds
// while the file's shape does; when it changes (a disk, an interface, a processor more or less) the file is described
// again, the table laid out again, and a new dictionary made.
import type { Meter } from "../../assembly/index.ts";
import { assert, reportOf } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import type { Series } from "../../protocol/messages.ts";
import type { Clock } from "../host/clock.ts";
import type { KernelFile, KernelFiles } from "../host/kernel-files.ts";
import type { Collector, Constant, ConstantCollector, FileCollector } from "./collectors/collector.ts";
import { createDictionaryBuilder, type Dictionary } from "./dictionary.ts";

export interface SamplingOptions {
  readonly files: KernelFiles;
  readonly meter: Meter;
  readonly clock: Pick<Clock, "monotonic">;
  readonly collectors: readonly Collector[];
  /** A file that could not be read is tried again after this; constants are read again. Default a minute. */
  readonly retryMs?: number;
  /** Every so many passes comes a key frame. Default 60. */
  readonly keyEvery?: number;
  /** Called when a file is lost, when it is back, and when series find no room: once each. */
  readonly report: (report: SamplingReport) => void;
}

export interface SamplingReport {
  readonly level: "info" | "warn";
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

export interface Pass {
  /** Set when it is not the dictionary of the pass before; `key` is then true. */
  readonly dictionary: Dictionary | undefined;
  readonly dictionaryId: number;
  readonly key: boolean;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** A file may change shape again while it is described; beyond this it is taken for unreadable. */
const attemptsMax = 4;

interface Source {
  readonly collector: FileCollector;
  /** Null while it cannot be read. */
  file: KernelFile | null;
  reported: boolean;
  shape: bigint | null;
  /** For each number of the file. */
  described: readonly (Series | null)[];
  /** The numbers that are series, and where in the table the first of them goes. */
  columns: Uint32Array;
  target: number;
}

export class Sampling {
  readonly #options: SamplingOptions;
  readonly #retryMs: number;
  readonly #keyEvery: number;
  readonly #sources: Source[];
  readonly #constantCollectors: readonly ConstantCollector[];
  // A byte order mark is a word like others, to the meter.
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #constants: readonly Constant[] = [];
  #dictionary: Dictionary = { id: 0, series: [] };
  #sentId: number | null = null;
  #retryAt: number;
  #sinceKey = 0;
  #keyAsked = true;
  #leftOut = "";

  constructor(options: SamplingOptions) {
    this.#options = options;
    this.#retryMs = options.retryMs ?? 60_000;
    this.#keyEvery = options.keyEvery ?? 60;
    this.#retryAt = options.clock.monotonic();
    this.#sources = options.collectors
      .filter((collector) => "file" in collector)
      .map((collector) => ({
        collector,
        file: null,
        reported: false,
        shape: null,
        described: [],
        columns: new Uint32Array(0),
        target: 0,
      }));
    this.#constantCollectors = options.collectors.filter((collector) => "files" in collector);
  }

  /** The next pass' frame is a key frame. */
  requestKey(): void {
    this.#keyAsked = true;
  }

  pass(): Pass {
    const { meter, clock } = this.#options;
    const now = clock.monotonic();
    let settled = true;
    if (now >= this.#retryAt) {
      this.#retryAt = now + this.#retryMs;
      settled = !this.#retry();
    }
    for (let attempt = 0; ; attempt++) {
      if (!settled) this.#layOut();
      const changed = this.#sources.filter(
        (source) => source.file !== null && this.#read(source) === "changed",
      );
      if (changed.length === 0) break;
      settled = false;
      if (attempt >= attemptsMax) {
        for (const source of changed)
          this.#lose(source, `${source.collector.file} changes its shape faster than it can be read.`);
      }
    }
    const dictionary = this.#dictionary.id === this.#sentId ? undefined : this.#dictionary;
    const key = dictionary !== undefined || this.#keyAsked || this.#sinceKey >= this.#keyEvery;
    this.#sentId = this.#dictionary.id;
    this.#keyAsked = false;
    this.#sinceKey = key ? 1 : this.#sinceKey + 1;
    const data = meter.encode(this.#dictionary.series.length, { key });
    return { dictionary, dictionaryId: this.#dictionary.id, key, data };
  }

  [Symbol.dispose](): void {
    for (const source of this.#sources) source.file?.close();
  }

  /** Puts the file's numbers into the table, or describes them when they are not those known. */
  #read(source: Source): "same" | "changed" {
    const { meter } = this.#options;
    let length: number;
    try {
      // A call for each file and each pass: the file reads where the meter parses, nothing is copied.
      length = source.file!.read(meter.input);
    } catch (error) {
      this.#lose(source, reportOf(error).message);
      return "changed";
    }
    const { count, shape } = meter.scan(length);
    if (shape === source.shape) {
      meter.gather(source.target, source.columns);
      return "same";
    }
    const described = source.collector.describe(this.#decoder.decode(meter.input.subarray(0, length)));
    assert(
      described.length === count,
      `${source.collector.name} describes each number of ${source.collector.file}`,
    );
    source.shape = shape;
    source.described = described;
    return "changed";
  }

  /** Opens what is not open and reads the constants again. Returns whether anything changed. */
  #retry(): boolean {
    let changed = false;
    for (const source of this.#sources.filter(({ file }) => file === null)) {
      try {
        source.file = this.#options.files.open(source.collector.file);
        changed = true;
        if (source.reported)
          this.#report("info", `${source.collector.file} is read again.`, source.collector);
        source.reported = false;
      } catch (error) {
        this.#lose(source, reportOf(error).message);
      }
    }
    const constants = this.#constantCollectors.flatMap((collector) =>
      collector.constants(this.#texts(collector)),
    );
    if (JSON.stringify(constants, jsonBigint) !== JSON.stringify(this.#constants, jsonBigint)) {
      this.#constants = constants;
      changed = true;
    }
    return changed;
  }

  #texts(collector: ConstantCollector): Map<string, string> {
    const { files, meter } = this.#options;
    const texts = new Map<string, string>();
    for (const path of collector.files) {
      try {
        const file = files.open(path);
        try {
          texts.set(path, this.#decoder.decode(meter.input.subarray(0, file.read(meter.input))));
        } finally {
          file.close();
        }
      } catch {
        // The collector sees that it is missing, and says what it can without.
      }
    }
    return texts;
  }

  #lose(source: Source, reason: string): void {
    source.file?.close();
    source.file = null;
    source.shape = null;
    source.described = [];
    if (source.reported || source.collector.optional === true) return;
    source.reported = true;
    this.#report(
      "warn",
      `${reason} Its series are left out, and it is tried again each minute.`,
      source.collector,
    );
  }

  /** Gives every series its place in the table, and the table its dictionary. */
  #layOut(): void {
    const { meter } = this.#options;
    const builder = createDictionaryBuilder();
    const leftOut = { full: 0, duplicate: 0 };
    const take = (series: Series) => {
      const answer = builder.add(series);
      if (answer !== "taken") leftOut[answer]++;
      return answer === "taken";
    };
    for (const { series, value } of this.#constants) {
      const at = builder.length;
      if (take(series)) meter.values[at] = value;
    }
    for (const source of this.#sources) {
      source.target = builder.length;
      const columns: number[] = [];
      source.described.forEach((series, column) => {
        if (series !== null && take(series)) columns.push(column);
      });
      source.columns = Uint32Array.from(columns);
    }
    this.#dictionary = builder.finish();
    assert(
      this.#dictionary.series.length <= limits.seriesMax,
      "the table holds every series of the dictionary",
    );
    this.#reportLeftOut(leftOut);
  }

  #reportLeftOut({ full, duplicate }: { full: number; duplicate: number }): void {
    const what =
      full + duplicate === 0
        ? ""
        : `${full} series do not fit the dictionary, ${duplicate} are in it already`;
    if (what === this.#leftOut) return;
    this.#leftOut = what;
    if (what !== "")
      this.#options.report({
        level: "warn",
        message: `${what}; they are left out.`,
        details: { full, duplicate },
      });
  }

  #report(level: SamplingReport["level"], message: string, { name, file }: FileCollector): void {
    this.#options.report({ level, message, details: { collector: name, file } });
  }
}

function jsonBigint(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}
