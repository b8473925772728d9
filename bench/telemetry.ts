// Telemetry: one sampling pass against the plain way in Node over the same files, the page against prom-client, bytes
// on the wire against JSON, and what sampling does to the main thread's event loop.
import { readFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, Gauge, Registry } from "prom-client";
import { systemClock } from "../agent/host/clock.ts";
import { kernelFilesUnder } from "../agent/host/kernel-files.ts";
import { collectors } from "../agent/telemetry/collectors/index.ts";
import { createExposition } from "../agent/telemetry/exposition.ts";
import { Sampler } from "../agent/telemetry/sampler.ts";
import { Sampling } from "../agent/telemetry/sampling.ts";
import { createMeter } from "../assembly/index.ts";
import type { Series } from "../protocol/messages.ts";
import { decodeReadings, readingValue } from "../protocol/readings.ts";
import { type Bench, type Candidate, cpuTimed } from "./harness.ts";

const procRoot = "/proc";
const files: readonly string[] = collectors
  .filter((collector) => "file" in collector)
  .map(({ file }) => `${procRoot}/${file}`)
  .filter((file) => readable(file));

const warmUpPasses = 300;

export const telemetry: Bench = {
  name: "telemetry",
  title: "Telemetry: one pass over /proc, processor time of one thread",
  async prepare() {
    const sampling = new Sampling({
      files: kernelFilesUnder(procRoot),
      meter: await createMeter(),
      clock: systemClock,
      collectors,
      report: () => {},
    });
    const first = sampling.pass();
    const series = first.dictionary!.series;
    const raw = new BigUint64Array(series.length);
    decodeReadings(first.data, raw, { key: true });
    const values = series.map((one, k) => readingValue(raw[k]!, one));
    const bytes = files.reduce((sum, file) => sum + readFileSync(file).length, 0);
    const texts = files.map((file) => readFileSync(file));
    const live = await watchSampler();
    // One cold call decides how often each is repeated: both sides are warm before.
    for (let k = 0; k < warmUpPasses; k++) {
      sampling.pass();
      plainPass();
    }
    return {
      rounds: 15,
      sliceSeconds: 0.02,
      candidates: {
        "ours pass": cpuTimed(() => sampling.pass(), bytes),
        "plain read, split, Number": cpuTimed(() => plainPass(), bytes),
        "bare reads": bareReads(bytes),
        "ours parse": await parseCandidate(texts, bytes),
        "plain split, Number": cpuTimed(() => {
          for (const text of texts) plainParse(text.toString("utf8"));
        }, bytes),
        ...pageCandidates(series, values),
      },
      rows: [
        {
          name: `one pass over ${files.length} files of /proc`,
          subject: "ours pass",
          peer: "plain read, split, Number",
          floor: 2,
        },
        // 1 would be no work at all beside the kernel's own.
        {
          name: "the pass against bare reads of files kept open",
          subject: "ours pass",
          peer: "bare reads",
          floor: 0.6,
        },
        {
          name: "parsing alone, the same texts in memory",
          subject: "ours parse",
          peer: "plain split, Number",
          floor: 4,
        },
        { name: "the page's text against prom-client", subject: "ours page", peer: "prom-client", floor: 4 },
        {
          name: `a reading on the wire (${live.series} series, 10 Hz)`,
          unit: "B",
          measure: () => live.bytesPerReading,
          most: 1,
        },
        { name: "share of the same as JSON", unit: "%", measure: () => live.shareOfJson * 100, most: 3 },
        { name: "processor time of a sample, both threads", unit: "ms", measure: () => live.cpuMs, most: 3 },
        {
          name: "main thread's event loop late while sampling, p99",
          unit: "ms",
          measure: () => live.lateMs,
          most: 25,
        },
      ],
      [Symbol.asyncDispose]: async () => sampling[Symbol.dispose](),
    };
  },
};

function readable(file: string): boolean {
  try {
    readFileSync(file);
    return true;
  } catch {
    return false;
  }
}

