// Joining: tokens, keys, proofs, and what each wrong one gets.
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { HostView } from "../../protocol/api.ts";
import { encodeFrame } from "../../protocol/frames.ts";
import { formatJoinToken, parseJoinToken } from "../../protocol/join-token.ts";
import { linkProofBytes } from "../../protocol/link-proof.ts";
import { type TestController, testController } from "../support/controller.ts";
import { helloOf, joinLink, newLinkKey, openLink, prove } from "../support/link-client.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

async function refusalOf(
  identity: Parameters<typeof prove>[1],
): Promise<{ code: number; reason: string; goaway: string }> {
  using client = await openLink(controller);
  await prove(client, identity);
  const goaway = await client.next("goaway");
  return { ...(await client.closed), goaway: goaway.reason };
}

test("a host joins with a token, is online, and comes back without it", async () => {
  const key = newLinkKey();
  const joinToken = await controller.joinToken();
  const first = await joinLink(controller, { key, joinToken, hostname: "rack 1/node.example" });
  expect(first.welcome.host).toBe(first.host);
  expect(first.welcome.name).toBe("rack-1-node.example");
  expect(first.welcome.records).toBe(0);
  const view = (await controller.call<HostView>("GET", `/v1/hosts/${first.host.slice(0, 8)}`)).body;
  expect(view).toMatchObject({ id: first.host, connection: "online", hostname: "rack 1/node.example" });
  first.client[Symbol.dispose]();

  const again = await joinLink(controller, { key });
  expect(again.welcome.name).toBe("rack-1-node.example");
  again.client[Symbol.dispose]();
  // The same key may show its token again, and gets the same answer.
  const repeated = await joinLink(controller, { key, joinToken });
  expect(repeated.welcome.host).toBe(first.host);
  repeated.client[Symbol.dispose]();
  const { hosts } = (await controller.call<{ hosts: HostView[] }>("GET", "/v1/hosts")).body;
  expect(hosts.filter((host) => host.id === first.host)).toHaveLength(1);
});

test("a second host of the same name gets a name of its own", async () => {
  const joinToken = await controller.joinToken({ uses: 2 });
  const one = await joinLink(controller, { key: newLinkKey(), joinToken, name: "twin" });
  const two = await joinLink(controller, { key: newLinkKey(), joinToken, name: "twin" });
  expect(one.welcome.name).toBe("twin");
  expect(two.welcome.name).toBe(`twin-${two.host.slice(0, 6)}`);
  one.client[Symbol.dispose]();
  two.client[Symbol.dispose]();
});

test("an unknown key without a token is refused", async () => {
  expect(await refusalOf({ key: newLinkKey() })).toMatchObject({
    code: 4401,
    reason: expect.stringMatching(/^link\.unknown-host /),
    goaway: expect.stringMatching(/^link\.unknown-host /),
  });
});

test("a token used up by another key is refused", async () => {
  const joinToken = await controller.joinToken();
  (await joinLink(controller, { key: newLinkKey(), joinToken })).client[Symbol.dispose]();
  expect(await refusalOf({ key: newLinkKey(), joinToken })).toMatchObject({
    code: 4403,
    reason: expect.stringMatching(/^enrol\.token-used /),
  });
});

test("two keys racing for one token: one joins", async () => {
  const joinToken = await controller.joinToken();
  const outcomes = await Promise.allSettled(
    [1, 2, 3].map(() => joinLink(controller, { key: newLinkKey(), joinToken })),
  );
  expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  for (const outcome of outcomes) if (outcome.status === "fulfilled") outcome.value.client[Symbol.dispose]();
});

test("wrong, altered, foreign and malformed tokens are refused", async () => {
  const right = parseJoinToken(await controller.joinToken());
  const wrong = [
    formatJoinToken({ ...right, secret: randomBytes(32).toString("base64url") }),
    formatJoinToken({ ...right, id: "0123456789abcdef" }),
    formatJoinToken({ ...right, caSha256: "0".repeat(64) }),
    "bedplate-join.nonsense",
  ];
  for (const joinToken of wrong) {
    expect(await refusalOf({ key: newLinkKey(), joinToken })).toMatchObject({
      code: 4403,
      reason: expect.stringMatching(/^enrol\.token-invalid /),
    });
  }
});

test("an expired token is refused, but not to the key that used it in time", async () => {
  const joinToken = await controller.joinToken({ ttlSeconds: 1, uses: 2 });
  const key = newLinkKey();
  (await joinLink(controller, { key, joinToken })).client[Symbol.dispose]();
  await new Promise((resolve) => setTimeout(resolve, 1100));
  expect(await refusalOf({ key: newLinkKey(), joinToken })).toMatchObject({
    code: 4403,
    reason: expect.stringMatching(/^enrol\.token-expired /),
  });
  (await joinLink(controller, { key, joinToken })).client[Symbol.dispose]();
});

