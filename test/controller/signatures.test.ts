// Commands that wait for signatures: gathered over the API, one a key, until there are enough; then offered with them all.
import { createHash } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { AuditEntry, CommandView, Problem } from "../../protocol/api.ts";
import { textOf, utf8 } from "../../protocol/bytes.ts";
import type { Namespace } from "../../protocol/link-proof.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { fingerprintOf, parsePublicKey } from "../../protocol/ssh-keys.ts";
import { publicKeyLine, signMessage } from "../../protocol/ssh-sign.ts";
import { documentOf, newCommandId } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { type Joined, joinLink, type LinkKey, newLinkKey } from "../support/link-client.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

const [alice, bob, carol] = [newLinkKey(), newLinkKey(), newLinkKey()];
const signed = (key: LinkKey, document: string, namespace: Namespace = "bedplate-command") =>
  signMessage(key, namespace, utf8(document));
const fingerprint = (key: LinkKey) => fingerprintOf(parsePublicKey(publicKeyLine(key.publicKey, "")));
const submit = (document: string, more: object = {}) =>
  controller.call<CommandView & Problem>("POST", "/v1/commands", {
    json: { document, signatures: [], ...more },
  });
const add = (id: string, signature: string) =>
  controller.call<CommandView & Problem>("POST", `/v1/commands/${id}/signatures`, { json: { signature } });
const view = async (id: string) => (await controller.call<CommandView>("GET", `/v1/commands/${id}`)).body;
const join = async (): Promise<Joined & { key: LinkKey }> => {
  const key = newLinkKey();
  return { key, ...(await joinLink(controller, { key, joinToken: await controller.joinToken() })) };
};
const reboot = (host: string, more: object = {}) => documentOf(host, { kind: "host.reboot", ...more });
const tell = (joined: Joined, seq: number, body: RecordBody) =>
  joined.client.send({ t: "record", seq, at: 5000, body });

test("a command is held until it has its signatures, across a restart, and what came later is not held by it", async () => {
  const joined = await join();
  const document = reboot(joined.host);
  const first = await submit(document, { signaturesWanted: 2 });
  expect(first.status).toBe(201);
  const { id } = first.body;
  expect(first.body).toMatchObject({
    ...{ state: "waiting", signatures: [], signaturesWanted: 2 },
    reason: "It needs 2 more signatures: it has 0 of 2.",
    suggest: `bedplate command sign ${id}`,
    document: Buffer.from(document).toString("base64"),
  });
  const later = await submit(reboot(joined.host));
  const offered = await joined.client.next("offer");
  expect([textOf(offered.document), offered.generation]).toEqual([
    Buffer.from(later.body.document, "base64").toString(),
    1,
  ]);

  const byAlice = await signed(alice, document);
  expect((await add(id, byAlice)).body).toMatchObject({
    signatures: [{ fingerprint: await fingerprint(alice), addedAt: expect.any(Number) }],
    reason: "It needs 1 more signature: it has 1 of 2.",
  });
  expect((await add(id, byAlice)).body.signatures).toHaveLength(1);
  joined.client[Symbol.dispose]();
  await controller.restart();
  const back = await joinLink(controller, joined);
  expect(textOf((await back.client.next("offer")).document)).not.toBe(document);
  expect((await view(id)).state).toBe("waiting");

  const byBob = await signed(bob, document);
  expect((await add(id, byBob)).status).toBe(200);
  const complete = await back.client.next("offer");
  expect(textOf(complete.document)).toBe(document);
  expect(complete).toMatchObject({ signatures: [byAlice, byBob], generation: 2 });
  // Known ones are known for ever; others come too late.
  expect((await add(id, byBob)).status).toBe(200);
  const late = await add(id, await signed(carol, document));
  expect([late.status, late.body.code]).toEqual([409, "command.already-offered"]);
  tell({ ...joined, ...back }, 1, {
    type: "result",
    command: id,
    result: { outcome: "succeeded", startedAt: 1, endedAt: 2 },
  });
  await expect.poll(async () => (await view(id)).state, { timeout: 10_000 }).toBe("succeeded");
  const after = await add(id, await signed(carol, document));
  expect([after.status, after.body.code, after.body.detail]).toEqual([
    ...[409, "command.already-offered", "The command has ended already: succeeded."],
  ]);
  back.client[Symbol.dispose]();
});

test("signatures that come with the command count; enough of them and it goes at once", async () => {
  const joined = await join();
  const document = reboot(joined.host);
  const byAlice = await signed(alice, document);
  const twice = await submit(document, { signatures: [byAlice, byAlice], signaturesWanted: 2 });
  expect(twice.body).toMatchObject({ state: "waiting", signatures: [{}] });
  const other = reboot(joined.host);
  const both = await submit(other, {
    signatures: [await signed(alice, other), await signed(bob, other)],
    signaturesWanted: 2,
  });
  expect(both.body.state).toBe("offered");
  expect((await joined.client.next("offer")).signatures).toHaveLength(2);
  joined.client[Symbol.dispose]();
});

