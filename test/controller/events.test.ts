// Events and live telemetry as server-sent events: replay, order, and the end.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ApiEvent, Problem, TokenView } from "../../protocol/api.ts";
import type { AgentMessage } from "../../protocol/messages.ts";
import { documentOf, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { EventReader } from "../support/event-reader.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";
import { encodeReadings } from "../support/readings.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

const read = (path: string, headers: Record<string, string> = {}) =>
  new EventReader(controller.client, path, {
    authorization: `Bearer ${controller.client.token}`,
    ...headers,
  });
const told = (reader: EventReader) => reader.events.map(({ data }) => data as ApiEvent);

test("events are replayed from an index, go on live, and survive a restart", async () => {
  const joinToken = await controller.joinToken();
  using live = read("/v1/events");
  await live.until(({ status }) => status === 200);
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken });
  const { body } = await submit(controller, documentOf(joined.host));
  await joined.client.next("offer");
  joined.client.send({
    t: "record",
    seq: 1,
    at: 0,
    body: { type: "result", command: body.id, result: { outcome: "succeeded", startedAt: 0, endedAt: 1 } },
  });
  joined.client.send({
    t: "progress",
    command: body.id,
    progress: { phase: "x", done: 0, total: 1, unit: "items", rate: 0, secondsLeft: null },
  });
  const story = ["joined", "online", "waiting", "offered", "succeeded"];
  await live.until(({ events }) => events.length >= story.length);
  expect(
    told(live)
      .map(({ event }) => event)
      .slice(0, 5),
  ).toEqual(story);
  const indexes = told(live).map(({ index }) => index);
  expect(indexes).toEqual(indexes.map((_, i) => indexes[0]! + i));
  expect(live.events.map(({ id }) => id)).toEqual(indexes.map(String));
  expect(told(live)[2]).toMatchObject({ topic: "command", id: body.id });

  using replayed = read(`/v1/events?since=${indexes[1]}`);
  await replayed.until(({ events }) => events.length >= 3);
  expect(told(replayed)[0]).toEqual(told(live)[2]);
  using resumed = read("/v1/events?since=0", { "last-event-id": String(indexes[3]) });
  await resumed.until(({ events }) => events.length >= 1);
  expect(told(resumed)[0]).toEqual(told(live)[4]);

  joined.client[Symbol.dispose]();
  await live.until((reader) => told(reader).some(({ event }) => event === "offline"));
  const before = told(live);
  await controller.restart();
  await live.until(({ ended }) => ended);
  using after = read(`/v1/events?since=${before[0]!.index - 1}`);
  await after.until(({ events }) => events.length >= before.length);
  expect(told(after).slice(0, before.length)).toEqual(before);
});

test("an index that was never given out is answered 410, not with silence", async () => {
  const answer = await controller.call<Problem>("GET", "/v1/events?since=999999");
  expect([answer.status, answer.body.code]).toEqual([410, "api.gone"]);
});

test("live telemetry gives the dictionary, the newest values, and each sample", async () => {
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  const series = [{ name: "a", labels: { cpu: "0" }, type: "counter" as const, scale: 0.5 }];
  const batch = (seq: number, value: bigint): AgentMessage => ({
    t: "batch",
    seq,
    dictionary: 1,
    at: seq,
    intervalMs: 1000,
    key: true,
    data: encodeReadings([value]),
  });
  using early = read(`/v1/hosts/${joined.host}/telemetry/live`);
  await early.until(({ status }) => status === 200);
  joined.client.send({ t: "dictionary", id: 1, series });
  joined.client.send(batch(1, 10n));
  await early.until(({ events }) => events.length >= 2);
  expect(early.events.map(({ event, data }) => [event, data])).toEqual([
    ["dictionary", { series }],
    ["sample", { at: 1, values: [5] }],
  ]);
  using late = read(`/v1/hosts/${joined.host.slice(0, 9)}/telemetry/live`);
  await late.until(({ events }) => events.length >= 2);
  expect(late.events).toEqual(early.events);
  joined.client.send(batch(2, 12n));
  await late.until(({ events }) => events.length >= 3);
  expect(late.events[2]).toMatchObject({ event: "sample", data: { at: 2, values: [6] } });
  // A new dictionary is told before its first values.
  joined.client.send({ t: "dictionary", id: 2, series: [...series, { ...series[0]!, name: "b" }] });
  await late.until(({ events }) => events.length >= 4);
  expect(late.events[3]!.event).toBe("dictionary");
  joined.client[Symbol.dispose]();
});

test("a stream ends with its reader's token: when it is revoked, and when it expires", async () => {
  const create = async (ttlSeconds: number) =>
    (
      await controller.call<TokenView>("POST", "/v1/tokens", {
        json: { scope: "read", name: "reader", ttlSeconds },
      })
    ).body;
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  const [long, short] = [await create(3600), await create(2)];
  const open = (token: string, path = "/v1/events") =>
    new EventReader(controller.client, path, { authorization: `Bearer ${token}` });
  using events = open(long.token);
  using live = open(long.token, `/v1/hosts/${joined.host}/telemetry/live`);
  using expiring = open(short.token);
  using other = read("/v1/events");
  for (const reader of [events, live, expiring, other]) await reader.until(({ status }) => status === 200);
  await expiring.until(({ ended }) => ended, 10_000);
  expect([events.ended, live.ended]).toEqual([false, false]);
  await controller.call("POST", `/v1/tokens/${long.id}/revoke`);
  for (const reader of [events, live]) await reader.until(({ ended }) => ended, 10_000);
  expect(other.ended).toBe(false);
  joined.client[Symbol.dispose]();
});
