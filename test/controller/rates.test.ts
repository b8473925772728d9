// Before anyone has proved anything: how fast one address may knock, how long it may dawdle, and how little it is kept for it.
import { connect as connectTcp, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { expect, test } from "vitest";
import type { Problem } from "../../protocol/api.ts";
import { tlsServerName } from "../../protocol/messages.ts";
import { type TestClock, testClock } from "../support/clock.ts";
import { type TestController, testController } from "../support/controller.ts";
import { joinLink, newLinkKey, openLink, prove } from "../support/link-client.ts";

const portOf = (controller: TestController) => Number(new URL(controller.url).port);

/** Stands still, so that buckets do not fill by themselves. */
function stillClock(): TestClock {
  const clock = testClock();
  let ahead = 0;
  return {
    ...clock,
    monotonicMs: () => 1_000_000 + ahead,
    advance: (ms) => {
      ahead += ms;
    },
  };
}

const upgrade = (path = "/v1/link") =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: bedplate.v1\r\n\r\n`;

async function tls(controller: TestController): Promise<TLSSocket> {
  const socket = connectTls({
    ...{ host: "127.0.0.1", port: portOf(controller), ca: controller.ca, servername: tlsServerName },
  });
  socket.on("error", () => {});
  await new Promise<void>((resolve, reject) => {
    socket.once("secureConnect", resolve);
    socket.once("close", () => reject(new Error("closed before TLS")));
  });
  return socket;
}

async function askToLink(controller: TestController): Promise<string> {
  const socket = await tls(controller);
  socket.write(upgrade());
  const head = await new Promise<string>((resolve) => {
    let text = "";
    socket.setEncoding("latin1").on("data", (piece) => {
      text += piece;
      if (text.includes("\r\n\r\n")) resolve(text.slice(0, text.indexOf("\r\n\r\n")));
    });
    socket.once("close", () => resolve(text));
  });
  socket.destroy();
  return head;
}

test("an address that links too often is answered 503 with the time to wait, and let in when it has waited", async () => {
  const clock = stillClock();
  await using controller = await testController({ clock });
  const answers = new Map<string, number>();
  for (let round = 0; round < 54; round++) {
    const heads = await Promise.all(Array.from({ length: 10 }, () => askToLink(controller)));
    for (const head of heads) {
      const [line] = head.split("\r\n");
      answers.set(line!, (answers.get(line!) ?? 0) + 1);
      if (line!.includes("503")) expect(head).toMatch(/retry-after: 1$/im);
    }
  }
  expect(answers.get("HTTP/1.1 101 Switching Protocols")).toBe(512);
  expect(answers.get("HTTP/1.1 503 Service Unavailable")).toBe(28);
  clock.advance(1000);
  expect(await askToLink(controller)).toContain("101");
  const metrics = (await controller.call<string>("GET", "/metrics")).body;
  expect(metrics).toContain("bedplate_controller_link_refused_total 28");
}, 60_000);

test("a refused proof costs its address as much as many connections", async () => {
  const clock = stillClock();
  await using controller = await testController({ clock });
  for (let i = 0; i < 32; i++) {
    using client = await openLink(controller).catch(() => {
      throw new Error(`refused at ${i}`);
    });
    await prove(client, { key: newLinkKey() });
    expect((await client.closed).code).toBe(4401);
    if ((await askToLink(controller)).includes("503")) return expect(i).toBeGreaterThan(20);
  }
  throw new Error("never refused");
}, 30_000);

test("a copy of a host's key costs its address as much: the true host is not asked without end", async () => {
  await using controller = await testController({ clock: stillClock() });
  const key = newLinkKey();
  const joinToken = await controller.joinToken();
  const { client } = await joinLink(controller, { key, joinToken, instance: "original", bootId: "boot-a" });
  for (let i = 0; i < 40; i++) {
    using copy = await openLink(controller);
    await prove(copy, { key, instance: `copy-${i}`, bootId: "boot-b" });
    expect((await copy.closed).code).toBe(4003);
    if (!(await askToLink(controller)).includes("503")) continue;
    expect(i).toBeGreaterThan(20);
    return client[Symbol.dispose]();
  }
  throw new Error("never refused");
}, 30_000);

test("who knocks far too often is cut off before TLS, and costs no handshake", async () => {
  const clock = stillClock();
  await using controller = await testController({ clock });
  const knock = () =>
    new Promise<"open" | "cut">((resolve) => {
      const socket: Socket = connectTcp({ host: "127.0.0.1", port: portOf(controller) });
      socket.on("error", () => {});
      socket.once("close", () => resolve("cut"));
      // The server says nothing before the client does: still open after a while is taken on. In several turns: after one
      // on a busy machine, a close that has come may not have been seen.
      socket.once("connect", async () => {
        for (let turn = 0; turn < 5; turn++) await sleep(60);
        resolve("open");
        socket.destroy();
      });
    });
  const counts = { open: 0, cut: 0 };
  for (let round = 0; round < 12; round++)
    for (const end of await Promise.all(Array.from({ length: 100 }, knock))) counts[end] += 1;
  // The first connections were ours: client.json was not fetched over the network, so all are counted here.
  expect(counts).toEqual({ open: 1024, cut: 176 });
  clock.advance(1000);
  expect((await controller.call("GET", "/v1/status")).status).toBe(200);
}, 60_000);

test("who does not say what it wants is cut off within seconds, in TLS, in HTTP and in the link", async () => {
  await using controller = await testController();
  const startedAt = performance.now();
  const silentTcp = connectTcp({ host: "127.0.0.1", port: portOf(controller) });
  silentTcp.on("error", () => {});
  const silentTls = await tls(controller);
  const slowHead = await tls(controller);
  slowHead.write("GET /v1/link HTTP/1.1\r\nHost: x\r\n");
  const dripping = setInterval(() => slowHead.write("x-a: b\r\n"), 500);
  const silentLink = await openLink(controller);
  const ends = [silentTcp, silentTls, slowHead].map(
    (socket) =>
      new Promise<number>((resolve) => {
        socket.resume();
        socket.once("close", () => resolve(performance.now() - startedAt));
      }),
  );
  const closed = await silentLink.closed;
  expect(closed.code).toBe(4408);
  for (const ms of await Promise.all(ends)) expect(ms).toBeLessThan(40_000);
  clearInterval(dripping);
}, 60_000);

test("who is refused a link and keeps its end open is cut off all the same", async () => {
  await using controller = await testController();
  for (const path of ["/v1/hosts", "/v1/link?"]) {
    const raw = connectTcp({ host: "127.0.0.1", port: portOf(controller), allowHalfOpen: true });
    raw.on("error", () => {});
    const gone = new Promise<void>((resolve) => raw.once("close", () => resolve()));
    const socket = connectTls({ socket: raw, ca: controller.ca, servername: tlsServerName });
    socket.on("error", () => {});
    await new Promise<void>((resolve) => socket.once("secureConnect", () => resolve()));
    socket.write(upgrade(path));
    await new Promise<void>((resolve) => socket.once("data", () => resolve()));
    // Neither reads on nor ends; what it goes on writing tells it that nobody is there any more.
    socket.pause();
    const writing = setInterval(() => socket.write("x"), 200);
    await gone;
    clearInterval(writing);
  }
}, 20_000);

test("wrong tokens are slowed down by address; a right one always passes", async () => {
  const clock = stillClock();
  await using controller = await testController({ clock });
  const wrong = (token: string | null) =>
    controller.call<Problem>("GET", "/v1/status", { token }).then(({ status, body, headers }) => {
      if (status === 429) expect([body.code, headers["retry-after"]]).toEqual(["api.rate-limited", "60"]);
      return status;
    });
  const statuses: number[] = [];
  for (let i = 0; i < 40; i++) statuses.push(await wrong(i % 2 === 0 ? `bedplate-api.x.${i}` : null));
  expect(statuses.slice(0, 30)).toEqual(Array(30).fill(401));
  expect(statuses.slice(30)).toEqual(Array(10).fill(429));
  expect((await controller.call("GET", "/v1/status")).status).toBe(200);
  clock.advance(61_000);
  expect(await wrong("bedplate-api.x.y")).toBe(401);
});

test("an agent's host joins among strangers that knock all the time", async () => {
  await using controller = await testController();
  const stop = new AbortController();
  const strangers = (async () => {
    while (!stop.signal.aborted) await askToLink(controller).catch(() => {});
  })();
  const { client, welcome } = await joinLink(controller, {
    ...{ key: newLinkKey(), joinToken: await controller.joinToken() },
  });
  expect(welcome.standing).toBe("approved");
  client[Symbol.dispose]();
  stop.abort();
  await strangers;
});
