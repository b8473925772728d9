// Hostile frames: each gets its documented close code, the controller goes on serving, and its memory stays bounded.
import { connect } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { encodeFrame } from "../../protocol/frames.ts";
import { limits } from "../../protocol/limits.ts";
import { tlsServerName } from "../../protocol/messages.ts";
import { type TestController, testController } from "../support/controller.ts";
import {
  helloOf,
  type Joined,
  joinLink,
  type LinkKey,
  newLinkKey,
  openLink,
} from "../support/link-client.ts";

let controller: TestController;
let key: LinkKey;
beforeAll(async () => {
  controller = await testController();
  key = newLinkKey();
  (await joinLink(controller, { key, joinToken: await controller.joinToken() })).client[Symbol.dispose]();
});
afterAll(() => controller[Symbol.asyncDispose]());

const bytes = (...values: number[]) => Uint8Array.from(values);
const map = (...pairs: [string, Uint8Array][]) => {
  const parts = pairs.flatMap(([name, value]) => [
    bytes(0xa0 | name.length),
    new TextEncoder().encode(name),
    value,
  ]);
  return Buffer.concat([bytes(0x80 | pairs.length), ...parts]);
};

const hostile: [what: string, frame: Uint8Array | string, close: number, code: string][] = [
  ["a byte that is never used", bytes(0xc1), 4400, "frame.malformed"],
  ["nothing", bytes(), 4400, "frame.malformed"],
  ["a partial map", bytes(0x81, 0xa1, 0x74), 4400, "frame.malformed"],
  ["bytes left over", Buffer.concat([encodeFrame({ t: "x" }), bytes(0)]), 4400, "frame.malformed"],
  ["60,000 arrays within each other", new Uint8Array(60_000).fill(0x91), 4400, "frame.too-deep"],
  [
    "an extension type",
    map(["t", bytes(0xd4, 0x72, 0x40)], ["u", bytes(0xa1, 0x61)]),
    4400,
    "frame.extension",
  ],
  ["a key twice", map(["t", bytes(0xa1, 0x61)], ["t", bytes(0xa1, 0x62)]), 4400, "frame.bad-key"],
  ["a key that is a number", bytes(0x81, 0x01, 0x01), 4400, "frame.bad-key"],
  ["the key __proto__", map(["__proto__", bytes(0x80)]), 4400, "frame.bad-key"],
  ["an array of four thousand million values", bytes(0xdd, 0xff, 0xff, 0xff, 0xff), 4400, "frame.too-large"],
  ["a text frame", '{"t":"hello"}', 4400, "frame.malformed"],
  ["no message", encodeFrame([1, 2, 3]), 4400, "message.unknown"],
  ["an unknown message", encodeFrame({ t: "become-root" }), 4400, "message.unknown"],
  ["the message of an object's own property", encodeFrame({ t: "constructor" }), 4400, "message.unknown"],
  ["a message without its members", encodeFrame({ t: "hello" }), 4400, "message.invalid"],
];

for (const [what, frame, close, code] of hostile) {
  test(`before the proof, ${what} is closed with ${close} ${code}`, async () => {
    using client = await openLink(controller);
    client.sendRaw(frame);
    const goaway = await client.next("goaway");
    expect(await client.closed).toMatchObject({
      code: close,
      reason: expect.stringMatching(new RegExp(`^${code} `)),
    });
    expect(goaway.reason).toMatch(new RegExp(`^${code} `));
  });
  test(`after the welcome, ${what} is closed with ${close} ${code}`, async () => {
    const { client } = await joinLink(controller, { key });
    client.sendRaw(frame);
    expect(await client.closed).toMatchObject({
      code: close,
      reason: expect.stringMatching(new RegExp(`^${code} `)),
    });
  });
}

test("a controller's message, an early and a second hello are unexpected", async () => {
  for (const t of ["heartbeat", "record"] as const) {
    using client = await openLink(controller);
    client.send(
      t === "heartbeat"
        ? { t, at: 0, operations: [], outbox: { records: 0, recordBytes: 0, sampleBytes: 0 } }
        : { t, seq: 1, at: 0, body: { type: "gap", from: 1, to: 1, count: 1 } },
    );
    expect(await client.closed).toMatchObject({
      code: 4400,
      reason: expect.stringMatching(/^message\.unexpected /),
    });
  }
  using twice = await openLink(controller);
  const hello = helloOf({ key }, new Uint8Array(32));
  twice.send(hello);
  twice.send(hello);
  expect(await twice.closed).toMatchObject({
    code: 4400,
    reason: expect.stringMatching(/^message\.unexpected /),
  });
  const { client } = await joinLink(controller, { key });
  client.send(hello);
  expect(await client.closed).toMatchObject({
    code: 4400,
    reason: expect.stringMatching(/^message\.unexpected /),
  });
});

