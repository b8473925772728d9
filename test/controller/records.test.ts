// Records and readings: stored once, acknowledged, in order, across connections and restarts.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { HostView, TelemetryView } from "../../protocol/api.ts";
import type { AgentMessage, RecordBody } from "../../protocol/messages.ts";
import { documentOf, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { type Joined, joinLink, newLinkKey } from "../support/link-client.ts";
import { encodeReadings } from "../support/readings.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

const record = (seq: number, body: RecordBody): AgentMessage => ({ t: "record", seq, at: 1000, body });
const gap = (seq: number) => record(seq, { type: "gap", from: seq, to: seq, count: 1 });
const hostView = async ({ host }: Joined) =>
  (await controller.call<HostView>("GET", `/v1/hosts/${host}`)).body;
const series = (name: string, more = {}) => ({ name, labels: {}, type: "gauge" as const, scale: 1, ...more });

async function acknowledged(joined: Joined, what: "records" | "samples", number: number): Promise<void> {
  while ((await joined.client.next("ack"))[what] < number);
}

test("records are stored once, whatever is sent again after a broken connection", async () => {
  const key = newLinkKey();
  const first = await joinLink(controller, { key, joinToken: await controller.joinToken() });
  for (const seq of [1, 2, 3]) first.client.send(gap(seq));
  await acknowledged(first, "records", 3);
  first.client[Symbol.dispose]();

  const second = await joinLink(controller, { key });
  expect(second.welcome.records).toBe(3);
  // The acknowledgement was lost on the way: 2 and 3 come again, then news.
  for (const seq of [2, 3, 4]) second.client.send(gap(seq));
  await acknowledged(second, "records", 4);
  expect((await hostView(second)).telemetry.gaps).toBe(4);
  second.client[Symbol.dispose]();

  await controller.restart();
  const third = await joinLink(controller, { key });
  expect(third.welcome.records).toBe(4);
  third.client[Symbol.dispose]();
});

test("a hole in the records closes the connection and stores nothing after it", async () => {
  const key = newLinkKey();
  const first = await joinLink(controller, { key, joinToken: await controller.joinToken() });
  first.client.send(gap(1));
  first.client.send(gap(3));
  expect(await first.client.closed).toMatchObject({
    code: 4400,
    reason: expect.stringMatching(/^message\.unexpected /),
  });
  const second = await joinLink(controller, { key });
  expect(second.welcome.records).toBe(1);
  expect((await hostView(second)).telemetry.gaps).toBe(1);
  second.client[Symbol.dispose]();
});

test("an instance with an outbox of its own starts its own numbers", async () => {
  const key = newLinkKey();
  const first = await joinLink(controller, { key, instance: "one", joinToken: await controller.joinToken() });
  first.client.send(gap(1));
  await acknowledged(first, "records", 1);
  first.client[Symbol.dispose]();
  await first.client.closed;
  const other = await joinLink(controller, { key, instance: "two" });
  expect(other.welcome.records).toBe(0);
  other.client[Symbol.dispose]();
  await other.client.closed;
  await new Promise((resolve) => setTimeout(resolve, 100));
  const back = await joinLink(controller, { key, instance: "one" });
  expect(back.welcome.records).toBe(1);
  back.client[Symbol.dispose]();
});

test("a thousand records in a burst are all stored, and read no faster than they are", async () => {
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  for (let seq = 1; seq <= 1000; seq++) joined.client.send(gap(seq));
  await acknowledged(joined, "records", 1000);
  expect((await hostView(joined)).telemetry.gaps).toBe(1000);
  joined.client[Symbol.dispose]();
}, 30_000);

test("a host cannot speak for another host's command", async () => {
  const victim = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  const liar = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  const { body: command } = await submit(controller, documentOf(victim.host));
  const result = { outcome: "succeeded" as const, startedAt: 0, endedAt: 0 };
  liar.client.send(record(1, { type: "result", command: command.id, result }));
  const progress = { phase: "fake", done: 1, total: 2, unit: "items" as const, rate: 1, secondsLeft: null };
  liar.client.send({ t: "progress", command: command.id, progress });
  await acknowledged(liar, "records", 1);
  const after = (await controller.call("GET", `/v1/commands/${command.id}`)).body;
  expect(after).toMatchObject({ result: null, progress: null });
  victim.client[Symbol.dispose]();
  liar.client[Symbol.dispose]();
});

test("readings are decoded, served and counted; what cannot be read is not kept", async () => {
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  const { client } = joined;
  const batch = (seq: number, values: bigint[], before?: bigint[]): AgentMessage => ({
    t: "batch",
    seq,
    dictionary: 7,
    at: 1_000_000 + seq,
    intervalMs: 1000,
    key: before === undefined,
    data: encodeReadings(values, before),
  });
  // Nothing can be read before the dictionary, nor a difference before a key frame.
  client.send(batch(1, [1n, 2n, 3n, 4n]));
  client.send({
    t: "dictionary",
    id: 7,
    series: [series("a"), series("b_seconds", { scale: 0.01 }), series("c", { signed: true }), series("d")],
  });
  client.send(batch(2, [1n, 2n, 3n, 4n], [1n, 1n, 1n, 1n]));
  const minusFive = BigInt.asUintN(64, -5n);
  const large = 2n ** 63n;
  client.send(batch(3, [100n, 250n, minusFive, large]));
  client.send(batch(4, [101n, 250n, minusFive, large + 2048n], [100n, 250n, minusFive, large]));
  await acknowledged(joined, "samples", 4);
  const view = (await controller.call<TelemetryView>("GET", `/v1/hosts/${joined.host}/telemetry`)).body;
  expect(view.at).toBe(1_000_004);
  expect(view.series.map(({ name, value }) => [name, value])).toEqual([
    ["a", 101],
    ["b_seconds", 2.5],
    ["c", -5],
    ["d", Number(large + 2048n)],
  ]);
  // Number 6 without number 5 says only what changed since it: dropped, until a key frame comes.
  client.send(batch(6, [200n, 0n, 0n, 0n], [101n, 0n, 0n, 0n]));
  client.send(batch(7, [201n, 0n, 0n, 0n], [200n, 0n, 0n, 0n]));
  client.send(batch(8, [8n, 8n, 8n, 8n]));
  await acknowledged(joined, "samples", 8);
  expect((await hostView(joined)).telemetry).toMatchObject({
    series: 4,
    samples: 3,
    lastAt: expect.any(Number),
  });
  // Sent again after a lost acknowledgement: read, not counted twice.
  client.send(batch(8, [8n, 8n, 8n, 8n]));
  client.send(batch(9, [9n, 9n, 9n, 9n]));
  await acknowledged(joined, "samples", 9);
  expect((await hostView(joined)).telemetry.samples).toBe(4);
  client[Symbol.dispose]();
  await client.closed;
  const metrics = (await controller.call<string>("GET", "/metrics")).body;
  expect(metrics).toMatch(/bedplate_controller_telemetry_batches_dropped_total [1-9]/);
});

test("readings that lie about themselves close the connection", async () => {
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  joined.client.send({ t: "dictionary", id: 1, series: [series("a")] });
  joined.client.send({
    t: "batch",
    seq: 1,
    dictionary: 1,
    at: 0,
    intervalMs: 1000,
    key: true,
    data: Uint8Array.from([0xff, 1, 1]),
  });
  expect(await joined.client.closed).toMatchObject({
    code: 4400,
    reason: expect.stringMatching(/^message\.invalid /),
  });
});

test("a heartbeat is answered and gives the clock's offset; silence ends the connection with 4430", async () => {
  await using quick = await testController({ heartbeatMs: 200 });
  const joined = await joinLink(quick, { key: newLinkKey(), joinToken: await quick.joinToken() });
  expect(joined.welcome.heartbeatMs).toBe(200);
  joined.client.send({
    t: "heartbeat",
    at: Date.now() - 90_000,
    operations: [],
    outbox: { records: 0, recordBytes: 0, sampleBytes: 0 },
  });
  await joined.client.next("heartbeat");
  expect(await joined.client.closed).toMatchObject({ code: 4430 });
  const view = async () => (await quick.call<HostView>("GET", `/v1/hosts/${joined.host}`)).body;
  await expect.poll(async () => (await view()).connection, { timeout: 20_000 }).toBe("offline");
  // Written late, with what else may be.
  await expect.poll(async () => (await view()).clockOffsetMs, { timeout: 20_000 }).not.toBeNull();
  const { clockOffsetMs } = await view();
  expect(clockOffsetMs).toBeGreaterThan(89_000);
  // It says so much more when it was on its way for as long.
  expect(clockOffsetMs).toBeLessThan(120_000);
});
