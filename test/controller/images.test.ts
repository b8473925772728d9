// Images by the API: upload, download with ranges, the bearer of an offer, and generations of what changes state.
import { once } from "node:events";
import { request } from "node:https";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openImageStore } from "../../controller/images/store.ts";
import type { CommandView, ImageView, Problem } from "../../protocol/api.ts";
import { decodeManifest } from "../../protocol/manifest.ts";
import { tlsServerName } from "../../protocol/tls.ts";
import { documentOf, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { type SmallImage, smallImage } from "../support/images.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";

let controller: TestController;
let image: SmallImage;
beforeAll(async () => {
  controller = await testController();
  image = await upload("first", 1);
});
afterAll(() => controller[Symbol.asyncDispose]());

async function upload(name: string, salt: number): Promise<SmallImage> {
  const made = smallImage(name, 5000, salt);
  expect(
    (await controller.call("PUT", `/v1/images/${made.root}/manifest`, { bytes: made.manifest })).status,
  ).toBe(204);
  const answer = await controller.call<ImageView>("PUT", `/v1/images/${made.root}/frames`, {
    bytes: made.frames,
  });
  expect(answer.status).toBe(201);
  expect(answer.body).toMatchObject({ root: made.root, name, sizeBytes: 5000 });
  return made;
}

test("an uploaded image is listed and found by root, prefix and name", async () => {
  const { images } = (await controller.call<{ images: ImageView[] }>("GET", "/v1/images")).body;
  expect(images.map(({ root }) => root)).toContain(image.root);
  for (const reference of [image.root, image.root.slice(0, 8), "first"]) {
    expect((await controller.call<ImageView>("GET", `/v1/images/${reference}`)).body.root).toBe(image.root);
  }
});

test("bad uploads are refused with their code, and nothing is listed", async () => {
  const bad = smallImage("bad", 5000, 9);
  const put = (path: string, bytes?: Uint8Array) =>
    controller.call<Problem>("PUT", `/v1/images/${path}`, bytes === undefined ? {} : { bytes });
  expect((await put(`${bad.root}/frames`, bad.frames)).body.code).toBe("image.incomplete");
  expect((await put(`${bad.root}/manifest`, bad.manifest.subarray(1))).body.code).toBe("image.bad-manifest");
  expect((await put(`${"0".repeat(64)}/manifest`, bad.manifest)).status).toBe(422);
  expect((await put("nonsense/manifest", bad.manifest)).body.code).toBe("api.bad-request");
  expect((await put(`${bad.root}/manifest`)).body.code).toMatch(/api\.bad-request|image\.bad-manifest/);
  for (const [frames, code] of [
    [bad.frames.map((byte, i) => (i === 40 ? byte ^ 1 : byte)), /^image\.(corrupt|expansion|truncated)$/],
    [bad.frames.subarray(0, -1), /^image\.truncated$/],
  ] as const) {
    expect((await put(`${bad.root}/manifest`, bad.manifest)).status).toBe(204);
    const answer = await put(`${bad.root}/frames`, frames);
    expect(answer.body.code).toMatch(code);
    expect(answer.status).toBe(422);
  }
  expect((await controller.call("GET", `/v1/images/${bad.root}`)).status).toBe(404);
});

test("manifest and frames are served whole and by single ranges", async () => {
  const path = `/v1/images/${image.root}/frames`;
  const size = image.frames.length;
  const whole = await controller.call("GET", path);
  expect([
    whole.status,
    whole.bytes,
    whole.headers["content-length"],
    whole.headers["accept-ranges"],
  ]).toEqual([200, image.frames, String(size), "bytes"]);
  const served = await controller.call("GET", "/v1/images/first/manifest");
  expect(decodeManifest(served.bytes)).toEqual(decodeManifest(image.manifest));
  const ranges: [string, number, number][] = [
    ["bytes=0-0", 0, 1],
    ["bytes=5-9", 5, 10],
    [`bytes=${size - 1}-`, size - 1, size],
    ["bytes=-7", size - 7, size],
    [`bytes=10-${size + 5000}`, 10, size],
    [`bytes=-${size + 1}`, 0, size],
  ];
  for (const [range, from, to] of ranges) {
    const part = await controller.call("GET", path, { headers: { range } });
    expect([range, part.status, part.headers["content-range"]]).toEqual([
      range,
      206,
      `bytes ${from}-${to - 1}/${size}`,
    ]);
    expect(part.bytes).toEqual(image.frames.slice(from, to));
  }
  for (const range of [`bytes=${size}-`, "bytes=-0", `bytes=${size + 10}-${size + 20}`]) {
    const none = await controller.call("GET", path, { headers: { range } });
    expect([range, none.status, none.headers["content-range"]]).toEqual([range, 416, `bytes */${size}`]);
  }
  for (const range of ["bytes=0-1,3-4", "bytes=9-5", "lines=1-2", "bytes=-"]) {
    expect((await controller.call("GET", path, { headers: { range } })).status).toBe(200);
  }
});

test("an offer of an image names this controller as the agent reached it, with a bearer for that image alone", async () => {
  const other = await upload("other", 2);
  const key = newLinkKey();
  const joined = await joinLink(controller, { key, joinToken: await controller.joinToken() });
  const verify = (made: SmallImage, host: string) =>
    documentOf(host, {
      kind: "image.verify",
      arguments: { image: { root: made.root, sizeBytes: 5000 }, disk: { serial: "s" } },
    });
  const answer = await submit(controller, verify(image, joined.host));
  expect(answer.status).toBe(201);
  const offer = await joined.client.next("offer");
  expect(offer.sources).toEqual([
    { url: `${controller.url}/v1/images/${image.root}`, bearer: expect.any(String) },
  ]);
  const { bearer } = offer.sources[0]!;
  const status = async (path: string, token: string) =>
    (await controller.call("GET", path, { token })).status;
  expect(await status(`/v1/images/${image.root}/frames`, bearer!)).toBe(200);
  expect(await status(`/v1/images/${image.root}/manifest`, bearer!)).toBe(200);
  expect(await status(`/v1/images/${image.root}/signatures`, bearer!)).toBe(200);
  expect(await status(`/v1/images/${other.root}/frames`, bearer!)).toBe(403);
  expect(await status(`/v1/images/${other.root}/signatures`, bearer!)).toBe(403);
  expect(await status(`/v1/images/${image.root}`, bearer!)).toBe(401);
  expect(await status("/v1/hosts", bearer!)).toBe(401);
  const claims = bearer!.split(".");
  const altered = [...claims.slice(0, 3), String(Number(claims[3]) + 1), claims[4]].join(".");
  expect(await status(`/v1/images/${image.root}/frames`, altered)).toBe(401);
  expect(
    await status(
      `/v1/images/${other.root}/frames`,
      [claims[0], claims[1], other.root, ...claims.slice(3)].join("."),
    ),
  ).toBe(401);
  joined.client[Symbol.dispose]();

  // A wrong size is the caller's error, told before any host hears of it.
  const wrong = await submit(
    controller,
    verify(image, joined.host).replace('"sizeBytes":5000', '"sizeBytes":5001'),
  );
  expect([wrong.status, (wrong.body as unknown as Problem).code]).toEqual([400, "command.bad-arguments"]);
});

test("what changes state gets the host's next generation, the same at each offer; plans and reads get none", async () => {
  const key = newLinkKey();
  const joined = await joinLink(controller, { key, joinToken: await controller.joinToken() });
  const args = { image: { root: image.root, sizeBytes: 5000 }, disk: { serial: "s" } };
  const fingerprint = {
    serial: "s",
    wwn: null,
    backing: null,
    model: null,
    sizeBytes: 1 << 20,
    logicalSectorBytes: 512,
    physicalSectorBytes: 512,
    diskSequence: 0,
    bootId: "boot-1",
    edges: "ef".repeat(32),
  };
  const documents = [
    documentOf(joined.host),
    documentOf(joined.host, { kind: "image.deploy", mode: "plan", arguments: args }),
    documentOf(joined.host, { kind: "image.deploy", arguments: { ...args, fingerprint } }),
    documentOf(joined.host, { kind: "image.verify", arguments: args }),
    documentOf(joined.host, { kind: "image.deploy", arguments: { ...args, fingerprint } }),
  ];
  for (const document of documents) expect((await submit(controller, document)).status).toBe(201);
  const generations = async (client: typeof joined.client) => {
    const all: number[] = [];
    for (const _ of documents) all.push((await client.next("offer")).generation);
    return all;
  };
  expect(await generations(joined.client)).toEqual([0, 0, 1, 1, 2]);
  joined.client[Symbol.dispose]();
  await controller.restart();
  const again = await joinLink(controller, { key });
  expect(await generations(again.client)).toEqual([0, 0, 1, 1, 2]);
  const { body } = await controller.call<CommandView>("GET", `/v1/commands/${JSON.parse(documents[2]!).id}`);
  expect(body.history.map(({ state }) => state)).toEqual(["waiting", "offered"]);
  again.client[Symbol.dispose]();
});

test("a collection tells how far it is, and is stopped when who asked for it goes", async () => {
  const progress = { files: 3, filesDone: 1, copyBytes: 900, copiedBytes: 300, freedBytes: 40 };
  const asked = Promise.withResolvers<void>();
  const stopped = Promise.withResolvers<void>();
  await using busy = await testController({
    openImages: async (directory) => {
      const store = await openImageStore(directory);
      return Object.assign(store, {
        collection: () => progress,
        collect: async (_: unknown, signal: AbortSignal) => {
          asked.resolve();
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          stopped.resolve();
          throw signal.reason;
        },
      });
    },
  });
  const interrupt = new AbortController();
  const url = new URL("/v1/images/collect", busy.client.url);
  const headers = { authorization: `Bearer ${busy.client.token}`, "content-type": "application/json" };
  const sent = request(url, {
    ...{ method: "POST", headers, signal: interrupt.signal },
    ...{ ca: busy.client.ca, servername: tlsServerName },
  });
  const failed = once(sent, "error");
  sent.end("{}");
  await asked.promise;
  expect((await busy.call("GET", "/v1/image-collection")).body).toEqual({ running: progress });
  interrupt.abort();
  await failed;
  await stopped.promise;
  const audited = async () =>
    (await busy.call<{ entries: { route: string }[] }>("GET", "/v1/audit")).body.entries.map(
      ({ route }) => route,
    );
  await expect.poll(audited, { timeout: 10_000 }).toContain("/v1/images/collect");
});
