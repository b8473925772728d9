// Approval, revocation and re-adoption over real connections: what a host gets, and what it does not, in each standing.
import { afterAll, beforeAll, expect, test } from "vitest";
import { retention } from "../../controller/rules/retention.ts";
import type {
  ApiEvent,
  CommandView,
  HostView,
  JoinTokenState,
  JoinTokenView,
  Problem,
} from "../../protocol/api.ts";
import { documentOf, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { EventReader } from "../support/event-reader.ts";
import { smallImage } from "../support/images.ts";
import { type Identity, joinLink, newLinkKey, openLink, prove } from "../support/link-client.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

const hostOf = async (reference: string) =>
  (await controller.call<HostView>("GET", `/v1/hosts/${reference}`)).body;
const change = <T = HostView>(reference: string, verb: string, json?: unknown) =>
  controller.call<T>("POST", `/v1/hosts/${reference}/${verb}`, json === undefined ? {} : { json });
const makeToken = async (wanted: object) =>
  (await controller.call<JoinTokenView>("POST", "/v1/join-tokens", { json: wanted })).body;
const viewOf = async (id: string) => (await controller.call<CommandView>("GET", `/v1/commands/${id}`)).body;
const quiet = () => new Promise((resolve) => setTimeout(resolve, 150));

async function refusal(identity: Identity): Promise<{ code: number; reason: string }> {
  using client = await openLink(controller);
  await prove(client, identity);
  return await client.closed;
}

test("a host that waits streams and is seen, but gets no command before it is approved", async () => {
  const { token } = await makeToken({ approve: "manual" });
  const key = newLinkKey();
  const joined = await joinLink(controller, { key, joinToken: token, name: "waits" });
  expect(joined.welcome.standing).toBe("pending");
  const digits = joined.host.slice(0, 16).toUpperCase();
  const fingerprint = `${digits.slice(0, 4)}-${digits.slice(4, 8)}-${digits.slice(8, 12)}-${digits.slice(12)}`;
  expect(await hostOf("waits")).toMatchObject({
    ...{ standing: "pending", connection: "online", fingerprint },
    reason: expect.stringMatching(/^host\.pending /),
    suggest: `bedplate host approve waits --fingerprint ${fingerprint}`,
  });
  joined.client.send({
    ...{ t: "heartbeat", at: Date.now(), operations: [] },
    outbox: { records: 0, recordBytes: 0, sampleBytes: 0 },
  });
  await joined.client.next("heartbeat");
  const series = [{ name: "x_total", labels: {}, type: "counter" as const, scale: 1 }];
  joined.client.send({ t: "dictionary", id: 1, series });
  joined.client.send({
    ...{ t: "batch", seq: 1, dictionary: 1, at: Date.now(), intervalMs: 1000, key: true },
    data: Uint8Array.of(1, 2),
  });
  expect((await joined.client.next("ack")).samples).toBe(1);

  const { body } = await submit(controller, documentOf(joined.host));
  await quiet();
  expect(joined.client.received.filter(({ t }) => t === "offer")).toEqual([]);
  expect(await viewOf(body.id)).toMatchObject({
    ...{ state: "waiting", deadline: body.createdAt + retention.waitedMs },
    reason: expect.stringMatching(/^host\.pending /),
    next: expect.stringContaining("when the host is approved"),
    suggest: expect.stringContaining("bedplate host approve waits"),
  });
  // A connection anew changes nothing: what counts is in the store.
  joined.client[Symbol.dispose]();
  const again = await joinLink(controller, { key });
  expect(again.welcome.standing).toBe("pending");
  await quiet();
  expect(again.client.received.filter(({ t }) => t === "offer")).toEqual([]);

  const wrong = await change<Problem>("waits", "approve", { fingerprint: "0000-0000-0000-0000" });
  expect([wrong.status, wrong.body.code]).toEqual([409, "enrol.fingerprint-mismatch"]);
  expect(wrong.body.details).toMatchObject({ found: fingerprint });
  expect((await hostOf("waits")).standing).toBe("pending");

  const right = await change("waits", "approve", { fingerprint: fingerprint.toLowerCase() });
  expect([right.status, right.body.standing, right.body.reason]).toEqual([200, "approved", null]);
  const offer = await again.client.next("offer");
  expect(JSON.parse(new TextDecoder().decode(offer.document))).toMatchObject({ id: body.id });
  again.client[Symbol.dispose]();
  const last = await joinLink(controller, { key });
  expect(last.welcome.standing).toBe("approved");
  last.client[Symbol.dispose]();
});

test("a host joins approved unless its token says otherwise", async () => {
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  expect(joined.welcome.standing).toBe("approved");
  joined.client[Symbol.dispose]();
});

test("a rejected host is sent away and stays away; one that was approved cannot be rejected", async () => {
  const { token } = await makeToken({ approve: "manual" });
  const key = newLinkKey();
  const joined = await joinLink(controller, { key, joinToken: token, name: "unwanted" });
  expect((await change("unwanted", "reject")).body.standing).toBe("revoked");
  expect(await joined.client.closed).toMatchObject({
    code: 4403,
    reason: expect.stringMatching(/^enrol\.host-revoked /),
  });
  for (const joinToken of [undefined, token]) {
    expect(await refusal({ key, ...(joinToken === undefined ? {} : { joinToken }) })).toMatchObject({
      code: 4403,
      reason: expect.stringMatching(/^enrol\.host-revoked /),
    });
  }
  const other = await joinLink(controller, {
    ...{ key: newLinkKey(), joinToken: await controller.joinToken(), name: "wanted" },
  });
  const answer = await change<Problem>("wanted", "reject");
  expect([answer.status, answer.body.code]).toEqual([409, "host.not-pending"]);
  other.client[Symbol.dispose]();
});

test("revoking ends the connection, the open commands and the bearers of images; other hosts notice nothing", async () => {
  const key = newLinkKey();
  const [revoked, other] = [
    await joinLink(controller, { key, joinToken: await controller.joinToken(), name: "lost" }),
    await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken(), name: "kept" }),
  ];
  const { body: sent } = await submit(controller, documentOf(revoked.host));
  await revoked.client.next("offer");
  const answer = await change("lost", "revoke");
  expect(answer.body).toMatchObject({
    ...{ standing: "revoked", suggest: "bedplate join-token create --for lost" },
    reason: expect.stringMatching(/^enrol\.host-revoked /),
  });
  expect(await revoked.client.closed).toMatchObject({
    code: 4403,
    reason: expect.stringMatching(/^enrol\.host-revoked /),
  });
  expect(await refusal({ key })).toMatchObject({ code: 4403 });
  expect(await refusal({ key, joinToken: await controller.joinToken() })).toMatchObject({ code: 4403 });
  expect(await viewOf(sent.id)).toMatchObject({
    ...{ state: "indeterminate", reason: null, next: null, suggest: null },
    result: { error: { code: "enrol.host-revoked" } },
  });
  const more = await submit(controller, documentOf(revoked.host));
  expect([more.status, more.body]).toMatchObject([409, { code: "enrol.host-revoked" }]);
  // What was taken once is still answered.
  expect((await change<Problem>("lost", "approve", {})).body.code).toBe("enrol.host-revoked");

  await submit(controller, documentOf(other.host));
  await other.client.next("offer");
  expect((await hostOf("kept")).connection).toBe("online");
  other.client[Symbol.dispose]();
});