test("a signature that says nothing is refused with its code, and none is kept in another's name", async () => {
  const joined = await join();
  const document = reboot(joined.host);
  const { id } = (await submit(document, { signaturesWanted: 1 })).body;
  const good = await signed(alice, document);
  const cases: [string, number, string][] = [
    ["nonsense", 400, "signature.malformed"],
    [good.replace("SSH SIGNATURE", "PGP SIGNATURE"), 400, "signature.malformed"],
    [await signed(alice, `${document} `), 400, "signature.invalid"],
    [await signed(alice, document, "bedplate-plan"), 400, "signature.wrong-namespace"],
  ];
  for (const [signature, status, code] of cases) {
    const answer = await add(id, signature);
    expect([answer.status, answer.body.code]).toEqual([status, code]);
  }
  expect((await view(id)).signatures).toEqual([]);
  expect((await add(newCommandId(), good)).status).toBe(404);
  const malformed = await submit(reboot(joined.host), { signatures: ["nonsense"] });
  expect([malformed.status, malformed.body.code]).toEqual([400, "signature.malformed"]);
  const tooMany = await submit(reboot(joined.host), { signaturesWanted: 17 });
  expect([tooMany.status, tooMany.body.code]).toEqual([400, "api.bad-request"]);
  // What came with the command is the maker's word; the key's own holder is heard over it.
  const third = reboot(joined.host);
  const forged = await signed(alice, "other bytes");
  const kept = (await submit(third, { signatures: [forged], signaturesWanted: 2 })).body.id;
  expect((await add(kept, await signed(alice, third))).body.signatures).toHaveLength(1);
  const last = await signed(bob, third);
  expect((await add(kept, last)).body.state).toBe("waiting");
  const offer = await joined.client.next("offer");
  expect(offer.signatures).toEqual([await signed(alice, third), last]);
  joined.client[Symbol.dispose]();
});

test("the audit says who brought whose signature to which command", async () => {
  const joined = await join();
  const document = reboot(joined.host);
  const { id } = (await submit(document, { signaturesWanted: 2 })).body;
  await add(id, await signed(alice, document));
  await add(id, "nonsense");
  const { body } = await controller.call<{ entries: AuditEntry[] }>("GET", "/v1/audit?limit=2");
  expect(body.entries).toMatchObject([
    { route: "/v1/commands/:id/signatures", object: id, status: 400, code: "signature.malformed" },
    {
      object: `${id} ${await fingerprint(alice)}`,
      status: 200,
      token: { name: expect.any(String) },
      address: "127.0.0.1",
    },
  ]);
  joined.client[Symbol.dispose]();
});

test("what waits for signatures ends when its time to start passes, and when it is cancelled", async () => {
  const joined = await join();
  const short = reboot(joined.host, { limits: { notAfter: Date.now() + 300 } });
  const { id } = (await submit(short, { signaturesWanted: 2 })).body;
  const other = (await submit(reboot(joined.host), { signaturesWanted: 1 })).body.id;
  expect((await controller.call<CommandView>("POST", `/v1/commands/${other}/cancel`)).body.state).toBe(
    "cancelled",
  );
  await expect.poll(async () => (await view(id)).state, { timeout: 10_000 }).toBe("failed");
  expect((await view(id)).result).toMatchObject({
    error: { code: "command.expired", message: expect.stringContaining("2 signatures were missing") },
  });
  expect((await add(id, await signed(alice, short))).body.code).toBe("command.already-offered");
  expect(joined.client.received.filter(({ t }) => t === "offer")).toEqual([]);
  joined.client[Symbol.dispose]();
});

test("the plan that a command quotes is shown with it, and nothing else in its place", async () => {
  const joined = await join();
  const plan = await submit(reboot(joined.host, { mode: "plan" }));
  await joined.client.next("offer");
  const artefact = { text: '{"bedplate":"plan/1"}', signature: "-----BEGIN" };
  tell(joined, 1, {
    type: "result",
    command: plan.body.id,
    result: { outcome: "succeeded", startedAt: 1, endedAt: 2, output: { artefact, more: 1 } },
  });
  await expect.poll(async () => (await view(plan.body.id)).state, { timeout: 10_000 }).toBe("succeeded");
  const quote = {
    id: plan.body.id,
    digest: createHash("sha256").update(artefact.text).digest("hex"),
    ...{ hostname: "h", chassisSerial: null },
  };
  const planOf = async (wanted: object, host = joined.host) =>
    (await submit(reboot(host, { plan: wanted }), { signaturesWanted: 1 })).body.plan;
  expect(await planOf(quote)).toEqual(artefact);
  expect(await planOf({ ...quote, digest: "0".repeat(64) })).toBeNull();
  expect(await planOf({ ...quote, id: newCommandId() })).toBeNull();
  // Another host's plan is none of this one's.
  const other = await join();
  expect(await planOf(quote, other.host)).toBeNull();
  for (const { client } of [joined, other]) client[Symbol.dispose]();
});

test("the header Idempotency-Key is the document's id, or the request is refused", async () => {
  const joined = await join();
  const post = (document: string, key: string) =>
    controller.call<CommandView & Problem>("POST", "/v1/commands", {
      json: { document, signatures: [] },
      headers: { "idempotency-key": key },
    });
  const id = newCommandId();
  const document = documentOf(joined.host, { id });
  const wrong = await post(document, newCommandId());
  expect([wrong.status, wrong.body.code]).toEqual([400, "api.bad-request"]);
  expect((await post(document, "x".repeat(65))).status).toBe(400);
  expect((await controller.call("GET", `/v1/commands/${id}`)).status).toBe(404);
  expect([(await post(document, id)).status, (await post(document, `"${id}"`)).status]).toEqual([201, 200]);
  joined.client[Symbol.dispose]();
});

test("an id that could be that of a forgotten command is never taken for a new one", async () => {
  const joined = await join();
  const mintedAt = (at: number) =>
    `${at
      .toString(16)
      .padStart(12, "0")
      .replace(/^(.{8})/, "$1-")}-7000-8000-000000000000`;
  const answer = async (days: number) =>
    (await submit(documentOf(joined.host, { id: mintedAt(Date.now() + days * 86_400_000) }))).body.code;
  expect([await answer(-31), await answer(8)]).toEqual(["command.bad-arguments", "command.bad-arguments"]);
  expect([await answer(-29), await answer(6)]).toEqual([undefined, undefined]);
  joined.client[Symbol.dispose]();
});
