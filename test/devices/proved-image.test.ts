// What is known of an image before any disk is written: proved once, for whoever asks, and tried again after a failure.
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ImageWorkers, startImageWorkers } from "../../agent/devices/image-run.ts";
import { type ProvedImage, proveImage } from "../../agent/devices/proved-image.ts";
import { shareImage } from "../../agent/devices/share-image.ts";
import { accountsOf, moveAccounts } from "../../agent/devices/source-account.ts";
import { systemClock } from "../../agent/host/clock.ts";
import { createPause, type PauseControl } from "../../agent/host/pause.ts";
import { systemRandom } from "../../agent/host/random.ts";
import { compileKernel, createGroupKernel } from "../../assembly/index.ts";
import type { Manifest } from "../../protocol/manifest.ts";
import { type ImageServer, serveImage } from "../support/image-server.ts";
import { makeImage, type TestImage } from "../support/test-image.ts";

const mib = 1 << 20;
let image: TestImage;
let server: ImageServer;
let workers: ImageWorkers;

beforeAll(async () => {
  image = await makeImage({ sizeBytes: 6 * mib + 5, zeroGroups: [2, 3] });
  server = await serveImage(image);
  workers = startImageWorkers({ kernel: await compileKernel(), threads: 2 });
});
afterAll(async () => {
  await workers[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

async function prove(manifest: Manifest = image.manifest, control?: PauseControl): Promise<ProvedImage> {
  const { signal } = new AbortController();
  return proveImage({
    ...{ manifest, sources: [server.source], ca: server.ca, kernel: await createGroupKernel(), workers },
    ...{ clock: systemClock, random: systemRandom, signal, pause: control ?? createPause(signal) },
  });
}

test("the first group is fetched once, whoever asks for it, and told to the account of one disk", async () => {
  const before = server.requests().length;
  await using proved = await prove();
  const [first, again] = await Promise.all([proved.first(), proved.first()]);
  expect(Buffer.compare(first, image.bytes.subarray(0, mib))).toBe(0);
  expect(again).toBe(first);
  expect(await proved.first()).toBe(first);
  expect(server.requests().length).toBe(before + 1);
  expect(proved.zeroBytes).toBe(2 * mib);
  expect(proved.provedBytes()).toBe(2 * mib);
  const accounts = [1, 2].map(() => {
    const disk = shareImage(image.manifest, proved.shared);
    moveAccounts(proved.shared, disk);
    return accountsOf(disk, [server.source])[0]?.bytes;
  });
  expect(accounts).toEqual([image.manifest.frameBytes[0], 0]);
});

test("a group that is called zeroes and is not is found before anything is written, each time that it is asked for", async () => {
  const groups = new Uint8Array(image.manifest.groups);
  groups[3 * 32] = groups[3 * 32]! ^ 1;
  await using proved = await prove({ ...image.manifest, groups });
  for (let tries = 0; tries < 2; tries++)
    await expect(proved.first()).rejects.toMatchObject({
      code: "image.bad-manifest",
      message: expect.stringContaining("group 3 is zeroes"),
    });
});

test("what failed is told once, and tried again for who asks next", async () => {
  server.misbehave((_, __, serve) => serve(new Uint8Array(image.manifest.frameBytes[0]!)));
  await using proved = await prove();
  await expect(proved.first()).rejects.toMatchObject({ code: "image.corrupt" });
  server.misbehave(undefined);
  expect(Buffer.compare(await proved.first(), image.bytes.subarray(0, mib))).toBe(0);
});

test("paused it waits, and ends all the same when nobody wants it any more", async () => {
  const pause = createPause(new AbortController().signal);
  pause.set(true);
  const before = server.requests().length;
  {
    await using proved = await prove(image.manifest, pause);
    proved.first().catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  expect(server.requests().length).toBe(before);
});
