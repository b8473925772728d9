// Mirrors by the API: kept, offered to hosts around the controller's own source, and gone when they are removed.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Problem } from "../../protocol/api.ts";
import { type ImageMirror, mirrorsMax } from "../../protocol/api-images.ts";
import { documentOf, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { type SmallImage, smallImage } from "../support/images.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";

let controller: TestController;
let image: SmallImage;
beforeAll(async () => {
  controller = await testController();
  image = smallImage("mirrored", 5000, 1);
  await controller.call("PUT", `/v1/images/${image.root}/manifest`, { bytes: image.manifest });
  await controller.call("PUT", `/v1/images/${image.root}/frames`, { bytes: image.frames });
});
afterAll(() => controller[Symbol.asyncDispose]());

const add = (json: object, reference = "mirrored") =>
  controller.call<ImageMirror & Problem>("POST", `/v1/images/${reference}/mirrors`, { json });
const remove = (url: string) =>
  controller.call<Problem>("POST", "/v1/images/mirrored/mirrors/remove", { json: { url } });
const list = async () =>
  (await controller.call<{ mirrors: ImageMirror[] }>("GET", "/v1/mirrors")).body.mirrors;

test("mirrors are kept across a restart, offered in order, changed by adding again, and removed", async () => {
  const [early, late, raw] = [
    "http://early.example/i",
    "https://late.example/i/",
    "file:///srv/images/i.raw",
  ];
  expect((await add({ url: late })).status).toBe(201);
  expect((await add({ url: early, first: true })).body).toMatchObject({
    root: image.root,
    name: "mirrored",
    layout: "bedplate",
    first: true,
  });
  expect((await add({ url: raw, layout: "raw", first: true })).status).toBe(201);
  await controller.restart();
  expect((await list()).map(({ url }) => url)).toEqual([late, early, raw]);

  const key = newLinkKey();
  const joined = await joinLink(controller, { key, joinToken: await controller.joinToken() });
  const offered = async () => {
    const document = documentOf(joined.host, {
      kind: "image.verify",
      arguments: { image: { root: image.root, sizeBytes: 5000 }, disk: { serial: "s" } },
    });
    expect((await submit(controller, document)).status).toBe(201);
    return (await joined.client.next("offer")).sources;
  };
  const own = { url: `${controller.url}/v1/images/${image.root}`, bearer: expect.any(String) };
  expect(await offered()).toEqual([
    { url: early, mirror: true },
    { url: raw, mirror: true, layout: "raw" },
    own,
    { url: late, mirror: true },
  ]);

  await add({ url: early });
  expect((await remove(raw)).status).toBe(204);
  expect((await remove(raw)).body.code).toBe("api.not-found");
  expect((await list()).map(({ url, first }) => [url, first])).toEqual([
    [late, false],
    [early, false],
  ]);
  expect(await offered()).toEqual([own, { url: late, mirror: true }, { url: early, mirror: true }]);
  const { entries } = (
    await controller.call<{ entries: { route: string; object: string; token: { name: string } }[] }>(
      "GET",
      "/v1/audit?limit=2",
    )
  ).body;
  expect(entries.map(({ object }) => object)).toContain(image.root);
  for (const url of [late, early]) await remove(url);
});

test("an offer carries eight sources: the eighth mirror is refused, the seventh is offered", async () => {
  for (let i = 0; i < mirrorsMax; i++) expect((await add({ url: `http://m${i}/` })).status).toBe(201);
  const answer = await add({ url: "http://m7/" });
  expect([answer.status, answer.body.code]).toEqual([409, "image.too-many"]);
  expect((await add({ url: "http://m6/", first: true })).status).toBe(201);
  for (let i = 0; i < mirrorsMax; i++) await remove(`http://m${i}/`);
});

test.each([
  ["ftp://mirror.example/"],
  ["mirror.example"],
  ["http://user:secret@mirror.example/"],
  ["http://mirror.example/?token=1"],
  ["http://mirror.example/a/../b"],
  ["http://mirror.example/a%2fb"],
  ["http://mirror\n.example/a"],
  ["http://mirror.example//a"],
  ["http://mirror.example/%ff"],
  ["http://mirror.example/\u009b31m"],
  ["http://mirror.example/\u202egepj"],
  ["file:///srv/images/i"],
  ["file://other/srv/i.raw", "raw"],
])("%s is refused", async (url, layout?: string) => {
  const answer = await add({ url, ...(layout === undefined ? {} : { layout }) });
  expect([answer.status, answer.body.code]).toEqual([400, "api.bad-request"]);
});

test("of an image that is not there: image.unknown; without the scope: api.forbidden", async () => {
  expect((await add({ url: "http://m/" }, "nothing")).body.code).toBe("image.unknown");
  const { token } = (
    await controller.call<{ token: string }>("POST", "/v1/tokens", { json: { scope: "read" } })
  ).body;
  const answer = await controller.call<Problem>("POST", "/v1/images/mirrored/mirrors", {
    token,
    json: { url: "http://m/" },
  });
  expect(answer.body.code).toBe("api.forbidden");
});
