// The HTTP API: who may call it, how it says no, its documentation, its metrics.

import { join } from "node:path";
import { Compile } from "typebox/schema";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createApiToken } from "../../controller/api/api-tokens.ts";
import { systemRandom } from "../../controller/machine/system.ts";
import { openSqliteStore } from "../../controller/store/sqlite.ts";
import { ImageView, type JoinTokenView, type Problem, StatusView } from "../../protocol/api.ts";
import { codes } from "../../protocol/codes.ts";
import { checker } from "../../protocol/schema.ts";
import { documentOf } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

const routes: [method: string, path: string, needs: "read" | "operate" | "admin"][] = [
  ["GET", "/v1/status", "read"],
  ["GET", "/v1/hosts", "read"],
  ["GET", "/v1/hosts/x", "read"],
  ["GET", "/v1/hosts/x/telemetry", "read"],
  ["GET", "/v1/hosts/x/telemetry/live", "read"],
  ["GET", "/v1/commands", "read"],
  ["GET", "/v1/commands/01890000-0000-7000-8000-000000000000", "read"],
  ["POST", "/v1/commands", "operate"],
  ["POST", "/v1/commands/01890000-0000-7000-8000-000000000000/cancel", "operate"],
  ["GET", "/v1/images", "read"],
  ["GET", "/v1/images/x", "read"],
  ["PUT", `/v1/images/${"ab".repeat(32)}/manifest`, "operate"],
  ["PUT", `/v1/images/${"ab".repeat(32)}/frames`, "operate"],
  ["GET", "/v1/images/x/manifest", "read"],
  ["GET", "/v1/images/x/frames", "read"],
  ["POST", "/v1/join-tokens", "admin"],
  ["GET", "/v1/join-tokens", "admin"],
  ["POST", "/v1/join-tokens/x/revoke", "admin"],
  ["POST", "/v1/hosts/x/approve", "admin"],
  ["POST", "/v1/hosts/x/reject", "admin"],
  ["POST", "/v1/hosts/x/revoke", "admin"],
  ["POST", "/v1/hosts/x/rename", "admin"],
  ["POST", "/v1/tokens", "admin"],
  ["GET", "/v1/tokens", "admin"],
  ["POST", "/v1/tokens/x/revoke", "admin"],
  ["GET", "/v1/audit", "admin"],
  ["POST", "/v1/backups", "admin"],
  ["GET", "/v1/events", "read"],
  ["GET", "/metrics", "read"],
  ["GET", "/openapi.json", "read"],
];

test("without a token, and with a wrong one, every route says 401 as a problem", async () => {
  for (const [method, path] of routes) {
    const answer = await controller.call<Problem>(method, path, { token: null });
    expect([path, answer.status]).toEqual([path, 401]);
  }
  await using fresh = await testController();
  const right = fresh.client.token;
  const wrong = [
    null,
    "nonsense",
    controller.client.token,
    `bedplate-api.0123456789abcdef.${"A".repeat(43)}`,
    right.slice(0, -2) + (right.endsWith("AA") ? "BA" : "AA"),
    right.slice(0, -1),
  ];
  for (const token of wrong) {
    const answer = await fresh.call<Problem>("GET", "/v1/status", { token });
    expect(answer.status).toBe(401);
    expect(answer.headers["content-type"]).toBe("application/problem+json");
    expect(answer.headers["www-authenticate"]).toMatch(/^Bearer/);
    expect(answer.body).toMatchObject({
      code: "api.unauthorized",
      status: 401,
      title: codes["api.unauthorized"],
      detail: expect.any(String),
      hint: expect.any(String),
    });
    expect(JSON.stringify(answer.body)).not.toContain(right);
  }
});

test("a token may do what its scope says and no more", async () => {
  await using own = await testController();
  const tokens = await own.offline(async () => {
    await using store = await openSqliteStore(join(own.directory, "controller.db"));
    const make = async (scope: "read" | "operate", expiresAt: number | null) => {
      const token = { label: "test", scope, createdAt: Date.now(), expiresAt };
      return (await createApiToken(store.tokens, systemRandom, token)).text;
    };
    return {
      read: await make("read", null),
      operate: await make("operate", Date.now() + 60_000),
      expired: await make("operate", Date.now() - 1),
    };
  });
  const allowed = async (token: string, needs: string) => {
    const forbidden: string[] = [];
    for (const [method, path] of routes.filter(
      ([, path, need]) => need === needs && !/live|events/.test(path),
    )) {
      const { status } = await own.call(method, path, { token, ...(method === "POST" ? { json: {} } : {}) });
      expect(status).not.toBe(401);
      forbidden.push(status === 403 ? "forbidden" : "allowed");
    }
    return [...new Set(forbidden)];
  };
  expect([
    await allowed(tokens.read, "read"),
    await allowed(tokens.read, "operate"),
    await allowed(tokens.read, "admin"),
  ]).toEqual([["allowed"], ["forbidden"], ["forbidden"]]);
  expect([
    await allowed(tokens.operate, "read"),
    await allowed(tokens.operate, "operate"),
    await allowed(tokens.operate, "admin"),
  ]).toEqual([["allowed"], ["allowed"], ["forbidden"]]);
  expect((await own.call<Problem>("GET", "/v1/status", { token: tokens.expired })).body.code).toBe(
    "api.unauthorized",
  );
});

