// What hosts say of their executors and audits, over real connections: held against their keys, kept, signed back, and an
// alarm where it should not be so.
import { generateKeyPairSync, sign } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { alarmsMax } from "../../controller/store/alarms.ts";
import { storeLimits } from "../../controller/store/store.ts";
import type {
  ApiEvent,
  AuditChainView,
  AuditEntry,
  AuditHeadList,
  HostView,
  RotationView,
  StatusView,
} from "../../protocol/api.ts";
import { type AuditHead, auditHeadBytes } from "../../protocol/audit.ts";
import {
  attestationProofBytes,
  type ExecutorIdentity,
  type HostIdentity,
  identityDigest,
  linkProofOfAttestation,
} from "../../protocol/identity.ts";
import { hostIdOf } from "../../protocol/link-proof.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { fingerprintOf, parsePublicKey } from "../../protocol/ssh-keys.ts";
import { publicKeyLine, type SigningKey, signMessage } from "../../protocol/ssh-sign.ts";
import { verifySignature } from "../../protocol/sshsig.ts";
import { type TestController, testController } from "../support/controller.ts";
import { EventReader } from "../support/event-reader.ts";
import {
  joinLink,
  type LinkClient,
  type LinkKey,
  newLinkKey,
  openLink,
  prove,
} from "../support/link-client.ts";

let controller: TestController;
let events: EventReader;
beforeAll(async () => {
  controller = await testController();
  events = new EventReader(controller.client, "/v1/events", {
    authorization: `Bearer ${controller.client.token}`,
  });
});
afterAll(async () => {
  events[Symbol.dispose]();
  await controller[Symbol.asyncDispose]();
});

const newKey = (): SigningKey => {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  return {
    publicKey: Uint8Array.from(publicKey.export({ format: "der", type: "spki" }).subarray(-32)),
    sign: (data) => Uint8Array.from(sign(null, data, privateKey)),
  };
};
const lineOf = (key: SigningKey) => publicKeyLine(key.publicKey, "bedplate-attestation");

async function identityOf(
  link: LinkKey,
  attestation: SigningKey,
  more: Partial<HostIdentity> = {},
): Promise<HostIdentity> {
  const host = await hostIdOf(link.publicKey);
  const own: ExecutorIdentity = {
    ...{ bedplate: "identity/1", host, attestationKey: lineOf(attestation), privilegeSplit: "present" },
    proof: await signMessage(attestation, "bedplate-identity", attestationProofBytes(host)),
    ...{ policyState: "present", policyDigest: "cd".repeat(32), hostname: "h1", chassisSerial: "S1" },
  };
  const message = linkProofOfAttestation(own.attestationKey);
  return { ...own, linkSignature: await signMessage(link, "bedplate-identity", message), ...more };
}

async function headOf(host: string, key: SigningKey, seq: number, chain = "a"): Promise<AuditHead> {
  const head = { seq, hash: chain.repeat(56) + seq.toString(16).padStart(8, "0") };
  return { ...head, signature: await signMessage(key, "bedplate-audit", auditHeadBytes(host, head)) };
}

async function joined(name: string) {
  const key = newLinkKey();
  const { client, host, welcome } = await joinLink(controller, {
    ...{ key, joinToken: await controller.joinToken(), name },
  });
  let seq = 0;
  const send = async (...bodies: RecordBody[]) => {
    for (const body of bodies) client.send({ t: "record", seq: ++seq, at: 0, body });
    let acknowledged = 0;
    while (acknowledged < seq) acknowledged = (await client.next("ack")).records;
  };
  return { key, client, host, welcome, send };
}
const viewOf = async (host: string) => (await controller.call<HostView>("GET", `/v1/hosts/${host}`)).body;
const headsOf = async (host: string) =>
  (await controller.call<AuditHeadList>("GET", `/v1/hosts/${host}/audit-heads`)).body;
const eventsOf = (host: string) =>
  events.events.map(({ data }) => data as ApiEvent).filter(({ id }) => id === host);
const until = (host: string, event: string) =>
  events.until(() => eventsOf(host).some((each) => each.event === event));