/** What one writes first: whole files as strings, split into lines and words, the numbers by name. */
function plainPass(): number {
  let count = 0;
  for (const file of files) count += plainParse(readFileSync(file, "utf8")).size;
  return count;
}

function plainParse(text: string): Map<string, number[]> {
  const numbers = new Map<string, number[]>();
  for (const line of text.split("\n")) {
    const [name, ...rest] = line.trim().split(/[\s:=]+/);
    numbers.set(name ?? "", rest.map(Number));
  }
  return numbers;
}

/** What the kernel takes to write the texts: no approach that reads these files can do with less. */
function bareReads(bytes: number): Candidate {
  const into = new Uint8Array(1 << 18);
  const open = files.map((file) => kernelFilesUnder("/").open(file));
  return cpuTimed(() => {
    for (const file of open) file.read(into);
  }, bytes);
}

async function parseCandidate(texts: readonly Uint8Array[], bytes: number): Promise<Candidate> {
  const meter = await createMeter();
  return cpuTimed(() => {
    for (const text of texts) {
      meter.input.set(text);
      meter.scan(text.length);
    }
  }, bytes);
}

function pageCandidates(series: readonly Series[], values: readonly number[]): Record<string, Candidate> {
  const exposition = createExposition(series);
  const bytes = exposition.write(values).length;
  const registry = new Registry();
  const metrics = new Map<string, Gauge | Counter>();
  for (const { name, type, labels } of series) {
    if (metrics.has(name)) continue;
    const options = { name, help: name, labelNames: Object.keys(labels), registers: [registry] };
    metrics.set(name, type === "gauge" ? new Gauge(options) : new Counter(options));
  }
  return {
    "ours page": cpuTimed(() => exposition.write(values), bytes),
    "prom-client": {
      bytes,
      async measure(repeat) {
        const before = process.threadCpuUsage();
        for (let k = 0; k < repeat; k++) {
          registry.resetMetrics();
          for (const [at, { name, labels }] of series.entries())
            metrics.get(name)!.inc({ ...labels }, values[at]!);
          await registry.metrics();
        }
        const { user, system } = process.threadCpuUsage(before);
        return (user + system) / 1e6;
      },
    },
  };
}

/** The sampler as the agent runs it, but ten times a second: after a warm-up its cost, then the main thread's delay. */
async function watchSampler() {
  const stop = new AbortController();
  const warmUp = 10;
  const costed = 30;
  const watched = 20;
  const counted = { samples: 0, bytes: 0 };
  const reached = new Map(
    [warmUp, warmUp + costed, warmUp + costed + watched].map((at) => [at, Promise.withResolvers<void>()]),
  );
  const sampler = new Sampler({
    intervalMs: 100,
    clock: systemClock,
    log: { info() {}, warn() {} },
    onDictionary: () => {},
    onBatch({ data }) {
      counted.samples++;
      if (counted.samples > warmUp) counted.bytes += data.length;
      reached.get(counted.samples)?.resolve();
    },
  });
  const running = sampler.run(stop.signal);
  const until = (samples: number) => reached.get(samples)!.promise;
  await until(warmUp);
  const before = process.cpuUsage();
  await until(warmUp + costed);
  const { user, system } = process.cpuUsage(before);
  const loop = monitorEventLoopDelay({ resolution: 1 });
  loop.enable();
  await until(warmUp + costed + watched);
  loop.disable();
  const { dictionary, values } = sampler.snapshot()!;
  stop.abort();
  await running;
  const json = JSON.stringify(
    Object.fromEntries(
      dictionary.series.map((one, k) => [`${one.name}${JSON.stringify(one.labels)}`, values[k]]),
    ),
  );
  const bytesPerBatch = counted.bytes / (costed + watched);
  return {
    series: dictionary.series.length,
    bytesPerReading: bytesPerBatch / dictionary.series.length,
    shareOfJson: bytesPerBatch / json.length,
    cpuMs: (user + system) / 1000 / costed,
    // The histogram's own timer is due each millisecond.
    lateMs: Math.max(0, loop.percentile(99) / 1e6 - 1),
  };
}