test("status, CA and first token are there from the start", async () => {
  const status = await controller.call("GET", "/v1/status");
  expect(checker(StatusView, "message.invalid", "status")(status.body)).toMatchObject({ epoch: 1 });
  const ca = await controller.call<string>("GET", "/v1/ca", { token: null });
  expect(ca.body).toBe(controller.ca);
  const link = await controller.call<Problem>("GET", "/v1/link", { token: null });
  expect([link.status, link.body.code]).toEqual([400, "api.bad-request"]);
});

test("what does not exist or does not fit is a problem with a code", async () => {
  const cases: [string, string, object, number, string][] = [
    ["GET", "/v2/anything", {}, 404, "api.not-found"],
    ["DELETE", "/v1/hosts", {}, 404, "api.not-found"],
    ["GET", "/v1/hosts/nobody", {}, 404, "host.unknown"],
    ["GET", "/v1/hosts/abcdef", {}, 404, "host.unknown"],
    ["GET", "/v1/images/none", {}, 404, "image.unknown"],
    ["GET", "/v1/commands/7", {}, 400, "api.bad-request"],
    ["GET", "/v1/commands/01890000-0000-7000-8000-000000000000", {}, 404, "api.not-found"],
    ["POST", "/v1/commands", { json: { document: "{}" } }, 400, "api.bad-request"],
    ["POST", "/v1/commands", { json: { document: "{}", signatures: [], more: 1 } }, 400, "api.bad-request"],
    [
      "POST",
      "/v1/commands",
      { bytes: new TextEncoder().encode("{"), headers: { "content-type": "application/json" } },
      400,
      "api.bad-request",
    ],
    [
      "POST",
      "/v1/commands",
      { bytes: new TextEncoder().encode("x"), headers: { "content-type": "text/plain" } },
      400,
      "api.bad-request",
    ],
    [
      "POST",
      "/v1/commands",
      { json: { document: "x".repeat(2 << 20), signatures: [] } },
      413,
      "api.too-large",
    ],
    ["POST", "/v1/join-tokens", { json: { ttlSeconds: 0 } }, 400, "api.bad-request"],
    ["POST", "/v1/join-tokens", { json: { uses: 1e9 } }, 400, "api.bad-request"],
    ["POST", "/v1/join-tokens", { json: { uses: "2" } }, 400, "api.bad-request"],
    ["GET", "/v1/events?since=never", {}, 400, "api.bad-request"],
    ["GET", "/v1/hosts/%ff", {}, 400, "api.bad-request"],
    ["POST", "/v1/hosts/%zz/revoke", {}, 400, "api.bad-request"],
    ["GET", `/v1/hosts/${"a".repeat(2000)}`, {}, 400, "api.bad-request"],
    ["GET", "/v1/events?since=1e99", {}, 400, "api.bad-request"],
  ];
  for (const [method, path, options, status, code] of cases) {
    const answer = await controller.call<Problem>(method, path, options);
    expect([method, path, answer.status, answer.body.code]).toEqual([method, path, status, code]);
    expect(answer.headers["content-type"]).toBe("application/problem+json");
  }
});

test("a host is found by id, prefix and name; an ambiguous prefix says so", async () => {
  // Two ids that share six digits cannot be had from real keys here: the store's own suite has that case.
  const joined = await joinLink(controller, {
    key: newLinkKey(),
    name: "found.by-name",
    joinToken: await controller.joinToken(),
  });
  for (const reference of [joined.host, joined.host.slice(0, 6), "found.by-name"]) {
    expect((await controller.call<{ id: string }>("GET", `/v1/hosts/${reference}`)).body.id).toBe(
      joined.host,
    );
  }
  expect((await controller.call("GET", `/v1/hosts/${joined.host.slice(0, 5)}`)).status).toBe(404);
  joined.client[Symbol.dispose]();
});

test("a join token says when it expires and what it is good for", async () => {
  const before = Date.now();
  const { status, body } = await controller.call<JoinTokenView>("POST", "/v1/join-tokens", {
    json: { ttlSeconds: 60, uses: 3 },
  });
  expect(status).toBe(201);
  expect(body.uses).toBe(3);
  expect(body.expiresAt).toBeGreaterThanOrEqual(before + 60_000);
  expect(body.token).toMatch(/^bedplate-join\.[0-9a-f]{16}\.[A-Za-z0-9_-]{43}\.[0-9a-f]{64}$/);
});

