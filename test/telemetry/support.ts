// What the telemetry tests share: trees of /proc files made on the spot, frames decoded, series as text.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { kernelFilesUnder } from "../../agent/host/kernel-files.ts";
import type { FileCollector } from "../../agent/telemetry/collectors/collector.ts";
import { collectors } from "../../agent/telemetry/collectors/index.ts";
import {
  type Pass,
  Sampling,
  type SamplingOptions,
  type SamplingReport,
} from "../../agent/telemetry/sampling.ts";
import { createMeter, type Meter } from "../../assembly/index.ts";
import type { Series } from "../../protocol/messages.ts";
import { decodeReadings, readingValue } from "../../protocol/readings.ts";

export const fixture: string = fileURLToPath(new URL("../fixtures/proc-vm", import.meta.url));

export interface Tree extends Disposable {
  readonly root: string;
  /** Writes in place, as the kernel does: who has the file open reads the new text. */
  write(path: string, text: string): void;
  path(file: string): string;
}

export function temporaryTree(files: Readonly<Record<string, string>> = {}): Tree {
  const root = mkdtempSync(join(tmpdir(), "bedplate-proc-"));
  const tree: Tree = {
    root,
    path: (file) => join(root, file),
    write(path, text) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    },
    [Symbol.dispose]: () => rmSync(root, { recursive: true, force: true }),
  };
  for (const [path, text] of Object.entries(files)) tree.write(path, text);
  return tree;
}

/** `node_load1` or `node_cpu_seconds_total{cpu="0",mode="idle"}`. */
export function keyOf({ name, labels }: Pick<Series, "name" | "labels">): string {
  const pairs = Object.entries(labels)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([label, value]) => `${label}=${JSON.stringify(value)}`);
  return pairs.length === 0 ? name : `${name}{${pairs.join(",")}}`;
}

/** What a collector and the real meter make of a text. */
export function readingsOf(collector: FileCollector, text: string, meter: Meter): Record<string, number> {
  const { written } = new TextEncoder().encodeInto(text, meter.input);
  const { count } = meter.scan(written);
  const described = collector.describe(text);
  if (described.length !== count) throw new Error(`${described.length} numbers described, ${count} scanned`);
  const entries = described.flatMap((series, k) =>
    series === null ? [] : [[keyOf(series), readingValue(meter.numbers[k]!, series)] as const],
  );
  return Object.fromEntries(entries);
}

/** A receiver of passes: keeps dictionary and values as a controller does. */
export class Receiver {
  series: readonly Series[] = [];
  id = 0;
  raw = new BigUint64Array(0);

  take(pass: Pass): void {
    if (pass.dictionary !== undefined) {
      this.series = pass.dictionary.series;
      this.id = pass.dictionary.id;
      this.raw = new BigUint64Array(this.series.length);
    }
    if (pass.dictionaryId !== this.id) throw new Error("a batch of an unknown dictionary");
    decodeReadings(pass.data, this.raw, { key: pass.key });
  }

  values(): Record<string, number> {
    return Object.fromEntries(
      this.series.map((series, k) => [keyOf(series), readingValue(this.raw[k]!, series)]),
    );
  }
}

export interface Bench extends Disposable {
  readonly sampling: Sampling;
  readonly reports: SamplingReport[];
  readonly receiver: Receiver;
  readonly clock: { nowMs: number };
  /** A pass, received. */
  pass(): Pass;
}

/** A sampling of the tree under `root`, without a thread, on a clock that stands. */
export async function samplingOf(root: string, options: Partial<SamplingOptions> = {}): Promise<Bench> {
  const reports: SamplingReport[] = [];
  const clock = { nowMs: 0 };
  const receiver = new Receiver();
  const sampling = new Sampling({
    files: kernelFilesUnder(root),
    meter: await createMeter(),
    clock: { monotonic: () => clock.nowMs },
    collectors,
    report: (report) => reports.push(report),
    ...options,
  });
  return {
    sampling,
    reports,
    receiver,
    clock,
    pass() {
      const pass = sampling.pass();
      receiver.take(pass);
      return pass;
    },
    [Symbol.dispose]: () => sampling[Symbol.dispose](),
  };
}