test("too large a message is closed with 4413: 64 KiB before the proof, 1 MiB after", async () => {
  using early = await openLink(controller);
  early.sendRaw(new Uint8Array(limits.frameBytesBeforeAuthMax + 1));
  expect(await early.closed).toMatchObject({ code: 4413 });

  const { client } = await joinLink(controller, { key });
  client.sendRaw(new Uint8Array(limits.frameBytesMax + 1));
  expect(await client.closed).toMatchObject({ code: 4413 });

  // The largest message is taken and judged by what it says.
  const whole = await joinLink(controller, { key });
  const padding = new Uint8Array(limits.frameBytesMax - 64);
  const message = encodeFrame({ t: "unheard-of", padding });
  expect(message.length).toBeLessThanOrEqual(limits.frameBytesMax);
  whole.client.sendRaw(message);
  expect(await whole.client.closed).toMatchObject({
    code: 4400,
    reason: expect.stringMatching(/^message\.unknown/),
  });
});

test("a message too large in many small fragments is closed with 4413 too", async () => {
  using client = await openLink(controller);
  for (let i = 0; i < 70 && client.socket.readyState === client.socket.OPEN; i++) {
    client.socket.send(new Uint8Array(1024), { fin: false });
  }
  expect(await client.closed).toMatchObject({ code: 4413 });
});

test("who says nothing is closed with 4408 after five seconds, and a slow proof too", async () => {
  using silent = await openLink(controller);
  using slow = await openLink(controller);
  slow.send(helloOf({ key }, new Uint8Array(32)));
  await slow.next("challenge");
  const started = performance.now();
  expect(await silent.closed).toMatchObject({ code: 4408 });
  expect(await slow.closed).toMatchObject({ code: 4408 });
  expect(performance.now() - started).toBeGreaterThan(4000);
}, 15_000);

test("a flood before the proof leaves the controller serving and its memory bounded", async () => {
  globalThis.gc?.();
  const before = process.memoryUsage().rss;
  const started: Promise<unknown>[] = [];
  // Each announces a message of a gigabyte and sends what it can of it.
  for (let i = 0; i < 64; i++) started.push(flood());
  await Promise.all(started);
  const grown = process.memoryUsage().rss - before;
  expect(grown).toBeLessThan(256 << 20);
  const { client, welcome } = await joinLink(controller, { key });
  expect(welcome.t).toBe("welcome");
  client[Symbol.dispose]();

  async function flood(): Promise<void> {
    const address = new URL(controller.url);
    const socket = connect({
      host: address.hostname,
      port: Number(address.port),
      ca: controller.ca,
      servername: tlsServerName,
    });
    socket.on("error", () => {});
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.write(
      "GET /v1/link HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: bedplate.v1\r\n\r\n",
    );
    await new Promise((resolve) => socket.once("data", resolve));
    socket.write(Uint8Array.from([0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]));
    const chunk = new Uint8Array(1 << 20);
    for (let i = 0; i < 8 && !socket.destroyed; i++) socket.write(chunk);
    await closed;
  }
}, 30_000);

test("more connections without proof than the bound are answered 503, and places come free again", async () => {
  const clients = await Promise.allSettled(Array.from({ length: 270 }, () => openLink(controller)));
  const refused = clients.filter(({ status }) => status === "rejected");
  expect(refused.length).toBeGreaterThan(0);
  expect(String((refused[0] as PromiseRejectedResult).reason)).toContain("503");
  const open = clients.flatMap((client) => (client.status === "fulfilled" ? [client.value] : []));
  expect(open.length).toBeLessThanOrEqual(256);
  for (const client of open) client[Symbol.dispose]();
  await Promise.all(open.map(({ closed }) => closed));
  let joined: Joined | undefined;
  for (let attempt = 0; attempt < 20 && joined === undefined; attempt++) {
    joined = await joinLink(controller, { key }).catch(() => undefined);
    if (joined === undefined) await new Promise((resolve) => setTimeout(resolve, 50));
  }
  expect(joined?.welcome.t).toBe("welcome");
  joined?.client[Symbol.dispose]();
}, 30_000);