test("a proof that was checked before the revocation opens no session after it", async () => {
  const key = newLinkKey();
  (await joinLink(controller, { key, joinToken: await controller.joinToken(), name: "racing" })).client[
    Symbol.dispose
  ]();
  const attempts = Array.from({ length: 8 }, async () => {
    using client = await openLink(controller);
    await prove(client, { key });
    return await client.closed;
  });
  await change("racing", "revoke");
  for (const closed of await Promise.all(attempts)) expect([4002, 4403]).toContain(closed.code);
  await expect.poll(async () => (await hostOf("racing")).connection).toBe("offline");
});

test("a host is renamed, but not to another's name", async () => {
  const key = newLinkKey();
  const joined = await joinLink(controller, { key, joinToken: await controller.joinToken(), name: "before" });
  const other = await joinLink(controller, {
    ...{ key: newLinkKey(), joinToken: await controller.joinToken(), name: "taken" },
  });
  const taken = await change<Problem>("before", "rename", { name: "taken" });
  expect([taken.status, taken.body.code]).toEqual([409, "host.name-taken"]);
  expect((await change<Problem>("before", "rename", { name: "no spaces" })).status).toBe(400);
  expect((await change("before", "rename", { name: "after" })).body).toMatchObject({
    ...{ id: joined.host, name: "after" },
  });
  expect((await controller.call("GET", "/v1/hosts/before")).status).toBe(404);
  const again = await joinLink(controller, { key });
  expect(again.welcome.name).toBe("after");
  for (const { client } of [again, other]) client[Symbol.dispose]();
});

