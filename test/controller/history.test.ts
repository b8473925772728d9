// Telemetry of the past over the API: the stored batches decoded, through key frames, new dictionaries and restarts.
import { afterAll, beforeAll, expect, test } from "vitest";
import { historyLimits, readHistory } from "../../controller/telemetry/history.ts";
import type { Problem, TelemetryHistoryView } from "../../protocol/api.ts";
import { encodeFrame } from "../../protocol/frames.ts";
import type { AgentMessage, Series } from "../../protocol/messages.ts";
import { type TestController, testController } from "../support/controller.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";
import { encodeReadings } from "../support/readings.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

const series = (name: string, more: Partial<Series> = {}): Series => ({
  ...{ name, labels: {}, type: "gauge", scale: 1 },
  ...more,
});
const cpu = (value: string) =>
  series("cpu_seconds_total", { labels: { cpu: value }, type: "counter", scale: 0.01 });
const batch = (seq: number, values: bigint[], more: object = {}): AgentMessage => ({
  ...{ t: "batch", seq, dictionary: 1, at: seq * 1000, intervalMs: 1000, key: true },
  ...{ data: encodeReadings(values), ...more },
});

test("what was read is read again, by name, through a new dictionary and a restart", async () => {
  const joined = await joinLink(controller, {
    key: newLinkKey(),
    joinToken: await controller.joinToken(),
    name: "past",
  });
  const { client } = joined;
  client.send({ t: "dictionary", id: 1, series: [cpu("0"), series("temperature"), cpu("1")] });
  client.send(batch(1, [100n, 40n, 7n]));
  // Only the differences: one more for each.
  client.send(batch(2, [1n, 1n, 1n], { key: false }));
  client.send({ t: "dictionary", id: 2, series: [series("temperature"), cpu("1")] });
  client.send(batch(3, [50n, 9n], { dictionary: 2 }));
  while ((await client.next("ack")).samples < 3);
  const history = async (query: string) =>
    (await controller.call<TelemetryHistoryView>("GET", `/v1/hosts/past/telemetry/history?${query}`)).body;
  const all = await history("series=cpu_seconds_total,temperature");
  expect(all.series).toEqual([
    {
      ...{ name: "cpu_seconds_total", labels: { cpu: "0" }, type: "counter" },
      points: [
        [1000, 1],
        [2000, 1.01],
      ],
    },
    {
      ...{ name: "temperature", labels: {}, type: "gauge" },
      points: [
        [1000, 40],
        [2000, 41],
        [3000, 50],
      ],
    },
    {
      ...{ name: "cpu_seconds_total", labels: { cpu: "1" }, type: "counter" },
      points: [
        [1000, 0.07],
        [2000, 0.08],
        [3000, 0.09],
      ],
    },
  ]);
  expect(all.to - all.from).toBe(900_000);
  await controller.restart();
  expect((await history("series=temperature&stepSeconds=2")).series[0]!.points).toEqual([
    [1000, 40],
    [3000, 50],
  ]);
  expect((await history("series=nothing")).series).toEqual([]);
  const now = Date.now();
  expect((await history(`series=temperature&from=${now - 7_200_000}&to=${now - 3_600_000}`)).series).toEqual(
    [],
  );
  const wrong: [string, number, string][] = [
    ["", 400, "api.bad-request"],
    ["series=a%20b", 400, "api.bad-request"],
    ["series=temperature&from=5&to=4", 400, "api.bad-request"],
    [`series=temperature&from=0&to=${historyLimits.rangeMs + 1}`, 400, "api.bad-request"],
    [`series=${Array.from({ length: 65 }, (_, i) => `s${i}`).join(",")}`, 400, "api.bad-request"],
    ["series=temperature&stepSeconds=0", 400, "api.bad-request"],
  ];
  for (const [query, status, code] of wrong) {
    const answer = await controller.call<Problem>("GET", `/v1/hosts/past/telemetry/history?${query}`);
    expect([query, answer.status, answer.body.code]).toEqual([query, status, code]);
  }
});

const minuteMs = 60_000;
/** A store of one host: a key frame at `keys`, else differences of one. */
function storeOf(minutes: number, keyEvery: number) {
  const dictionary = encodeFrame({ t: "dictionary", id: 1, series: [series("a"), series("b")] });
  const frames = Array.from({ length: minutes * 60 }, (_, i) => {
    const key = i % keyEvery === 0;
    return {
      minute: Math.floor(i / 60),
      frame: encodeFrame(batch(i + 1, key ? [BigInt(i), 7n] : [1n, 0n], { key, at: i * 1000 })),
    };
  });
  const asked: number[] = [];
  return {
    asked,
    read: async (_host: string, { from, to }: { from: number; to: number }) => {
      asked.push(to - from + 1);
      return frames
        .filter(({ minute }) => minute >= from && minute <= to)
        .map(({ frame }) => ({ dictionary, frame }));
    },
  };
}
const query = (from: number, to: number, more: object = {}) => ({
  ...{ host: "h", from: from * minuteMs, to: to * minuteMs, names: new Set(["a"]), stepMs: 0 },
  ...more,
});

test("the differences of the first minute are added to the key frame before it", async () => {
  const store = storeOf(6, 90);
  const [a] = await readHistory(store, query(4, 5), async () => {});
  expect(a!.points).toEqual(Array.from({ length: 120 }, (_, i) => [(240 + i) * 1000, 240 + i]));
});

test("it is read in stretches, others have their turn between them, and there is an end to it", async () => {
  const store = storeOf(30, 60);
  let pauses = 0;
  const [a] = await readHistory(store, query(0, 29, { stepMs: minuteMs }), async () => void pauses++);
  expect(a!.points).toEqual(Array.from({ length: 30 }, (_, i) => [(i * 60 + 59) * 1000, i * 60 + 59]));
  expect(Math.max(...store.asked)).toBe(historyLimits.minutesAtOnce);
  expect(pauses).toBe(store.asked.length);
  const many = storeOf(Math.ceil(historyLimits.points / 120) + 1, 60);
  const both = { names: new Set(["a", "b"]) };
  await expect(readHistory(many, query(0, 2000, both), async () => {})).rejects.toMatchObject({
    code: "api.too-large",
  });
});

test("a host that changes its dictionary with each batch holds nobody up while its past is read", async () => {
  const dictionaries = [0, 1].map((salt) =>
    encodeFrame({
      ...{ t: "dictionary", id: salt },
      series: Array.from({ length: 500 }, (_, i) => series(`s${i}`, { labels: { a: `${salt}` } })),
    }),
  );
  // A minute of them, as a store would give it.
  const batches = Array.from({ length: 1000 }, (_, i) => ({
    dictionary: dictionaries[i % 2]!,
    frame: encodeFrame(batch(i + 1, Array<bigint>(500).fill(1n), { dictionary: i % 2 })),
  }));
  const store = { read: async () => batches };
  const beganMs = performance.now();
  let [longestMs, sinceMs] = [0, beganMs];
  const pause = async () => {
    longestMs = Math.max(longestMs, performance.now() - sinceMs);
    await new Promise((resolve) => setTimeout(resolve, 0));
    sinceMs = performance.now();
  };
  const query = { host: "", from: 0, to: 0, names: new Set(["s1"]), stepMs: 0 };
  expect(await readHistory(store, query, pause)).toHaveLength(2);
  // Else all of it is one stretch.
  expect(longestMs).toBeLessThan((performance.now() - beganMs) / 2);
});
