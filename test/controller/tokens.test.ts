// API tokens and the audit: who may call what, until when, and what is written down about it.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { AuditEntry, Problem, TokenState, TokenView } from "../../protocol/api.ts";
import { testClock } from "../support/clock.ts";
import { documentOf, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";

const clock = testClock();
let controller: TestController;
beforeAll(async () => {
  controller = await testController({ clock });
});
afterAll(() => controller[Symbol.asyncDispose]());

const make = async (wanted: object) =>
  (await controller.call<TokenView>("POST", "/v1/tokens", { json: wanted })).body;
const listed = async (id: string) =>
  (await controller.call<{ tokens: TokenState[] }>("GET", "/v1/tokens")).body.tokens.find(
    (token) => token.id === id,
  );
const audit = async (limit = 100) =>
  (await controller.call<{ entries: AuditEntry[] }>("GET", `/v1/audit?limit=${limit}`)).body.entries;

test("a token is told once, works at once, and is listed without its secret", async () => {
  const { token, ...rest } = await make({ scope: "read", name: "grafana", ttlSeconds: 3600 });
  expect(token).toMatch(/^bedplate-api\.[0-9a-f]{16}\.[A-Za-z0-9_-]{43}$/);
  expect(rest).toMatchObject({ name: "grafana", scope: "read", lastUsedAt: null, revokedAt: null });
  expect(rest.expiresAt! - rest.createdAt).toBe(3_600_000);
  expect((await controller.call("GET", "/v1/hosts", { token })).status).toBe(200);
  const { body } = await controller.call<{ tokens: TokenState[] }>("GET", "/v1/tokens");
  expect(JSON.stringify(body)).not.toContain(token.split(".")[2]);
  expect(body.tokens.map(({ name }) => name)).toEqual(["grafana", "client.json"]);
});

test("the wrong scope is refused with the one that is needed", async () => {
  const { token } = await make({ scope: "operate" });
  const answer = await controller.call<Problem>("POST", "/v1/join-tokens", { token, json: {} });
  expect(answer.status).toBe(403);
  expect(answer.body).toMatchObject({
    ...{ code: "api.forbidden", details: { scope: "operate", needed: "admin" } },
    detail: expect.stringContaining('"admin"'),
    hint: expect.stringContaining("bedplate token create --scope admin"),
  });
});

test("a token ends with its time, and at once when it is revoked", async () => {
  const short = await make({ scope: "read", ttlSeconds: 60 });
  const long = await make({ scope: "read", ttlSeconds: 3600 });
  const statusOf = async (token: string) => (await controller.call("GET", "/v1/status", { token })).status;
  expect([await statusOf(short.token), await statusOf(long.token)]).toEqual([200, 200]);
  clock.advance(60_000);
  expect([await statusOf(short.token), await statusOf(long.token)]).toEqual([401, 200]);
  const revoked = await controller.call<TokenState>("POST", `/v1/tokens/${long.id}/revoke`);
  expect(revoked.body.revokedAt).toEqual(expect.any(Number));
  expect(await statusOf(long.token)).toBe(401);
  expect((await controller.call("POST", "/v1/tokens/0123456789abcdef/revoke")).status).toBe(404);
  for (const wrong of [{}, { scope: "root" }, { scope: "read", ttlSeconds: 0 }, { scope: "read", x: 1 }])
    expect((await controller.call("POST", "/v1/tokens", { json: wrong })).status).toBe(400);
});

test("when a token was last used is known to the minute", async () => {
  const { token, id } = await make({ scope: "read" });
  expect((await listed(id))!.lastUsedAt).toBeNull();
  await controller.call("GET", "/v1/status", { token });
  const first = (await listed(id))!.lastUsedAt!;
  expect(Math.abs(first - clock.now())).toBeLessThan(10_000);
  clock.advance(30_000);
  await controller.call("GET", "/v1/status", { token });
  expect((await listed(id))!.lastUsedAt).toBe(first);
  clock.advance(31_000);
  await controller.call("GET", "/v1/status", { token });
  expect((await listed(id))!.lastUsedAt).toBeGreaterThanOrEqual(first + 61_000);
});

test("every call that changes something is written down: who, from where, what, and what came of it", async () => {
  const joined = await joinLink(controller, {
    ...{ key: newLinkKey(), joinToken: await controller.joinToken(), name: "audited" },
  });
  const operator = await make({ scope: "operate", name: "ci" });
  const call = (method: string, path: string, json: unknown) =>
    controller.call(method, path, { token: operator.token, json });
  const document = documentOf(joined.host);
  const { id } = JSON.parse(document) as { id: string };
  await call("POST", "/v1/commands", { document, signatures: [] });
  await call("POST", "/v1/hosts/audited/revoke", undefined);
  await call("POST", "/v1/commands", { document: "{}", signatures: [] });
  await controller.call("POST", "/v1/hosts/audited/rename", { json: { name: "renamed" } });
  const by = { token: { id: operator.id, name: "ci" }, address: "127.0.0.1", method: "POST" };
  expect(await audit(4)).toMatchObject([
    {
      ...{ token: { name: "client.json" }, route: "/v1/hosts/:host/rename", object: joined.host },
      ...{ status: 200, code: null },
    },
    { ...by, route: "/v1/commands", object: null, status: 400, code: "command.bad-arguments" },
    { ...by, route: "/v1/hosts/:host/revoke", object: "audited", status: 403, code: "api.forbidden" },
    { ...by, route: "/v1/commands", object: id, status: 201, code: null },
  ]);
  joined.client[Symbol.dispose]();
});

test("reading leaves no entry, and neither do strangers, who could push out what is kept", async () => {
  const before = await audit();
  await controller.call("GET", "/v1/hosts");
  for (const token of [null, "wrong"])
    expect((await controller.call("POST", "/v1/join-tokens", { token, json: {} })).status).toBe(401);
  await controller.call("POST", "/v1/nothing", { json: {} });
  expect(await audit()).toEqual(before);
});

test("the audit is for admins, survives a restart, and holds no secret", async () => {
  const { token } = await make({ scope: "operate" });
  expect((await controller.call("GET", "/v1/audit", { token })).status).toBe(403);
  const before = await audit();
  await controller.restart();
  expect((await audit()).map(({ index }) => index)).toEqual(before.map(({ index }) => index));
  expect(JSON.stringify(before)).not.toMatch(/bedplate-(api|join)\./);
  await submit(controller, "{}");
});