test("a machine set up anew takes over its name and history; its old key is out at once", async () => {
  const oldKey = newLinkKey();
  const old = await joinLink(controller, {
    ...{ key: oldKey, joinToken: await controller.joinToken(), name: "db-1" },
  });
  const { body: asked } = await submit(controller, documentOf(old.host));
  await old.client.next("offer");
  const result = { outcome: "succeeded", startedAt: 1, endedAt: 2 } as const;
  const body = { type: "result", command: asked.id, result } as const;
  old.client.send({ t: "record", seq: 1, at: 1, body });
  await old.client.next("ack");

  const { token, id: tokenId } = await makeToken({ for: "db-1" });
  const key = newLinkKey();
  const fresh = await joinLink(controller, { key, joinToken: token, name: "whatever" });
  expect(fresh.welcome).toMatchObject({ name: "db-1", records: 0, samples: 0, standing: "approved" });
  expect(await old.client.closed).toMatchObject({ code: 4403 });
  expect(await refusal({ key: oldKey })).toMatchObject({ code: 4403 });
  expect(await hostOf("db-1")).toMatchObject({ id: fresh.host, formerIds: [old.host], standing: "approved" });
  expect(await hostOf(old.host)).toMatchObject({
    ...{ standing: "revoked", replacedBy: fresh.host, name: `db-1-${old.host.slice(0, 6)}` },
  });
  const list = await controller.call<{ commands: CommandView[] }>("GET", "/v1/commands?host=db-1");
  expect(list.body.commands).toMatchObject([{ id: asked.id, state: "succeeded", hostName: "db-1" }]);
  // The token was for one place and one key.
  expect(await refusal({ key: newLinkKey(), joinToken: token })).toMatchObject({
    reason: expect.stringMatching(/^enrol\.token-used /),
  });
  const tokens = await controller.call<{ joinTokens: JoinTokenState[] }>("GET", "/v1/join-tokens");
  expect(tokens.body.joinTokens.find(({ id }) => id === tokenId)).toMatchObject({
    ...{ for: old.host, used: 1, uses: 1 },
  });
  const again = await controller.call<Problem>("POST", "/v1/join-tokens", { json: { for: old.host } });
  expect([again.status, again.body.code]).toEqual([409, "enrol.host-revoked"]);
  await submit(controller, documentOf(fresh.host));
  await fresh.client.next("offer");
  fresh.client[Symbol.dispose]();
});

test("with manual approval the old key works until the new one is approved", async () => {
  const oldKey = newLinkKey();
  const old = await joinLink(controller, {
    ...{ key: oldKey, joinToken: await controller.joinToken(), name: "db-2" },
  });
  const { token } = await makeToken({ for: "db-2", approve: "manual" });
  const fresh = await joinLink(controller, { key: newLinkKey(), joinToken: token, name: "db-2" });
  expect(fresh.welcome.name).toBe(`db-2-${fresh.host.slice(0, 6)}`);
  expect((await hostOf("db-2")).id).toBe(old.host);
  await change(fresh.host, "approve", {});
  expect(await old.client.closed).toMatchObject({ code: 4403 });
  expect((await hostOf("db-2")).id).toBe(fresh.host);
  fresh.client[Symbol.dispose]();
});