const alarmsOf = async (host: string) =>
  (await controller.call<{ entries: AuditEntry[] }>("GET", "/v1/audit?limit=1000")).body.entries
    .filter(({ object, method }) => object === host && method === "ALARM")
    .map(({ code }) => code);
const bodyOf = (identity: HostIdentity): RecordBody => ({ type: "identity", identity });
const recordOf = (head: AuditHead): RecordBody => ({ type: "audit-head", ...head });
const countersigned = (client: LinkClient) => client.received.filter(({ t }) => t === "audit-head");

test("an identity that both keys vouch for is shown, and the next welcome names it", async () => {
  const { key, client, host, welcome, send } = await joined("known");
  expect(welcome.identity).toBeUndefined();
  expect((await viewOf(host)).identity).toBeNull();
  const attestation = newKey();
  const identity = await identityOf(key, attestation);
  await send(bodyOf(identity));
  const view = await viewOf(host);
  expect(view.identity).toEqual({
    ...identity,
    fingerprint: await fingerprintOf(parsePublicKey(lineOf(attestation))),
    since: expect.any(Number),
  });
  expect(view.linkKey).toBe(Buffer.from(key.publicKey).toString("hex"));
  await until(host, "identity");
  client[Symbol.dispose]();
  const again = await joinLink(controller, { key });
  expect(again.welcome.identity).toBe(await identityDigest(identity));
  again.client[Symbol.dispose]();
  expect(await alarmsOf(host)).toEqual([]);
});

test("of an identity only what is known of one is kept: the list of hosts grows by nothing else", async () => {
  const { key, client, host, send } = await joined("padded");
  const identity = await identityOf(key, newKey());
  await send(bodyOf({ ...identity, more: "x".repeat(500_000) } as HostIdentity));
  expect((await viewOf(host)).identity).toMatchObject(identity);
  expect((await controller.call("GET", "/v1/hosts")).bytes.length).toBeLessThan(100_000);
  client[Symbol.dispose]();
});

test("what a key does not vouch for is acknowledged and not kept", async () => {
  const { key, client, host, send } = await joined("forged");
  const [attestation, other] = [newKey(), newKey()];
  const right = await identityOf(key, attestation);
  const theirs = await identityOf(newLinkKey(), attestation);
  for (const wrong of [
    { ...right, proof: (await identityOf(key, other)).proof },
    { ...right, linkSignature: theirs.linkSignature },
    { ...right, attestationKey: lineOf(other) },
    theirs,
    { ...theirs, host },
    { ...right, proof: "" },
    { ...right, attestationKey: "ssh-ed25519 AAAA" },
    { ...right, attestationKey: "ssh-rsa AAAA" },
  ])
    await send(bodyOf(wrong));
  expect((await viewOf(host)).identity).toBeNull();
  await send(recordOf(await headOf(host, attestation, 1)));
  expect((await viewOf(host)).auditHead).toBeNull();
  expect(client.socket.readyState).toBe(client.socket.OPEN);
  await send(bodyOf(right));
  expect((await viewOf(host)).identity).toMatchObject({ hostname: "h1" });
  client[Symbol.dispose]();
});

test("another attestation key is an alarm; another name or chassis is drift and locks nobody out", async () => {
  const { key, client, host, send } = await joined("changes");
  const first = newKey();
  await send(bodyOf(await identityOf(key, first)));
  await send(bodyOf(await identityOf(key, first, { policyDigest: "ef".repeat(32) })));
  await send(bodyOf(await identityOf(key, first, { policyDigest: "ef".repeat(32) })));
  await until(host, "identity");
  expect(eventsOf(host).filter(({ event }) => event === "drift")).toEqual([]);
  await send(bodyOf(await identityOf(key, first, { hostname: "h2" })));
  await until(host, "drift");
  await send(bodyOf(await identityOf(key, first, { hostname: "h2", chassisSerial: null })));
  expect(await alarmsOf(host)).toEqual([]);
  const second = newKey();
  await send(bodyOf(await identityOf(key, second, { hostname: "h2", chassisSerial: null })));
  await until(host, "key-changed");
  expect(await alarmsOf(host)).toEqual(["host.key-changed"]);
  expect(eventsOf(host).filter(({ event }) => event === "drift")).toHaveLength(2);
  expect(eventsOf(host).filter(({ event }) => event === "identity")).toHaveLength(5);
  expect((await viewOf(host)).standing).toBe("approved");
  client[Symbol.dispose]();
});

