// Strangers who stall at the controller's door: shut out in time, for little memory each, and in nobody's way.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "node:tls";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { limits } from "../../protocol/limits.ts";
import { tlsServerName } from "../../protocol/messages.ts";
import { type ControllerProcess, startControllerProcess } from "../contract/controller-process.ts";
import { createAddresses, joinFrom } from "../contract/crowd.ts";
import {
  type Directory,
  eventually,
  memoryOf,
  node,
  openDirectory,
  startProgram,
} from "../contract/programs.ts";
import { clientFrame, type Stalled, stalls, upgradedTo } from "../contract/stalls.ts";
import { newLinkKey } from "../support/link-client.ts";

/** The limit, a second until a peer that does not answer our close is cut off, and what a busy machine takes: a drip goes on longer. */
const secondsMax = limits.authSecondsMax + 1 + 20;
/** Beside what it has sent of its one message. */
const kibMax = 64;

const nodeOptions = ["--max-semi-space-size=2", "--max-old-space-size=384"];

let directory: Directory;
let controller: ControllerProcess;
const newAddress = createAddresses();
beforeAll(async () => {
  directory = await openDirectory("slow");
  controller = await startControllerProcess(directory.path, {
    logLevel: "warn",
    nodeOptions,
  });
});
afterAll(async () => {
  await controller?.[Symbol.asyncDispose]();
  await directory?.[Symbol.asyncDispose]();
});

async function joins(): Promise<number> {
  const started = performance.now();
  const { client } = await joinFrom(newAddress(), controller, {
    ...{ key: newLinkKey(), name: `honest-${newAddress()}`, joinToken: await controller.joinToken() },
  });
  client[Symbol.dispose]();
  return performance.now() - started;
}

let aloneMs: number;
beforeAll(async () => {
  // The first one also warms it up.
  aloneMs = await joins();
});

/** Not much later than it served the first one, when nobody else was there. */
async function serves(): Promise<void> {
  expect(await joins()).toBeLessThan(Math.max(2000, 10 * aloneMs));
}

describe("who never sends", () => {
  test.concurrent.each(Object.keys(stalls))("%s is shut out in time", async (what) => {
    using stranger = await stalls[what]!(controller, newAddress());
    const seconds = await Promise.race([stranger.closedAfterSeconds, sleep(60_000)]);
    expect(seconds).toBeLessThan(secondsMax);
  });
});

describe("a crowd without proof", () => {
  test.each([
    ["says nothing", 0],
    ["has sent all but the end of the largest message it may", limits.frameBytesBeforeAuthMax - 64],
  ])("that %s takes little memory each", async (_what, bytes) => {
    const wanted = 400;
    const open = async () => {
      const socket = await upgradedTo(controller, newAddress());
      if (bytes > 0) socket.write(clientFrame(new Uint8Array(bytes)).subarray(0, bytes - 1));
      return socket;
    };
    // As many at once as warm up what all share.
    for (const socket of await Promise.all(Array.from({ length: 100 }, open))) socket.destroy();
    await sleep(500);
    const before = memoryOf(controller.program.pid).residentKib;
    const crowd: Awaited<ReturnType<typeof open>>[] = [];
    // As many as come before the first of them is shut out.
    const until = performance.now() + 0.7 * limits.authSecondsMax * 1000;
    while (crowd.length < wanted && performance.now() < until)
      crowd.push(...(await Promise.all(Array.from({ length: 20 }, open))));
    await sleep(200);
    const left = crowd.filter((socket) => !socket.destroyed).length;
    const eachKib = (memoryOf(controller.program.pid).residentKib - before) / crowd.length;
    console.log(`${crowd.length} strangers, ${left} of them left: ${eachKib.toFixed(1)} KiB each`);
    expect(left).toBeGreaterThan(crowd.length / 2);
    // Of fewer it could not be told.
    expect(crowd.length).toBeGreaterThanOrEqual(60);
    expect(eachKib).toBeLessThan(kibMax + bytes / 1024);
    await serves();
    for (const socket of crowd) socket.destroy();
  });
});