test("join tokens: a network they hold in, and one that was revoked", async () => {
  const elsewhere = await makeToken({ cidr: "10.0.0.0/8" });
  expect(await refusal({ key: newLinkKey(), joinToken: elsewhere.token })).toMatchObject({
    ...{ code: 4403, reason: expect.stringMatching(/^enrol\.address-denied /) },
  });
  const here = await makeToken({ cidr: "127.0.0.0/8", uses: 2 });
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken: here.token });
  joined.client[Symbol.dispose]();
  const revoked = await controller.call<JoinTokenState>("POST", `/v1/join-tokens/${here.id}/revoke`);
  expect(revoked.body).toMatchObject({ used: 1, uses: 2, revokedAt: expect.any(Number) });
  expect(JSON.stringify(revoked.body)).not.toContain(here.token.split(".")[2]);
  expect(await refusal({ key: newLinkKey(), joinToken: here.token })).toMatchObject({
    ...{ code: 4403, reason: expect.stringMatching(/^enrol\.token-invalid /) },
  });
  for (const wrong of [
    ...[{ cidr: "10.0.0.0" }, { cidr: "10.0.0.0/33" }, { cidr: "rack/8" }, { cidr: "1.1.1.1/2/3" }],
    ...[{ approve: "never" }, { for: "kept", uses: 2 }],
  ])
    expect((await controller.call("POST", "/v1/join-tokens", { json: wrong })).status).toBe(400);
  expect((await controller.call("POST", "/v1/join-tokens", { json: { for: "nobody" } })).status).toBe(404);
  expect((await controller.call("POST", "/v1/join-tokens/nothing/revoke")).status).toBe(404);
});

test("the bearer of an image ends with its host's key", async () => {
  const image = smallImage("borne", 5000, 3);
  await controller.call("PUT", `/v1/images/${image.root}/manifest`, { bytes: image.manifest });
  await controller.call("PUT", `/v1/images/${image.root}/frames`, { bytes: image.frames });
  const joined = await joinLink(controller, {
    ...{ key: newLinkKey(), joinToken: await controller.joinToken(), name: "fetches" },
  });
  await submit(
    controller,
    documentOf(joined.host, {
      ...{ kind: "image.deploy", mode: "plan" },
      arguments: { image: { root: image.root, sizeBytes: 5000 }, disk: { serial: "S1" } },
    }),
  );
  const bearer = (await joined.client.next("offer")).sources[0]!.bearer!;
  const fetchManifest = () => controller.call("GET", `/v1/images/${image.root}/manifest`, { token: bearer });
  expect((await fetchManifest()).status).toBe(200);
  await change("fetches", "revoke");
  expect((await fetchManifest()).status).toBe(401);
  await joined.client.closed;
});

test("every change of a host and of a token is an event", async () => {
  using reader = new EventReader(controller.client, "/v1/events", {
    authorization: `Bearer ${controller.client.token}`,
  });
  await reader.until(({ status }) => status === 200);
  const { token, id } = await makeToken({ approve: "manual" });
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken: token, name: "told" });
  await change("told", "approve", {});
  await change("told", "rename", { name: "retold" });
  await change("retold", "revoke");
  await joined.client.closed;
  await controller.call("POST", `/v1/join-tokens/${id}/revoke`);
  const told = () =>
    reader.events.map(({ data }) => data as ApiEvent).map(({ topic, event }) => `${topic} ${event}`);
  await reader.until(() => told().includes("join-token revoked") && told().includes("host offline"));
  expect(told().filter((event) => event !== "host offline")).toEqual([
    ...["join-token created", "host joined", "host pending", "host online", "host approved"],
    ...["host renamed", "host revoked", "join-token revoked"],
  ]);
});