test("audit heads are kept, signed back at once, and the furthest again at the next welcome", async () => {
  const { key, client, host, welcome, send } = await joined("audited");
  const attestation = newKey();
  const heads = await Promise.all([1, 4, 9].map((seq) => headOf(host, attestation, seq)));
  // In one piece with the identity that they are held against.
  await send(bodyOf(await identityOf(key, attestation)), ...heads.map(recordOf));
  const { auditKey } = (await controller.call<StatusView>("GET", "/v1/status")).body;
  expect(welcome.auditKey).toBe(auditKey);
  for (const head of heads) {
    const back = await client.next("audit-head");
    expect([back.seq, back.hash]).toEqual([head.seq, head.hash]);
    await verifySignature(back.signature, {
      ...{ namespace: "bedplate-audit", message: auditHeadBytes(host, head) },
      keys: [parsePublicKey(auditKey)],
    });
  }
  const kept = await headsOf(host);
  expect(kept.auditKey).toBe(auditKey);
  expect(kept.heads.map(({ seq }) => seq)).toEqual([9, 4, 1]);
  expect(kept.heads[0]).toMatchObject(heads[2]!);
  expect((await viewOf(host)).auditHead).toMatchObject({ seq: 9, hash: heads[2]!.hash });
  await controller.restart();
  const again = await joinLink(controller, { key });
  expect(again.welcome.auditKey).toBe(auditKey);
  expect((await again.client.next("audit-head")).seq).toBe(9);
  again.client[Symbol.dispose]();
  client[Symbol.dispose]();
  events[Symbol.dispose]();
  events = new EventReader(controller.client, "/v1/events", {
    authorization: `Bearer ${controller.client.token}`,
  });
});

test("an audit that forked or went back is an alarm, told of once, explained, and never signed", async () => {
  const { key, client, host, send } = await joined("broken");
  const attestation = newKey();
  await send(bodyOf(await identityOf(key, attestation)));
  await send(recordOf(await headOf(host, attestation, 5)), recordOf(await headOf(host, attestation, 9)));
  await send(recordOf(await headOf(host, attestation, 9)));
  expect(await alarmsOf(host)).toEqual([]);
  client.received.length = 0;
  await send(recordOf(await headOf(host, attestation, 9, "b")));
  expect(await alarmsOf(host)).toEqual(["audit.broken"]);
  await until(host, "audit-broken");
  await send(recordOf(await headOf(host, attestation, 7, "b")));
  expect(countersigned(client)).toEqual([]);
  expect(await alarmsOf(host)).toEqual(["audit.broken"]);
  expect(await viewOf(host)).toMatchObject({
    ...{ reason: expect.stringMatching(/^audit\.broken /), auditHead: { seq: 9 } },
    suggest: expect.stringContaining("bedplate audit verify"),
  });
  // Set up anew, with a key of its own, it begins anew: that is an alarm of its own.
  const fresh = newKey();
  await send(bodyOf(await identityOf(key, fresh)), recordOf(await headOf(host, fresh, 1)));
  expect(await viewOf(host)).toMatchObject({ reason: null, auditHead: { seq: 1 } });
  expect(await alarmsOf(host)).toEqual(["host.key-changed", "audit.broken"]);
  client[Symbol.dispose]();
});

test("a head by another key, or of another host, has no effect", async () => {
  const { key, client, host, send } = await joined("signed");
  const attestation = newKey();
  await send(bodyOf(await identityOf(key, attestation)));
  const elsewhere = await headOf("ef".repeat(32), attestation, 1);
  const right = await headOf(host, attestation, 1);
  for (const wrong of [
    await headOf(host, newKey(), 1),
    elsewhere,
    { ...right, seq: 2 },
    { ...right, hash: "0".repeat(64) },
    { ...right, signature: "" },
  ])
    await send(recordOf(wrong));
  expect((await headsOf(host)).heads).toEqual([]);
  expect(countersigned(client)).toEqual([]);
  expect(await alarmsOf(host)).toEqual([]);
  client[Symbol.dispose]();
});

