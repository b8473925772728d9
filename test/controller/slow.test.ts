// Peers that do not read, and hostile requests to upgrade: bounded, told, and never in others' way.
import { connect } from "node:tls";
import { expect, test } from "vitest";
import { textOf } from "../../protocol/bytes.ts";
import { tlsServerName } from "../../protocol/messages.ts";
import { testClock } from "../support/clock.ts";
import { documentOf, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { EventReader } from "../support/event-reader.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";

/** A command document of about 200 KiB. */
const large = (host: string) => documentOf(host).padEnd(200 * 1024, " ");
const commands = 60;

test("offers wait for a slow reader instead of piling up, and all come in order", async () => {
  await using controller = await testController();
  const { client, host } = await joinLink(controller, {
    key: newLinkKey(),
    joinToken: await controller.joinToken(),
  });
  client.socket.pause();
  const ids: string[] = [];
  for (let i = 0; i < commands; i++) ids.push((await submit(controller, large(host))).body.id);
  const waiting = async () =>
    (await controller.call<{ commands: unknown[] }>("GET", "/v1/commands?state=waiting")).body.commands
      .length;
  // More than the kernel's buffers hold was not even taken from the store.
  await expect.poll(waiting, { timeout: 15_000 }).toBeGreaterThan(10);
  client.socket.resume();
  const offered: string[] = [];
  for (let i = 0; i < commands; i++)
    offered.push((JSON.parse(textOf((await client.next("offer")).document)) as { id: string }).id);
  expect(offered).toEqual(ids);
  expect(await waiting()).toBe(0);
  client[Symbol.dispose]();
}, 30_000);

test("who leaves more than the bound unread for 30 s is closed with 4429", async () => {
  const clock = testClock();
  await using controller = await testController({ clock, heartbeatMs: 60_000 });
  const { client, host } = await joinLink(controller, {
    key: newLinkKey(),
    joinToken: await controller.joinToken(),
  });
  client.socket.pause();
  for (let i = 0; i < commands; i++) await submit(controller, large(host));
  const metrics = async () => (await controller.call<string>("GET", "/metrics")).body;
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(await metrics()).not.toContain('reason="slowConsumer"');
  clock.advance(31_000);
  await expect
    .poll(metrics, { timeout: 20_000 })
    .toContain('bedplate_controller_link_closed_total{reason="slowConsumer"} 1');
  client[Symbol.dispose]();
}, 30_000);

test("who pings and never reads makes the controller keep nothing", async () => {
  await using controller = await testController();
  const { client } = await joinLink(controller, {
    key: newLinkKey(),
    joinToken: await controller.joinToken(),
  });
  client.socket.pause();
  const before = process.memoryUsage().rss;
  const payload = Buffer.alloc(125);
  for (let i = 0; i < 200; i++) {
    for (let j = 0; j < 1000; j++) client.socket.ping(payload);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await expect.poll(() => client.socket.bufferedAmount, { timeout: 10_000 }).toBe(0);
  expect(process.memoryUsage().rss - before).toBeLessThan(150 << 20);
  expect((await controller.call("GET", "/v1/status")).status).toBe(200);
  client[Symbol.dispose]();
}, 30_000);

test("a follower of live telemetry that does not read is ended, not fed without end", async () => {
  await using controller = await testController();
  const { client, host } = await joinLink(controller, {
    key: newLinkKey(),
    joinToken: await controller.joinToken(),
  });
  using follower = new EventReader(controller.client, `/v1/hosts/${host}/telemetry/live`, {
    authorization: `Bearer ${controller.client.token}`,
  });
  await follower.until(({ status }) => status === 200);
  follower.pause();
  const help = "x".repeat(500);
  const series = Array.from({ length: 1500 }, (_, i) => ({
    name: `s${i}`,
    labels: {},
    type: "gauge" as const,
    scale: 1,
    help,
  }));
  const sent = 40;
  for (let id = 1; id <= sent; id++) client.send({ t: "dictionary", id, series });
  // In order, so that it is answered when all before it was handled.
  client.send({ t: "record", seq: 1, at: 0, body: { type: "gap", from: 1, to: 1, count: 1 } });
  await client.next("ack", 20_000);
  follower.resume();
  await follower.until(({ ended }) => ended, 10_000);
  expect(follower.events.length).toBeLessThan(sent);
  expect((await controller.call("GET", "/v1/status")).status).toBe(200);
  client[Symbol.dispose]();
}, 40_000);

async function upgrade(controller: TestController, request: string): Promise<string> {
  const address = new URL(controller.url);
  const socket = connect({
    host: address.hostname,
    port: Number(address.port),
    ca: controller.ca,
    servername: tlsServerName,
  });
  socket.on("error", () => {});
  socket.write(request);
  const timer = setTimeout(() => socket.destroy(), 2000);
  let text = "";
  for await (const chunk of socket.setEncoding("latin1") as AsyncIterable<string>) {
    text += chunk;
    if (text.includes("\r\n\r\n")) break;
  }
  clearTimeout(timer);
  socket.destroy();
  return text.split("\r\n")[0]!;
}

test("what comes in one piece with the upgrade is bounded like the rest", async () => {
  await using controller = await testController();
  const address = new URL(controller.url);
  const socket = connect({
    host: address.hostname,
    port: Number(address.port),
    ca: controller.ca,
    servername: tlsServerName,
  });
  socket.on("error", () => {});
  const head =
    "GET /v1/link HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: bedplate.v1\r\n\r\n";
  const frame = Uint8Array.from([0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4]);
  socket.write(Buffer.concat([Buffer.from(head), frame]));
  let text = "";
  for await (const chunk of socket.setEncoding("latin1") as AsyncIterable<string>) {
    text += chunk;
    if (text.includes("frame.too-large")) break;
  }
  socket.destroy();
  // In the close frame the reason follows the code's two bytes.
  const code = String.fromCharCode(4413 >> 8, 4413 & 0xff);
  expect(text).toContain(`${code}frame.too-large `);
});

test("hostile upgrade requests are answered and change nothing", async () => {
  await using controller = await testController();
  const ask = (path: string, headers = "") =>
    upgrade(
      controller,
      `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${headers}\r\n`,
    );
  const right = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
  const protocol = "Sec-WebSocket-Protocol: bedplate.v1\r\n";
  expect(await ask("/v1/link", right + protocol)).toContain("101");
  expect(await ask("/v1/link", right)).toContain("400");
  expect(await ask("/v1/link", protocol)).toContain("400");
  expect(
    await ask(
      "/v1/link",
      `${protocol}Sec-WebSocket-Version: 7\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n`,
    ),
  ).toMatch(/400|426/);
  expect(await ask("/v1/link", `${right}Sec-WebSocket-Protocol: bedplate.v2\r\n`)).toContain("400");
  for (const path of [
    "/",
    "//[",
    "http://[",
    "/v1/hosts",
    "/v1/link/../hosts",
    "*",
    "/%00",
    `/${"x".repeat(4000)}`,
  ]) {
    expect(await ask(path, right + protocol)).toMatch(/ 40[04] /);
  }
  expect((await controller.call("GET", "/v1/status")).status).toBe(200);
});
