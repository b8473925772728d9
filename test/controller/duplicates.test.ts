// Two machines with one key, over real connections: who is asked, who is kept out, what the operator reads and decides.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ApiEvent, AuditEntry, CommandView, HostView, Problem } from "../../protocol/api.ts";
import { documentOf, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { EventReader } from "../support/event-reader.ts";
import { type Identity, type Joined, joinLink, newLinkKey, openLink, prove } from "../support/link-client.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

const hostOf = async (reference: string) =>
  (await controller.call<HostView>("GET", `/v1/hosts/${reference}`)).body;
const release = <T = HostView>(reference: string, instance: string) =>
  controller.call<T>("POST", `/v1/hosts/${reference}/release`, { json: { instance } });
const quiet = () => new Promise((resolve) => setTimeout(resolve, 150));
const original = { instance: "original", bootId: "boot-a" };
const copy = { instance: "copy", bootId: "boot-b" };

async function joined(
  name: string,
  more: Partial<Identity> = {},
): Promise<Joined & { key: Identity["key"] }> {
  const key = newLinkKey();
  const joinToken = await controller.joinToken();
  return { key, ...(await joinLink(controller, { key, joinToken, name, ...original, ...more })) };
}

async function refusal(identity: Identity): Promise<{ code: number; reason: string }> {
  using client = await openLink(controller);
  await prove(client, identity);
  return await client.closed;
}

/** A host of which two machines were connected at once. */
async function quarantined(name: string) {
  const first = await joined(name);
  const closed = await refusal({ key: first.key, ...copy });
  return { ...first, closed };
}

test("two machines that both answer are found out: the host is read from only, and everyone is told", async () => {
  using events = new EventReader(controller.client, "/v1/events", {
    authorization: `Bearer ${controller.client.token}`,
  });
  await events.until(({ status }) => status === 200);
  const { key, client, host, closed } = await quarantined("twins");
  expect(closed).toEqual({ code: 4003, reason: expect.stringMatching(/^host\.quarantined Two machines/) });
  // The one that was there stays connected, and is told by another welcome of the same session.
  const told = await client.next("welcome");
  expect(told.standing).toBe("quarantined");
  expect(client.socket.readyState).toBe(client.socket.OPEN);

  expect(await hostOf("twins")).toMatchObject({
    ...{ standing: "quarantined", connection: "online" },
    reason: expect.stringMatching(/^host\.quarantined .*instance original.*instance copy/),
    next: expect.stringContaining("only commands that read"),
    suggest: expect.stringMatching(/^bedplate host release twins --instance original /),
    instances: [
      { ...original, address: "127.0.0.1" },
      { ...copy, address: "127.0.0.1" },
    ],
  });
  const named = (event: string) => (reader: EventReader) =>
    reader.events.some(({ data }) => (data as ApiEvent).event === event && (data as ApiEvent).id === host);
  await events.until(named("duplicate"));
  await events.until(named("quarantined"));
  // It comes again and again, and the alarm is raised once.
  expect(await refusal({ key, ...copy })).toMatchObject({ code: 4003 });
  const { entries } = (await controller.call<{ entries: AuditEntry[] }>("GET", "/v1/audit?limit=5")).body;
  expect(entries.filter(({ object }) => object === host)).toMatchObject([
    { method: "ALARM", code: "host.quarantined", token: { name: "twins" }, address: "127.0.0.1" },
  ]);

  const reboot = await submit(controller, documentOf(host, { kind: "host.reboot", arguments: {} }));
  const ping = await submit(controller, documentOf(host));
  expect(new TextDecoder().decode((await client.next("offer")).document)).toContain(ping.body.id);
  await quiet();
  expect(client.received.filter(({ t }) => t === "offer")).toEqual([]);
  const held = (await controller.call<CommandView>("GET", `/v1/commands/${reboot.body.id}`)).body;
  expect(held).toMatchObject({ state: "waiting", reason: expect.stringContaining("host.quarantined") });
  // What the host says of its commands counts all the same.
  const result = { outcome: "succeeded", startedAt: 1, endedAt: 2 } as const;
  client.send({ t: "record", seq: 1, at: 1, body: { type: "result", command: ping.body.id, result } });
  await client.next("ack");
  const ended = (await controller.call<CommandView>("GET", `/v1/commands/${ping.body.id}`)).body;
  expect(ended.state).toBe("succeeded");

  expect((await release("twins", original.instance)).body).toMatchObject({
    ...{ standing: "approved", reason: null, instances: [] },
  });
  expect((await client.next("welcome")).standing).toBe("approved");
  expect(new TextDecoder().decode((await client.next("offer")).document)).toContain(reboot.body.id);
  client[Symbol.dispose]();
});

test("what was offered before the quarantine can be cancelled in it, and a machine that has not got it keeps silent", async () => {
  const first = await joined("stopped");
  const reboot = await submit(controller, documentOf(first.host, { kind: "host.reboot", arguments: {} }));
  await first.client.next("offer");
  expect(await refusal({ key: first.key, ...copy })).toMatchObject({ code: 4003 });
  first.client[Symbol.dispose]();
  const { client, welcome } = await joinLink(controller, { key: first.key, ...copy });
  expect(welcome.standing).toBe("quarantined");
  await controller.call("POST", `/v1/commands/${reboot.body.id}/cancel`);
  expect(await client.next("cancel")).toMatchObject({ command: reboot.body.id, ifKnown: true });
  // Also the one that is kept out: it may be the one that runs it.
  using kept = await openLink(controller);
  await prove(kept, { key: first.key, ...original });
  expect(await kept.next("cancel")).toMatchObject({ command: reboot.body.id, ifKnown: true });
  expect(await kept.closed).toMatchObject({ code: 4003 });
  await quiet();
  expect(client.received.filter(({ t }) => t === "offer" || t === "cancel")).toEqual([]);
  // The other one, when it comes, hears of it too.
  client[Symbol.dispose]();
  const back = await joinLink(controller, { key: first.key, ...original });
  expect(await back.client.next("cancel")).toMatchObject({ command: reboot.body.id, ifKnown: true });
  await release("stopped", original.instance);
  await back.client.next("offer");
  expect(await back.client.next("cancel")).not.toHaveProperty("ifKnown");
  back.client[Symbol.dispose]();
});

test("the copy that a person named is sent away for good, whatever it is booted as; the true one comes back", async () => {
  const { key, client } = await quarantined("decided");
  await release("decided", "original");
  const copied = { code: 4003, reason: expect.stringMatching(/^host\.copy /) };
  expect(await refusal({ key, ...copy })).toEqual(copied);
  client[Symbol.dispose]();
  // Also when the true one is away: no takeover by waiting.
  expect(await refusal({ key, ...copy, bootId: "boot-c" })).toEqual(copied);
  const back = await joinLink(controller, { key, ...original, bootId: "boot-d" });
  expect(back.welcome.standing).toBe("approved");
  back.client[Symbol.dispose]();
});

test("when the newer one is the true one, the one that was there is closed, and kept out", async () => {
  const { key, client } = await quarantined("newer");
  await release("newer", "copy");
  expect(await client.closed).toEqual({ code: 4003, reason: expect.stringMatching(/^host\.copy /) });
  const right = await joinLink(controller, { key, ...copy });
  expect(right.welcome.standing).toBe("approved");
  expect(await refusal({ key, ...original })).toMatchObject({ code: 4003 });
  // Who chose wrong chooses again.
  await release("newer", "original");
  expect(await right.client.closed).toMatchObject({ code: 4003 });
  const again = await joinLink(controller, { key, ...original });
  expect(again.welcome.standing).toBe("approved");
  expect(await refusal({ key, ...copy })).toMatchObject({ code: 4003 });
  again.client[Symbol.dispose]();
});

test("a state directory that was copied whole has the same instance; then the boot tells them apart", async () => {
  const first = await joined("cloned");
  expect(await refusal({ key: first.key, instance: "original", bootId: "boot-b" })).toMatchObject({
    code: 4003,
  });
  const view = await hostOf("cloned");
  expect(view.suggest).toContain("--instance boot-a ");
  const several = await release<Problem>("cloned", "original");
  expect([several.status, several.body.code]).toEqual([400, "api.bad-request"]);
  expect(several.body.details).toEqual({ bootIds: ["boot-a", "boot-b"] });
  const unknown = await release<Problem>("cloned", "neither");
  expect([unknown.status, unknown.body.code]).toEqual([404, "api.not-found"]);
  expect((await hostOf("cloned")).standing).toBe("quarantined");
  await release("cloned", "boot-a");
  expect(await refusal({ key: first.key, instance: "original", bootId: "boot-b" })).toMatchObject({
    reason: expect.stringMatching(/^host\.copy /),
  });
  first.client[Symbol.dispose]();
  // The true one may be booted again.
  const back = await joinLink(controller, { key: first.key, instance: "original", bootId: "boot-c" });
  expect(back.welcome.standing).toBe("approved");
  back.client[Symbol.dispose]();
});

test("a copy on the same machine is found out when it comes back", async () => {
  const first = await joined("local");
  // Started from a copied directory it looks like the same agent started anew, and takes the place.
  const second = await joinLink(controller, { key: first.key, ...original });
  expect(await first.client.closed).toMatchObject({ code: 4002 });
  // But the one before was not gone.
  expect(
    await refusal({ key: first.key, ...original, previousSession: first.welcome.session }),
  ).toMatchObject({ code: 4003, reason: expect.stringMatching(/^host\.quarantined /) });
  expect((await second.client.next("welcome")).standing).toBe("quarantined");
  second.client[Symbol.dispose]();
});

test.concurrent("the far end of a half-open connection is silent, and its host comes back at once or within seconds", async () => {
  const first = await joined("half-open", { silent: true });
  // The same process: it knows its session.
  const again = await joinLink(controller, {
    ...{ key: first.key, ...original, previousSession: first.welcome.session, silent: true },
  });
  expect(await first.client.closed).toMatchObject({ code: 4002 });
  expect(again.client.received.filter(({ t }) => t === "probe")).toEqual([]);
  // The same machine, booted again: the old connection is asked, and does not answer.
  const startedAt = performance.now();
  using client = await openLink(controller);
  await prove(client, { key: first.key, ...original, bootId: "boot-b" });
  const welcome = await client.next("welcome");
  // Not after two and a half heartbeats.
  expect(performance.now() - startedAt).toBeLessThan(20_000);
  expect(welcome.standing).toBe("approved");
  expect(await again.client.closed).toMatchObject({ code: 4002 });
  expect((await hostOf("half-open")).standing).toBe("approved");
}, 60_000);

test.concurrent("who does not answer is not believed to be another machine", async () => {
  const first = await joined("asked");
  const closed = await refusal({ key: first.key, ...copy, silent: true });
  expect(closed.code).toBe(4430);
  expect((await hostOf("asked")).standing).toBe("approved");
  expect(first.client.socket.readyState).toBe(first.client.socket.OPEN);
  first.client[Symbol.dispose]();
}, 20_000);

test("an answer by another key, or to another question, ends the connection and takes nobody's place", async () => {
  const first = await joined("forged");
  using forger = await openLink(controller);
  await prove(forger, { key: first.key, ...copy, silent: true });
  forger.answersWith = newLinkKey();
  expect(await forger.closed).toMatchObject({
    ...{ code: 4401, reason: expect.stringMatching(/^link\.auth-failed /) },
  });
  using guesser = await openLink(controller);
  await prove(guesser, { key: first.key, ...copy, silent: true });
  await guesser.next("probe");
  guesser.send({ t: "proof", nonce: new Uint8Array(32), signature: new Uint8Array(64) });
  expect(await guesser.closed).toMatchObject({ code: 4400 });
  expect((await hostOf("forged")).standing).toBe("approved");
  expect(first.client.socket.readyState).toBe(first.client.socket.OPEN);
  first.client[Symbol.dispose]();
});

test("a host in quarantine is not approved or rejected, but it can be revoked; a released one is not released again", async () => {
  const { client } = await quarantined("stubborn");
  const change = (verb: string) =>
    controller.call<Problem>("POST", `/v1/hosts/stubborn/${verb}`, { json: {} });
  expect((await change("approve")).body.code).toBe("host.quarantined");
  expect((await change("reject")).body.code).toBe("host.not-pending");
  expect((await controller.call("POST", "/v1/hosts/stubborn/revoke")).status).toBe(200);
  expect(await client.closed).toMatchObject({ code: 4403 });
  const plain = await joined("plain");
  const never = await release<Problem>("plain", "original");
  expect([never.status, never.body.code]).toEqual([409, "host.not-quarantined"]);
  plain.client[Symbol.dispose]();
});

test("one that waits for approval gets nothing by having a copy", async () => {
  const { token } = (
    await controller.call<{ token: string }>("POST", "/v1/join-tokens", { json: { approve: "manual" } })
  ).body;
  const key = newLinkKey();
  const first = await joinLink(controller, { key, joinToken: token, name: "undecided", ...original });
  expect(await refusal({ key, ...copy })).toMatchObject({ code: 4003 });
  expect(await hostOf("undecided")).toMatchObject({
    ...{ standing: "pending", instances: [{ instance: "original" }, { instance: "copy" }] },
    ...{ reason: expect.stringContaining("several machines"), suggest: "bedplate host reject undecided" },
  });
  await submit(controller, documentOf(first.host));
  await quiet();
  expect(first.client.received.filter(({ t }) => t === "offer")).toEqual([]);
  first.client[Symbol.dispose]();
});

test("a quarantine outlasts the controller, and a third connection of the true one is told of it", async () => {
  const { key, client } = await quarantined("lasting");
  client[Symbol.dispose]();
  await controller.restart();
  expect((await hostOf("lasting")).standing).toBe("quarantined");
  const back = await joinLink(controller, { key, ...original });
  expect(back.welcome.standing).toBe("quarantined");
  back.client[Symbol.dispose]();
});
