// The right to fetch one image: how long it lasts, and for whom, with a clock that is moved ahead.
import { randomBytes } from "node:crypto";
import { connect, type TLSSocket } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ImageBearers } from "../../controller/images/image-bearers.ts";
import { type RecordBody, tlsServerName } from "../../protocol/messages.ts";
import { testClock } from "../support/clock.ts";
import { documentOf, newCommandId, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { smallImage } from "../support/images.ts";
import { type Joined, joinLink, newLinkKey } from "../support/link-client.ts";
import { imageOf } from "../support/test-image.ts";

const dayMs = 24 * 3_600_000;
const clock = testClock();
const image = smallImage("borne", 5000, 3);
let controller: TestController;

beforeAll(async () => {
  controller = await testController({ clock });
  await controller.call("PUT", `/v1/images/${image.root}/manifest`, { bytes: image.manifest });
  await controller.call("PUT", `/v1/images/${image.root}/frames`, { bytes: image.frames });
});
afterAll(async () => {
  await controller?.[Symbol.asyncDispose]();
});

const join = async (key = newLinkKey()): Promise<Joined> =>
  joinLink(controller, { key, joinToken: await controller.joinToken() });

/** A command that was offered, and the bearer that came with it. */
async function offered(
  joined: Joined,
  { root, raw }: { readonly root: string; readonly raw: Uint8Array } = image,
): Promise<{ readonly id: string; readonly bearer: string }> {
  const document = documentOf(joined.host, {
    kind: "image.verify",
    arguments: { image: { root, sizeBytes: raw.length }, disk: { serial: "S1" } },
  });
  expect((await submit(controller, document)).status).toBe(201);
  const { bearer } = (await joined.client.next("offer")).sources[0]!;
  return { id: (JSON.parse(document) as { id: string }).id, bearer: bearer! };
}

const fetchManifest = async (token: string): Promise<number> =>
  (await controller.call("GET", `/v1/images/${image.root}/manifest`, { token })).status;

test("what is paused for weeks still fetches; what has ended does not, however soon", async () => {
  const key = newLinkKey();
  const joined = await join(key);
  const { id, bearer } = await offered(joined);
  expect((await controller.call("POST", `/v1/commands/${id}/pause`)).status).toBe(202);
  expect(await fetchManifest(bearer)).toBe(200);
  clock.advance(20 * dayMs);
  expect(await fetchManifest(bearer)).toBe(200);
  joined.client[Symbol.dispose]();
  const again = await join(key);
  const result = { outcome: "cancelled" as const, startedAt: clock.now(), endedAt: clock.now() };
  const bodies: RecordBody[] = [
    { type: "received", command: id },
    { type: "result", command: id, result },
  ];
  for (const [index, body] of bodies.entries())
    again.client.send({ t: "record", seq: index + 1, at: clock.now(), body });
  await expect.poll(() => fetchManifest(bearer), { timeout: 10_000 }).toBe(401);
  again.client[Symbol.dispose]();
});

test("a host that fetches and does not read takes connections and files only up to a bound, and only its own", async () => {
  // More than the kernel keeps for a connection.
  const { bytes, manifestBytes, frames, reference } = await imageOf(Uint8Array.from(randomBytes(16 << 20)));
  const large = { root: reference.root, raw: bytes, frames };
  await controller.call("PUT", `/v1/images/${large.root}/manifest`, { bytes: manifestBytes });
  await controller.call("PUT", `/v1/images/${large.root}/frames`, { bytes: large.frames });
  const [greedy, other] = [await join(), await join()];
  const [mine, theirs] = [(await offered(greedy, large)).bearer, (await offered(other, large)).bearer];
  const path = `/v1/images/${large.root}/frames`;
  const fetchFrames = async (token: string) => (await controller.call("GET", path, { token })).status;
  const asked = `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${mine}\r\n\r\n`.repeat(4);
  const { hostname, port } = new URL(controller.url);
  const deaf = () =>
    new Promise<TLSSocket>((resolve) => {
      const socket = connect({
        ...{ host: hostname, port: Number(port), ca: controller.ca, servername: tlsServerName },
      });
      socket.on("error", () => {});
      socket.once("secureConnect", () => {
        socket.pause();
        socket.write(asked, () => resolve(socket));
      });
    });
  const crowd: TLSSocket[] = [];
  // Whatever lies in the kernel's buffers is taken; the rest of the answers is under way.
  while (crowd.length < 400 && (await fetchFrames(mine)) === 200)
    crowd.push(...(await Promise.all(Array.from({ length: 40 }, deaf))));
  expect(await fetchFrames(mine)).toBe(429);
  expect(await fetchFrames(theirs)).toBe(200);
  for (const socket of crowd) socket.destroy();
  await expect.poll(() => fetchFrames(mine), { timeout: 10_000 }).toBe(200);
  for (const { client } of [greedy, other]) client[Symbol.dispose]();
}, 60_000);

test("it survives a restart of the controller", async () => {
  const joined = await join();
  const { bearer } = await offered(joined);
  await controller.restart();
  expect(await fetchManifest(bearer)).toBe(200);
  joined.client[Symbol.dispose]();
});

test("of a command that is not known here it holds for a day", () => {
  const bearers = new ImageBearers(new Uint8Array(32).fill(1), clock);
  const asked = { host: "0".repeat(64), root: image.root, command: newCommandId() };
  const claim = bearers.read(bearers.issue(asked))!;
  expect(claim).toMatchObject(asked);
  const held = () => (["open", "ended", "unknown"] as const).map((known) => bearers.holds(claim, known));
  expect(held()).toEqual([true, false, true]);
  clock.advance(dayMs - 1000);
  expect(held()).toEqual([true, false, true]);
  clock.advance(2000);
  expect(held()).toEqual([true, false, false]);
});

test("nothing of it can be altered, and another key's is none", () => {
  const bearers = new ImageBearers(new Uint8Array(32).fill(1), clock);
  const asked = { host: "0".repeat(64), root: image.root, command: newCommandId() };
  const parts = bearers.issue(asked).split(".");
  const others = ["bedplate-plan", "1".repeat(64), "2".repeat(64), newCommandId(), "0", "A".repeat(43)];
  expect(parts).toHaveLength(others.length);
  for (const [index, other] of others.entries())
    expect(bearers.read(parts.with(index, other).join(".")), parts[index]!).toBeUndefined();
  const foreign = new ImageBearers(new Uint8Array(32).fill(2), clock).issue(asked);
  expect(bearers.read(foreign)).toBeUndefined();
  expect(bearers.read("")).toBeUndefined();
});
