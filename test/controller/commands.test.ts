// Commands: taken once, offered to their host until it answers, ended once.
import { createHash } from "node:crypto";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, expect, test } from "vitest";
import { offering } from "../../controller/rules/offering.ts";
import type { CommandView, Problem } from "../../protocol/api.ts";
import { textOf, utf8 } from "../../protocol/bytes.ts";
import type { Progress } from "../../protocol/commands.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { documentOf, newCommandId, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { type Joined, joinLink, type LinkKey, newLinkKey } from "../support/link-client.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

async function newHost(): Promise<Joined & { key: LinkKey }> {
  const key = newLinkKey();
  return { key, ...(await joinLink(controller, { key, joinToken: await controller.joinToken() })) };
}
const view = async (id: string) => (await controller.call<CommandView>("GET", `/v1/commands/${id}`)).body;
const offeredId = (offer: { document: Uint8Array }) =>
  (JSON.parse(textOf(offer.document)) as { id: string }).id;

async function tell({ client }: Joined, first: number, ...bodies: RecordBody[]): Promise<void> {
  for (const [i, body] of bodies.entries()) client.send({ t: "record", seq: first + i, at: 5000, body });
  while ((await client.next("ack")).records < first + bodies.length - 1);
}
async function leave({ client, host }: Joined): Promise<void> {
  client[Symbol.dispose]();
  for (let i = 0; i < 1000; i++) {
    const { body } = await controller.call<{ connection: string }>("GET", `/v1/hosts/${host}`);
    if (body.connection === "offline") return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("the host stays online");
}

test("a command goes to its host at once, byte for byte, and its life is told", async () => {
  const joined = await newHost();
  const document = documentOf(joined.host).replace("{", "{ \n\t");
  const answer = await submit(controller, document);
  expect(answer.status).toBe(201);
  const { id } = answer.body;
  const offer = await joined.client.next("offer");
  expect(textOf(offer.document)).toBe(document);
  expect(offer).toMatchObject({ signatures: [], epoch: 1, sources: [] });
  expect((await view(id)).state).toBe("offered");
  await tell(
    joined,
    1,
    { type: "received", command: id },
    { type: "accepted", command: id },
    { type: "running", command: id, run: 1 },
  );
  const progress = { phase: "write", done: 3, total: 9, unit: "groups" as const, rate: 1.5, secondsLeft: 4 };
  // What is not known of it is not kept either: it would be in the way of every list, and may be large.
  const more = { at: { number: 1, of: 2, name: "a", more: "x" }, more: "x".repeat(500_000) };
  joined.client.send({ t: "progress", command: id, progress: { ...progress, ...more } as Progress });
  await expect
    .poll(async () => (await view(id)).progress)
    .toEqual({ ...progress, at: { number: 1, of: 2, name: "a" } });
  joined.client.send({ t: "progress", command: id, progress });
  await expect.poll(async () => (await view(id)).progress).toEqual(progress);
  const result = {
    outcome: "succeeded" as const,
    startedAt: 1,
    endedAt: 2,
    output: { at: 1, big: 2n ** 60n, raw: Uint8Array.from([1, 255]), rest: Number.NaN },
  };
  await tell(joined, 4, { type: "result", command: id, result });
  const ended = await view(id);
  expect(ended).toMatchObject({ state: "succeeded", runs: 1, progress: null, reason: null });
  // What JSON has no word for is said in the nearest one.
  expect(ended.result).toEqual({
    ...result,
    output: { at: 1, big: "1152921504606846976", raw: "01ff", rest: null },
  });
  expect(ended.history.map(({ state }) => state)).toEqual([
    "waiting",
    "offered",
    "received",
    "accepted",
    "running",
    "succeeded",
  ]);
  joined.client[Symbol.dispose]();
});

test("the same document again is answered with its state, another of the same id is refused", async () => {
  const joined = await newHost();
  const document = documentOf(joined.host);
  const first = await submit(controller, document);
  const again = await submit(controller, document);
  expect([first.status, again.status]).toEqual([201, 200]);
  expect(again.body.id).toBe(first.body.id);
  await joined.client.next("offer");
  const other = await submit(controller, `${document} `);
  expect(other.status).toBe(409);
  expect(other.body).toMatchObject({ code: "command.id-conflict" });
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(joined.client.received.filter(({ t }) => t === "offer")).toHaveLength(0);
  joined.client[Symbol.dispose]();
});

test("what waits is offered in order when its host comes, and again after a broken connection until it ends", async () => {
  const joined = await newHost();
  await leave(joined);
  const ids: string[] = [];
  for (let i = 0; i < 5; i++) ids.push((await submit(controller, documentOf(joined.host))).body.id);
  expect((await view(ids[0]!)).state).toBe("waiting");

  const second = { ...joined, ...(await joinLink(controller, joined)) };
  const offered: string[] = [];
  for (let i = 0; i < 5; i++) offered.push(offeredId(await second.client.next("offer")));
  expect(offered).toEqual(ids);
  const refusal = { code: "policy.denied", message: "No.", hint: "Ask.", details: { why: 1 } };
  await tell(
    second,
    1,
    { type: "received", command: ids[0]! },
    { type: "refused", command: ids[1]!, error: refusal },
  );
  await leave(second);

  await controller.restart();
  const third = { ...joined, ...(await joinLink(controller, joined)) };
  const again: string[] = [];
  for (let i = 0; i < 4; i++) again.push(offeredId(await third.client.next("offer")));
  expect(again).toEqual([ids[0], ids[2], ids[3], ids[4]]);
  expect(await view(ids[1]!)).toMatchObject({
    state: "refused",
    result: { outcome: "failed", error: refusal },
  });
  // A late and contradicting record changes nothing that has ended.
  await tell(
    third,
    3,
    { type: "running", command: ids[1]!, run: 1 },
    { type: "result", command: ids[1]!, result: { outcome: "succeeded", startedAt: 0, endedAt: 0 } },
  );
  expect(await view(ids[1]!)).toMatchObject({ state: "refused", runs: 0 });
  third.client[Symbol.dispose]();
});

test("no more offers are on their way than the agent has confirmed; then the next ones follow", async () => {
  const joined = await newHost();
  const total = offering.inFlightMax + 6;
  const ids: string[] = [];
  for (let i = 0; i < total; i++) ids.push((await submit(controller, documentOf(joined.host))).body.id);
  const offered: string[] = [];
  for (let i = 0; i < offering.inFlightMax; i++) offered.push(offeredId(await joined.client.next("offer")));
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(joined.client.received.filter(({ t }) => t === "offer")).toEqual([]);
  expect(await view(ids.at(-1)!)).toMatchObject({
    state: "waiting",
    reason: expect.stringContaining("confirmed what was sent before it"),
  });
  // A cancel goes out all the same.
  await controller.call("POST", `/v1/commands/${ids[3]}/cancel`);
  expect((await joined.client.next("cancel")).command).toBe(ids[3]);
  await tell(joined, 1, { type: "received", command: ids[0]! }, { type: "received", command: ids[1]! });
  for (let i = 0; i < 2; i++) offered.push(offeredId(await joined.client.next("offer")));
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(joined.client.received.filter(({ t }) => t === "offer")).toEqual([]);
  await tell(joined, 3, ...ids.slice(2, 10).map((command) => ({ type: "received", command }) as const));
  for (let i = 0; i < 4; i++) offered.push(offeredId(await joined.client.next("offer")));
  expect(offered).toEqual(ids);
  joined.client[Symbol.dispose]();
});

test("commands that many submit at once reach their host in the order of their generations, each once", async () => {
  const joined = await newHost();
  const documents = Array.from({ length: 40 }, () => documentOf(joined.host, { kind: "host.reboot" }));
  const answers = await Promise.all(documents.map((document) => submit(controller, document)));
  expect(answers.map(({ status }) => status)).toEqual(documents.map(() => 201));
  const offers = [];
  for (let i = 0; i < documents.length; i++) offers.push(await joined.client.next("offer"));
  expect(offers.map(({ generation }) => generation)).toEqual(documents.map((_, i) => i + 1));
  expect(offers.map(offeredId).sort()).toEqual(answers.map(({ body }) => body.id).sort());
  await leave(joined);
  const back = { ...joined, ...(await joinLink(controller, joined)) };
  const again = [];
  for (let i = 0; i < documents.length; i++) again.push((await back.client.next("offer")).generation);
  expect(again).toEqual(documents.map((_, i) => i + 1));
  back.client[Symbol.dispose]();
});

test("a command that was never offered is cancelled at once", async () => {
  const joined = await newHost();
  await leave(joined);
  const { body } = await submit(controller, documentOf(joined.host));
  const answer = await controller.call<CommandView>("POST", `/v1/commands/${body.id}/cancel`);
  expect(answer.status).toBe(202);
  expect(answer.body).toMatchObject({
    state: "cancelled",
    result: { outcome: "cancelled", error: { code: "command.cancelled" } },
  });
  const late = await controller.call<Problem>("POST", `/v1/commands/${body.id}/cancel`);
  expect([late.status, late.body.code]).toEqual([409, "command.not-cancellable"]);
  const back = await joinLink(controller, joined);
  await new Promise((resolve) => setTimeout(resolve, 150));
  expect(back.client.received.filter(({ t }) => t === "offer")).toEqual([]);
  back.client[Symbol.dispose]();
});

test("a cancel is brought to the host, after its offer, also when it was away; its result decides", async () => {
  const joined = await newHost();
  const { body } = await submit(controller, documentOf(joined.host));
  await joined.client.next("offer");
  const asked = await controller.call<CommandView>("POST", `/v1/commands/${body.id}/cancel`);
  expect(asked.body).toMatchObject({ state: "offered", cancelRequestedAt: expect.any(Number) });
  expect(await joined.client.next("cancel")).toEqual({ t: "cancel", command: body.id });
  await leave(joined);
  const back = { ...joined, ...(await joinLink(controller, joined)) };
  await back.client.next("offer");
  expect(await back.client.next("cancel")).toEqual({ t: "cancel", command: body.id });
  expect((await view(body.id)).reason).toMatch(/cancellation was asked for/);
  await tell(back, 1, {
    type: "result",
    command: body.id,
    result: {
      outcome: "cancelled",
      startedAt: 1,
      endedAt: 2,
      error: { code: "command.cancelled", message: "Stopped." },
    },
  });
  expect((await view(body.id)).state).toBe("cancelled");
  back.client[Symbol.dispose]();
});

test("a command whose time to start passes while its host is away fails as expired", async () => {
  const joined = await newHost();
  await leave(joined);
  const { body } = await submit(
    controller,
    documentOf(joined.host, { limits: { notAfter: Date.now() + 300 } }),
  );
  expect(body.state).toBe("waiting");
  await expect.poll(async () => (await view(body.id)).state, { timeout: 30_000 }).toBe("failed");
  expect((await view(body.id)).result).toMatchObject({
    outcome: "failed",
    error: { code: "command.expired" },
  });
});

test("bad documents are refused with their code and nothing is kept", async () => {
  const joined = await newHost();
  const id = newCommandId();
  const cases: [string, number, string][] = [
    ["not json", 400, "command.bad-arguments"],
    [documentOf(joined.host, { id: "7" }), 400, "command.bad-arguments"],
    [documentOf(joined.host, { id, kind: "host.explode" }), 400, "command.unknown-kind"],
    [documentOf(joined.host, { id, mode: "plan" }), 400, "command.bad-arguments"],
    [documentOf(joined.host, { id, arguments: { shell: "rm" } }), 400, "command.bad-arguments"],
    [documentOf(joined.host, { id, more: 1 }), 400, "command.bad-arguments"],
    [documentOf("ab".repeat(32), { id }), 404, "host.unknown"],
    [
      documentOf(joined.host, {
        id,
        kind: "image.verify",
        arguments: { image: { root: "cd".repeat(32), sizeBytes: 1 }, disk: { serial: "x" } },
      }),
      404,
      "image.unknown",
    ],
  ];
  for (const [document, status, code] of cases) {
    const answer = await submit(controller, document);
    expect([answer.status, (answer.body as unknown as Problem).code, document]).toEqual([
      status,
      code,
      document,
    ]);
  }
  const tooLarge = await submit(controller, documentOf(joined.host, { id }) + " ".repeat(256 * 1024));
  expect(tooLarge.status).toBe(400);
  expect((await controller.call("GET", `/v1/commands/${id}`)).status).toBe(404);
  expect(
    (await controller.call<{ commands: CommandView[] }>("GET", `/v1/commands?host=${joined.host}`)).body
      .commands,
  ).toEqual([]);
  joined.client[Symbol.dispose]();
});

test("commands are listed newest first, by host, state and number", async () => {
  const joined = await newHost();
  const ids: string[] = [];
  for (let i = 0; i < 3; i++) ids.push((await submit(controller, documentOf(joined.host))).body.id);
  for (let i = 0; i < 3; i++) await joined.client.next("offer");
  await tell(joined, 1, {
    type: "result",
    command: ids[1]!,
    result: { outcome: "timed-out", startedAt: 0, endedAt: 1 },
  });
  const list = async (query: string) =>
    (
      await controller.call<{ commands: CommandView[] }>(
        "GET",
        `/v1/commands?host=${joined.host.slice(0, 10)}&${query}`,
      )
    ).body.commands.map(({ id }) => id);
  expect(await list("")).toEqual([ids[2], ids[1], ids[0]]);
  expect(await list("limit=1")).toEqual([ids[2]]);
  expect(await list("state=timed-out")).toEqual([ids[1]]);
  expect((await controller.call<Problem>("GET", "/v1/commands?state=asleep")).body.code).toBe(
    "api.bad-request",
  );
  expect((await controller.call<Problem>("GET", "/v1/commands?limit=0")).status).toBe(400);
  expect((await controller.call<Problem>("GET", "/v1/commands?colour=red")).status).toBe(400);
  joined.client[Symbol.dispose]();
});

test("a command that another version took is offered all the same, and does not cost its host the connection", async () => {
  const key = newLinkKey();
  const first = await joinLink(controller, { key, joinToken: await controller.joinToken() });
  first.client[Symbol.dispose]();
  const document = documentOf(first.host);
  const { id } = (await submit(controller, document)).body;
  const next = (await submit(controller, documentOf(first.host))).body;
  await controller.offline(async () => {
    const database = new DatabaseSync(join(controller.directory, "controller.db"));
    database
      .prepare("update commands set kind = 'host.future', document = ? where id = ?")
      .run(utf8(document.replace('"agent.ping"', '"host.future"')), id);
    database.close();
  });
  const { client } = await joinLink(controller, { key });
  for (const each of [id, next.id])
    expect(new TextDecoder().decode((await client.next("offer")).document)).toContain(each);
  client[Symbol.dispose]();
});

test("a list of commands that quote one large plan ends early: what a host says cannot make answers without bound", async () => {
  const { client, host } = await joinLink(controller, {
    ...{ key: newLinkKey(), joinToken: await controller.joinToken() },
  });
  const exec = { kind: "host.exec", arguments: { argv: ["/bin/true"] } };
  const planned = (await submit(controller, documentOf(host, { ...exec, mode: "plan" }))).body;
  const text = "x".repeat(256 * 1024);
  const output = { artefact: { text, signature: "" } };
  const result = { outcome: "succeeded", startedAt: 0, endedAt: 1, output } as const;
  client.send({ t: "record", seq: 1, at: 0, body: { type: "result", command: planned.id, result } });
  await client.next("ack");
  const digest = createHash("sha256").update(text).digest("hex");
  const plan = { id: planned.id, digest, hostname: "h", chassisSerial: null };
  const applies = 160;
  for (let i = 0; i < applies; i++)
    expect((await submit(controller, documentOf(host, { ...exec, plan }))).status).toBe(201);
  const list = await controller.call<{ commands: CommandView[] }>(
    "GET",
    `/v1/commands?limit=1000&host=${host}`,
  );
  expect(list.status).toBe(200);
  expect(list.body.commands[0]!.plan!.text).toHaveLength(text.length);
  expect(list.body.commands.length).toBeLessThan(applies);
  expect(list.bytes.length).toBeLessThan(36 << 20);
  client[Symbol.dispose]();
}, 60_000);