describe("a crowd that speaks HTTP and has no token", () => {
  // So many that what the collector takes or leaves by chance is little for each.
  const wanted = 500;
  const crowd = (server: Server, count: number, text: string) =>
    Promise.all(Array.from({ length: count }, () => deaf(text, server)));

  /** Of a server that has just started, so that what others have left does not hide it: resident memory for each of so many. */
  async function eachKibOf(pid: number, server: Server, text: string): Promise<number> {
    // What all share, and what waits to be collected at any time.
    const first = await crowd(server, 200, text);
    const before = memoryOf(pid).residentKib;
    const more = await crowd(server, wanted, text);
    await sleep(200);
    const eachKib = (memoryOf(pid).residentKib - before) / wanted;
    for (const stranger of [...first, ...more]) stranger[Symbol.dispose]();
    return eachKib;
  }

  let bareKib: number;
  beforeAll(async () => {
    await using bare = startProgram({
      argv: [
        ...[node, ...nodeOptions, fileURLToPath(new URL("../contract/bare-server.ts", import.meta.url))],
        ...[join(controller.stateDirectory, "ca.pem"), join(controller.stateDirectory, "ca.key")],
      ],
      logFile: join(directory.path, "bare-server.log"),
    });
    const port = await eventually(
      30_000,
      () => /^port (\d+)$/m.exec(bare.log())?.[1],
      () => bare.log(),
    );
    bareKib = await eachKibOf(bare.pid, { url: `https://127.0.0.1:${port}`, ca: controller.ca }, "");
  });

  const requestOf = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
  const longHead = `${requestOf("/v1/ca").slice(0, -2)}${`X-${"a".repeat(20)}: ${"b".repeat(100)}\r\n`.repeat(46)}`;
  test.each([
    ["says nothing", ""],
    ["stops before the end of a long head", longHead],
    ["asks for what anyone may have and reads nothing", requestOf("/v1/ca").repeat(4)],
    ["asks for what it may not have and reads nothing", requestOf("/openapi.json").repeat(4)],
  ])("and %s takes little memory beyond what TLS and Node take", async (what, text) => {
    const own = join(directory.path, what.replaceAll(" ", "-"));
    mkdirSync(own);
    await using fresh = await startControllerProcess(own, { logLevel: "warn", nodeOptions });
    const eachKib = await eachKibOf(fresh.program.pid, fresh, text);
    console.log(`${eachKib.toFixed(1)} KiB each; an idle one of a bare server ${bareKib.toFixed(1)} KiB`);
    expect(eachKib - bareKib).toBeLessThan(kibMax);
  });
});

test("who asks and never reads the answers is cut off, and nobody waits for it", async () => {
  const asked = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
  const strangers = await Promise.all(Array.from({ length: 60 }, () => deaf(asked)));
  const closed = Promise.all(strangers.map(({ closedAfterSeconds }) => closedAfterSeconds));
  expect(await Promise.race([closed, sleep(120_000, "late")])).not.toBe("late");
  // All those answers would be more than its heap may hold.
  expect(controller.program.alive, controller.program.log().slice(-500)).toBe(true);
  await serves();
});

interface Server {
  readonly url: string;
  readonly ca: string;
}

/** Asks, once, and lets every answer be. */
async function deaf(request: string, server: Server = controller): Promise<Stalled> {
  const { hostname, port } = new URL(server.url);
  const socket = connect({
    ...{ host: hostname, port: Number(port), ca: server.ca, servername: tlsServerName },
    ...({ localAddress: newAddress() } as object),
  });
  socket.on("error", () => {});
  const since = performance.now();
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  await Promise.race([closed, new Promise((resolve) => socket.once("secureConnect", resolve))]);
  socket.pause();
  // Unread, the end of the connection is only seen in that no more can be written.
  socket.write(request);
  const prodding = setInterval(() => socket.write("\r\n"), 1000);
  const closedAfterSeconds = closed.then(() => {
    clearInterval(prodding);
    return (performance.now() - since) / 1000;
  });
  return { closedAfterSeconds, open: true, [Symbol.dispose]: () => socket.destroy() };
}