test("openapi.json is OpenAPI 3.1, has every route and only schemas that compile", async () => {
  const { body, status } = await controller.call<{
    openapi: string;
    info: { title: string; version: string };
    paths: Record<string, Record<string, unknown>>;
  }>("GET", "/openapi.json");
  expect(status).toBe(200);
  expect(body.openapi).toBe("3.1.0");
  expect(body.info).toMatchObject({ title: expect.any(String), version: expect.any(String) });
  const documented = Object.entries(body.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  expect(documented.sort()).toEqual([
    "GET /metrics",
    "GET /v1/audit",
    "GET /v1/audit/verify",
    "GET /v1/authority",
    "GET /v1/ca",
    "GET /v1/commands",
    "GET /v1/commands/{id}",
    "GET /v1/commands/{id}/output",
    "GET /v1/events",
    "GET /v1/hosts",
    "GET /v1/hosts/{host}",
    "GET /v1/hosts/{host}/audit-heads",
    "GET /v1/hosts/{host}/telemetry",
    "GET /v1/hosts/{host}/telemetry/history",
    "GET /v1/hosts/{host}/telemetry/live",
    "GET /v1/image-collection",
    "GET /v1/images",
    "GET /v1/images/{root}",
    "GET /v1/images/{root}/frames",
    "GET /v1/images/{root}/manifest",
    "GET /v1/images/{root}/signatures",
    "GET /v1/images/{root}/wanted",
    "GET /v1/join-tokens",
    "GET /v1/link",
    "GET /v1/mirrors",
    "GET /v1/status",
    "GET /v1/tokens",
    "POST /v1/authority/finish",
    "POST /v1/authority/rotate",
    "POST /v1/backups",
    "POST /v1/commands",
    "POST /v1/commands/{id}/cancel",
    "POST /v1/commands/{id}/pause",
    "POST /v1/commands/{id}/resume",
    "POST /v1/commands/{id}/signatures",
    "POST /v1/hosts/{host}/approve",
    "POST /v1/hosts/{host}/reject",
    "POST /v1/hosts/{host}/release",
    "POST /v1/hosts/{host}/rename",
    "POST /v1/hosts/{host}/revoke",
    "POST /v1/images/collect",
    "POST /v1/images/{root}/mirrors",
    "POST /v1/images/{root}/mirrors/remove",
    "POST /v1/images/{root}/remove",
    "POST /v1/images/{root}/signatures",
    "POST /v1/images/{root}/signatures/remove",
    "POST /v1/join-tokens",
    "POST /v1/join-tokens/{id}/revoke",
    "POST /v1/tokens",
    "POST /v1/tokens/{id}/revoke",
    "PUT /v1/images/{root}/frames",
    "PUT /v1/images/{root}/manifest",
  ]);
  let schemas = 0;
  const compile = (value: unknown): void => {
    if (value === null || typeof value !== "object") return;
    if ("schema" in value) {
      Compile(value.schema as object);
      schemas += 1;
    }
    for (const member of Object.values(value)) compile(member);
  };
  compile(body.paths);
  expect(schemas).toBeGreaterThan(40);
  for (const part of ["manifest", "frames"]) {
    const put = body.paths[`/v1/images/{root}/${part}`]!.put as { requestBody: { content: object } };
    expect(Object.keys(put.requestBody.content)).toEqual(["application/octet-stream"]);
  }
  const post = body.paths["/v1/commands"]!.post as { parameters: { in: string; name: string }[] };
  expect(post.parameters).toMatchObject([
    { in: "header", name: "idempotency-key", description: expect.stringContaining("document's id") },
  ]);
  // What is documented for an answer is what protocol/api.ts says.
  const image = body.paths["/v1/images/{root}"]!.get as {
    responses: Record<string, { content: Record<string, { schema: object }> }>;
  };
  expect(image.responses["200"]!.content["application/json"]!.schema).toMatchObject(
    JSON.parse(JSON.stringify(ImageView)),
  );
  expect(image.responses.default!.content["application/problem+json"]).toBeDefined();
});

test("metrics are the controller's own, in Prometheus' format", async () => {
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  await controller.call("POST", "/v1/commands", {
    json: { document: documentOf(joined.host), signatures: [] },
  });
  const { body, headers } = await controller.call<string>("GET", "/metrics");
  expect(headers["content-type"]).toMatch(/^text\/plain; version=/);
  expect(body).toMatch(/^bedplate_controller_hosts\{connection="online"\} 1$/m);
  expect(body).toMatch(/^bedplate_controller_commands\{state="(offered|waiting)"\} 1$/m);
  expect(body).toMatch(/^bedplate_controller_link_received_bytes_total [1-9]/m);
  joined.client[Symbol.dispose]();
});