test("heads are kept within bounds, the newest of them", async () => {
  const { key, client, host, send } = await joined("bounded");
  const attestation = newKey();
  await send(bodyOf(await identityOf(key, attestation)));
  const heads = await Promise.all(Array.from({ length: 300 }, (_, i) => headOf(host, attestation, i + 1)));
  await send(...heads.map(recordOf));
  const kept = (await headsOf(host)).heads.map(({ seq }) => seq);
  expect([kept.length, kept[0], kept.at(-1)]).toEqual([256, 300, 45]);
  expect((await controller.call("GET", `/v1/hosts/${host}/audit-heads?limit=0`)).status).toBe(400);
  const few = await controller.call<AuditHeadList>("GET", `/v1/hosts/${host}/audit-heads?limit=3`);
  expect(few.body.heads.map(({ seq }) => seq)).toEqual([300, 299, 298]);
  client[Symbol.dispose]();
}, 20_000);

test("a host that changes its key again and again fills neither the audit nor the store; alarms are of the chain", async () => {
  const { key, client, host, send } = await joined("restless");
  const changes = 24;
  for (let i = 0; i < changes; i++) {
    const attestation = newKey();
    await send(bodyOf(await identityOf(key, attestation)), recordOf(await headOf(host, attestation, 1)));
  }
  const { entries } = (await controller.call<{ entries: AuditEntry[] }>("GET", "/v1/audit?limit=1000")).body;
  const alarms = entries.filter(({ object, method }) => object === host && method === "ALARM");
  expect(alarms.length).toBeGreaterThan(0);
  expect(alarms.length).toBeLessThanOrEqual(alarmsMax.count);
  expect(alarms.every(({ hash }) => hash !== null)).toBe(true);
  expect(entries.map(({ index }) => index)).toEqual(
    [...new Set(entries.map(({ index }) => index))].sort((a, b) => b - a),
  );
  expect((await controller.call<AuditChainView>("GET", "/v1/audit/verify")).body.faults).toEqual([]);
  const { heads } = await headsOf(host);
  expect(heads.length).toBeLessThanOrEqual(storeLimits.auditKeysMax);
  expect(heads.length).toBeGreaterThan(0);
  // The key that it has now is still served.
  expect((await viewOf(host)).auditHead).toMatchObject({ seq: 1, hash: heads[0]!.hash });
  client[Symbol.dispose]();
});

test("a session that began while another still told the identity knows it too", async () => {
  const { key, client, host, send } = await joined("overlapping");
  client.answersWith = undefined;
  using second = await openLink(controller);
  await prove(second, { key, instance: "restarted", bootId: "boot-2" });
  // The host was read by then; the one before is still heard, and does not answer who it is.
  await second.next("probe");
  const attestation = newKey();
  const identity = await identityOf(key, attestation);
  await send(bodyOf(identity));
  expect((await second.next("welcome")).identity).toBe(await identityDigest(identity));
  second.send({ t: "record", seq: 1, at: 0, body: recordOf(await headOf(host, attestation, 1)) });
  await second.next("ack");
  expect(countersigned(second)).toMatchObject([{ seq: 1 }]);
}, 20_000);

test("a change of the authority is known to an agent when it says so, not when it was sent", async () => {
  await using own = await testController();
  const waiting = async () => {
    const { body } = await own.call<RotationView>("GET", "/v1/authority");
    return body.waiting.map(({ name }) => name);
  };
  const join = async (name: string) =>
    joinLink(own, { key: newLinkKey(), joinToken: await own.joinToken(), name });
  const [keeps, refuses] = [await join("keeps"), await join("refuses")];
  const rotating = own.call<RotationView>("POST", "/v1/authority/rotate");
  for (const { client } of [keeps, refuses]) await client.next("authority");
  keeps.client.send({ t: "trusts", authorities: ["ab".repeat(32)] });
  const begun = (await own.call<RotationView>("GET", "/v1/authority")).body;
  expect(await waiting()).toEqual(["keeps", "refuses"]);
  keeps.client.send({ t: "trusts", authorities: begun.authorities });
  expect((await rotating).body.waiting.map(({ name }) => name)).toEqual(["refuses"]);
  expect(await waiting()).toEqual(["refuses"]);
  for (const { client } of [keeps, refuses]) client[Symbol.dispose]();
});
