// Before anyone has proved anything: how fast one address may knock, how long it may dawdle, and how little it is kept for it.
import { Agent } from "node:https";
import {
  type AddressInfo,
  connect as connectTcp,
  createServer as createTcpServer,
  type Socket,
} from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { expect, test, vi } from "vitest";
import { Strangers } from "../../controller/link/strangers.ts";
import type { Problem } from "../../protocol/api.ts";
import { tlsServerName } from "../../protocol/messages.ts";
import { type TestClock, testClock } from "../support/clock.ts";
import { callApi, type TestController, testController } from "../support/controller.ts";
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
  const wrong = (token: string) =>
    controller.call<Problem>("GET", "/v1/status", { token }).then(({ status, body, headers }) => {
      if (status === 429) expect([body.code, headers["retry-after"]]).toEqual(["api.rate-limited", "1"]);
      return status;
    });
  const statuses: number[] = [];
  for (let i = 0; i < 40; i++) statuses.push(await wrong(`bedplate-api.x.${i}`));
  // Each costs as much as sixteen requests without one.
  expect(statuses).toEqual([...Array(32).fill(401), ...Array(8).fill(429)]);
  expect((await controller.call("GET", "/v1/status")).status).toBe(200);
  clock.advance(1000);
  expect(await wrong("bedplate-api.x.y")).toBe(401);
});

test.each([
  ["what anyone may have", "/v1/ca", {}, 200],
  ["what anyone may have, with a header that says nothing", "/v1/ca", { authorization: "Bearer x" }, 200],
  ["what nobody has", "/v1/nothing", {}, 404],
  ["what takes a token", "/v1/status", {}, 401],
])(
  "who asks without a token for %s is told to wait at last",
  async (_what, path, headers, expected) => {
    const clock = stillClock();
    await using controller = await testController({ clock });
    const ask = () => controller.call<Problem>("GET", path, { token: null, headers });
    const counts = new Map<number, number>();
    for (let round = 0; round < 52; round++) {
      for (const { status, body, headers: sent } of await Promise.all(Array.from({ length: 10 }, ask))) {
        counts.set(status, (counts.get(status) ?? 0) + 1);
        if (status !== 429) continue;
        expect(body).toMatchObject({ code: "api.rate-limited", status: 429 });
        expect([sent["retry-after"], sent.connection]).toEqual(["1", "close"]);
        expect(sent["content-type"]).toBe("application/problem+json");
      }
    }
    expect(Object.fromEntries(counts)).toEqual({ [expected]: 512, 429: 8 });
    expect((await controller.call("GET", "/v1/status")).status).toBe(200);
    clock.advance(1000);
    expect((await ask()).status).toBe(expected);
  },
  60_000,
);

test.each([
  ["nothing of its own", "GET /v1/ca HTTP/1.1\r\nHost: x\r\n\r\n"],
  ["what cannot be read", "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n"],
  ["to be expected", "GET /v1/ca HTTP/1.1\r\nHost: x\r\nExpect: something\r\n\r\n"],
])("a stranger that asks for %s has one answer a connection", async (_what, request) => {
  await using controller = await testController();
  const socket = await tls(controller);
  let text = "";
  socket.setEncoding("latin1").on("data", (piece: string) => {
    text += piece;
  });
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  const asking = setInterval(() => socket.write(request), 20);
  await closed;
  clearInterval(asking);
  expect(text.match(/^HTTP\/1\.1 /gm)).toHaveLength(1);
});

test("a head is read to its bound, and no further", async () => {
  await using controller = await testController();
  const statusOf = async (bytes: number) => {
    const series = "a".repeat(4096);
    const path = `/v1/hosts/nobody/telemetry/history?series=${series}`;
    return (await controller.call("GET", path, { headers: { "x-more": "b".repeat(bytes) } })).status;
  };
  expect(await statusOf(1024)).toBe(404);
  expect(await statusOf(2048)).toBe(431);
});

test("of the connections that one address holds open without a word the oldest make room for who has a token", async () => {
  await using controller = await testController();
  const closed: number[] = [];
  const sockets: Socket[] = [];
  const knownAgent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ask = () =>
    callApi(controller, "GET", "/v1/status", {
      agent: knownAgent,
      headers: { authorization: `Bearer ${controller.client.token}` },
    });
  const first = await ask();
  expect([first.status, first.headers.connection]).toEqual([200, "keep-alive"]);
  const known = Object.values(knownAgent.freeSockets)[0]![0]!;
  for (let round = 0; round < 30; round++) {
    await Promise.all(
      Array.from({ length: 20 }, async (_, k) => {
        const socket = connectTcp({ host: "127.0.0.1", port: portOf(controller) });
        socket.on("error", () => {});
        socket.once("close", () => closed.push(round * 20 + k));
        sockets.push(socket);
        await new Promise<void>((resolve) => socket.once("connect", resolve));
      }),
    );
  }
  // 600 were opened, 512 are held, whichever of a round came first.
  await vi.waitFor(() => expect(closed).toHaveLength(88), { timeout: 3000, interval: 20 });
  expect(Math.max(...closed)).toBeLessThan(100);
  expect((await controller.call("GET", "/v1/status")).status).toBe(200);
  expect((await ask()).status).toBe(200);
  expect(known.destroyed).toBe(false);
  knownAgent.destroy();
  for (const socket of sockets) socket.destroy();
}, 30_000);

test("a connection that ended, or is known, counts no more", async () => {
  const strangers = new Strangers(() => 0);
  const server = createTcpServer((socket) => {
    socket.on("error", () => {});
    socket.resume();
    strangers.arrive(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const accepted: Socket[] = [];
  server.on("connection", (socket) => accepted.push(socket));
  const open = async () => {
    const socket = connectTcp({ host: "127.0.0.1", port: (server.address() as AddressInfo).port });
    await new Promise<void>((resolve) => socket.once("connect", resolve));
    return socket;
  };
  const clients = await Promise.all(Array.from({ length: 20 }, open));
  await vi.waitFor(() => expect(strangers.size).toBe(20), { timeout: 10_000 });
  for (const socket of accepted.slice(0, 5)) {
    strangers.known(socket);
    strangers.known(socket);
  }
  expect(strangers.size).toBe(15);
  for (const client of clients) client.destroy();
  await vi.waitFor(() => expect(strangers.size).toBe(0), { timeout: 10_000 });
  await new Promise((resolve) => server.close(resolve));
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
