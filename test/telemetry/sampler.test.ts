// The sampler with its real worker thread on the real /proc, and what happens when the worker dies.
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { systemClock } from "../../agent/host/clock.ts";
import type { Dictionary } from "../../agent/telemetry/dictionary.ts";
import { type SampledBatch, Sampler } from "../../agent/telemetry/sampler.ts";
import { decodeReadings, readingValue } from "../../protocol/readings.ts";
import { keyOf, temporaryTree } from "./support.ts";

const quiet = { info() {}, warn() {} };
const number = (file: string, pattern: RegExp) =>
  Number(pattern.exec(readFileSync(`/proc/${file}`, "utf8"))![1]);
const read = () => ({
  node_context_switches_total: number("stat", /^ctxt (\d+)/m),
  node_forks_total: number("stat", /^processes (\d+)/m),
  node_intr_total: number("stat", /^intr (\d+)/m),
  node_vmstat_pgfault: number("vmstat", /^pgfault (\d+)/m),
  'node_cpu_seconds_total{cpu="0",mode="user"}': number("stat", /^cpu0 (\d+)/m) / 100,
});

test("on the real /proc: dictionary, key frame, differences, key frame on request; values lie between two direct reads", async () => {
  const stop = new AbortController();
  const batches: (SampledBatch & { readonly first: boolean; readonly values: Record<string, number> })[] = [];
  const dictionaries: Dictionary[] = [];
  let raw = new BigUint64Array(0);
  const enough = Promise.withResolvers<void>();
  const before = read();
  const sampler = new Sampler({
    intervalMs: 40,
    clock: systemClock,
    log: quiet,
    onDictionary(dictionary) {
      dictionaries.push(dictionary);
      raw = new BigUint64Array(0);
    },
    onBatch(batch) {
      const { id, series } = dictionaries.at(-1)!;
      expect(batch.dictionary).toBe(id);
      const first = raw.length === 0;
      if (first) raw = new BigUint64Array(series.length);
      decodeReadings(batch.data, raw, { key: batch.key });
      const values = Object.fromEntries(series.map((one, k) => [keyOf(one), readingValue(raw[k]!, one)]));
      batches.push({ ...batch, first, values });
      if (batches.length === 4) sampler.requestKeyFrame();
      if (batches.length === 9) {
        // The snapshot is the last batch, decoded on the side.
        const snapshot = sampler.snapshot()!;
        expect(snapshot.at).toBe(batch.at);
        expect([...snapshot.values]).toEqual(series.map((one, k) => readingValue(raw[k]!, one)));
        enough.resolve();
      }
    },
  });
  expect(sampler.snapshot()).toBeUndefined();
  const running = sampler.run(stop.signal);
  await enough.promise;
  const after = read();
  stop.abort();
  await running;

  const seen = batches.slice(0, 9);
  expect(seen.filter((batch) => batch.first && !batch.key)).toEqual([]);
  // One on request; the others follow a dictionary (the machine may get a device while this runs).
  const unasked = seen.filter((batch) => batch.key && !batch.first).length;
  expect(unasked).toBeLessThanOrEqual(1);
  if (dictionaries.length === 1) expect(unasked).toBe(1);
  for (const name of Object.keys(before) as (keyof typeof before)[]) {
    const values = [before[name], ...seen.map((batch) => batch.values[name]!), after[name]];
    expect(values, name).toEqual(values.toSorted((a, b) => a - b));
  }
  expect(seen[8]!.values).toMatchObject({
    node_boot_time_seconds: number("stat", /^btime (\d+)/m),
    node_memory_MemTotal_bytes: number("meminfo", /^MemTotal: +(\d+)/m) * 1024,
  });
  expect(after.node_context_switches_total).toBeGreaterThan(before.node_context_switches_total);
  expect(sampler.stats()).toMatchObject({ restarts: 0, series: dictionaries.at(-1)!.series.length });
  // Nine ticks take at least eight intervals; what a tick may come late is half of one.
  expect(seen[8]!.at - seen[0]!.at).toBeGreaterThan(8 * 40 - 25);
});

test("a worker that dies is started again, each time later, and its samples go on", async () => {
  using tree = temporaryTree({ starts: "0" });
  const stop = new AbortController();
  const delays: number[] = [];
  const errors: unknown[] = [];
  const third = Promise.withResolvers<void>();
  const batches: SampledBatch[] = [];
  const sampler = new Sampler({
    procRoot: tree.root,
    workerUrl: new URL("./failing-sampler.ts", import.meta.url),
    clock: {
      ...systemClock,
      sleep: async (ms, signal) => {
        delays.push(ms);
        await systemClock.sleep(1, signal);
      },
    },
    log: { info() {}, warn: (facts) => errors.push(facts) },
    onDictionary: () => {},
    onBatch: (batch) => {
      batches.push(batch);
      if (batches.length === 3) third.resolve();
    },
  });
  const running = sampler.run(stop.signal);
  await third.promise;
  expect(batches.map(({ at }) => at)).toEqual([1, 2, 3]);
  expect(delays).toEqual([1000, 2000]);
  expect(errors).toMatchObject([
    { error: { message: "broken on purpose" }, delayMs: 1000 },
    { error: { code: "worker.died" }, delayMs: 2000 },
  ]);
  expect(sampler.stats()).toEqual({ samples: 3, skipped: 6, restarts: 2, passMs: 1, series: 1 });
  expect([...sampler.snapshot()!.values]).toEqual([3]);
  stop.abort();
  await running;
});

describe("stopping", () => {
  test("before it began, at once, and while the worker is not there yet", async () => {
    const options = { clock: systemClock, log: quiet, onDictionary: () => {}, onBatch: () => {} };
    await new Sampler(options).run(AbortSignal.abort());
    const stop = new AbortController();
    const running = new Sampler(options).run(stop.signal);
    stop.abort();
    await running;
  });
});