test("a signature by another key is refused and uses up no token", async () => {
  const joinToken = await controller.joinToken();
  const [claimed, held] = [newLinkKey(), newLinkKey()];
  const forged = { publicKey: claimed.publicKey, sign: held.sign };
  expect(await refusalOf({ key: forged, joinToken })).toMatchObject({
    code: 4401,
    reason: expect.stringMatching(/^link\.auth-failed /),
  });
  (await joinLink(controller, { key: newLinkKey(), joinToken })).client[Symbol.dispose]();
});

test("a proof made for another connection is refused", async () => {
  const key = newLinkKey();
  (await joinLink(controller, { key, joinToken: await controller.joinToken() })).client[Symbol.dispose]();
  using victim = await openLink(controller);
  using attacker = await openLink(controller);
  // The attacker stands between: it passes the victim's very messages on, and the challenge back. Only the exporter differs.
  const nonce = Uint8Array.from(randomBytes(32));
  const hello = encodeFrame(helloOf({ key }, nonce));
  attacker.sendRaw(hello);
  const challenge = await attacker.next("challenge");
  const proof = { agentNonce: nonce, controllerNonce: challenge.nonce, hello };
  attacker.send({
    t: "auth",
    signature: key.sign(await linkProofBytes({ ...proof, exported: victim.exported() })),
  });
  expect(await attacker.closed).toMatchObject({
    code: 4401,
    reason: expect.stringMatching(/^link\.auth-failed /),
  });
  // The same with this connection's own exporter passes: it was the exporter that was refused.
  using honest = await openLink(controller);
  honest.sendRaw(hello);
  const own = await honest.next("challenge");
  honest.send({
    t: "auth",
    signature: key.sign(
      await linkProofBytes({
        agentNonce: nonce,
        controllerNonce: own.nonce,
        hello,
        exported: honest.exported(),
      }),
    ),
  });
  await honest.next("welcome");
});

test("a hello changed on the way is refused", async () => {
  const key = newLinkKey();
  (await joinLink(controller, { key, joinToken: await controller.joinToken() })).client[Symbol.dispose]();
  using client = await openLink(controller);
  const nonce = Uint8Array.from(randomBytes(32));
  const signed = encodeFrame(helloOf({ key }, nonce));
  client.sendRaw(encodeFrame(helloOf({ key, instance: "another" }, nonce)));
  const challenge = await client.next("challenge");
  client.send({
    t: "auth",
    signature: key.sign(
      await linkProofBytes({
        agentNonce: nonce,
        controllerNonce: challenge.nonce,
        exported: client.exported(),
        hello: signed,
      }),
    ),
  });
  expect(await client.closed).toMatchObject({ code: 4401 });
});

test("no common version is told with its own code", async () => {
  using client = await openLink(controller);
  client.send({ ...helloOf({ key: newLinkKey() }, new Uint8Array(32)), versions: { min: 2, max: 9 } });
  expect(await client.closed).toMatchObject({
    code: 4409,
    reason: expect.stringMatching(/^link\.version /),
  });
});

test("without the subprotocol there is no connection", async () => {
  await expect(openLink(controller, { protocols: ["bedplate.v0"] })).rejects.toThrow(/400/);
  await expect(openLink(controller, { protocols: [] })).rejects.toThrow(/400/);
});

test("a newer connection of the same agent takes the place of the one before", async () => {
  const key = newLinkKey();
  const first = await joinLink(controller, { key, joinToken: await controller.joinToken() });
  const second = await joinLink(controller, { key });
  expect(await first.client.closed).toMatchObject({ code: 4002 });
  const view = (await controller.call<HostView>("GET", `/v1/hosts/${second.host}`)).body;
  expect(view.connection).toBe("online");
  second.client[Symbol.dispose]();
});

test("what people are shown of a machine to type in a command is no line of a shell, and not nothing", async () => {
  const key = newLinkKey();
  (await joinLink(controller, { key, joinToken: await controller.joinToken() })).client[Symbol.dispose]();
  const wrongs = [{ instance: "$(reboot)" }, { instance: "a; reboot #" }, { instance: "" }, { bootId: "" }];
  for (const wrong of [...wrongs, { bootId: "\u001b[2J" }]) {
    using client = await openLink(controller);
    client.sendRaw(encodeFrame(helloOf({ key, ...wrong }, Uint8Array.from(randomBytes(32)))));
    const reason = expect.stringMatching(/^message\.invalid /);
    expect(await client.closed).toMatchObject({ code: 4400, reason });
  }
});
