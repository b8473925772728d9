// Sources besides the controller's own, by real executor processes: raw by ranges, files of the host, mirrors that lie.
import { spawnSync } from "node:child_process";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { FileDisk } from "../../agent/devices/disks.ts";
import type { DeployOutput, DeployPlanOutput } from "../../protocol/commands.ts";
import { type DeployStage, deployOf, holdsImage, openDeployStage } from "../support/deploy-stage.ts";
import {
  type ExecutorHost,
  policyOf,
  type RunOptions,
  resultOf,
  runToEnd,
  sha256Of,
} from "../support/executor-host.ts";
import type { ImageServer } from "../support/image-server.ts";
import { serveRaw } from "../support/raw-server.ts";
import type { TestImage } from "../support/test-image.ts";

const mib = 1 << 20;
const imageBytes = 20 * mib + 1234;
const diskBytes = 24 * mib;
type Source = NonNullable<RunOptions["sources"]>[number];

let stage: DeployStage;
let host: ExecutorHost;
let image: TestImage;
let server: ImageServer;
let directory: string;
let made = 0;
beforeAll(async () => {
  stage = await openDeployStage({ sizeBytes: imageBytes, zeroGroups: [3, 10, 11] });
  ({ host, image, server } = stage);
  directory = `${host.directory}/images`;
  await mkdir(`${directory}/inner`, { recursive: true });
  await writeFile(`${directory}/disk.raw`, image.bytes);
  await writeFile(`${directory}/short.raw`, image.bytes.subarray(0, 9 * mib));
  await writeFile(`${host.directory}/secret.raw`, image.bytes);
  await symlink(`${host.directory}/secret.raw`, `${directory}/out.raw`);
  await symlink(`${directory}/disk.raw`, `${directory}/inner/in.raw`);
});
afterAll(() => stage?.[Symbol.asyncDispose]());

/** Under a policy that lists these places. */
async function makeDisk(places: readonly string[]): Promise<FileDisk> {
  const disk = await host.makeOldDisk(`disk${made++}`, diskBytes);
  await host.writePolicy(policyOf([disk], `imageSources = ${JSON.stringify(places)}`));
  return disk;
}

async function run(disk: FileDisk, sources: readonly Source[], mode: "plan" | "apply", more: object = {}) {
  const command = deployOf(image, disk, mode, more);
  return resultOf((await runToEnd(host, command, { ca: server.ca, sources })).last);
}

/** A plan from the controller's source, then the deploy from these. */
async function deploy(disk: FileDisk, mirrors: readonly Source[], more: object = {}) {
  const planned = await run(disk, [server.source], "plan", more);
  const { fingerprint } = planned.output as DeployPlanOutput;
  return await run(disk, [...mirrors, server.source], "apply", { fingerprint, ...more });
}

const holds = (disk: FileDisk) => holdsImage(disk, image);
const nonZeroBytes = imageBytes - 3 * mib;

describe("raw images", () => {
  test("by ranges from a mirror: every byte of data from there, none of it twice", async () => {
    await using mirror = await serveRaw(image.bytes);
    const disk = await makeDisk([`${mirror.origin}/images/`]);
    const { outcome, output } = await deploy(disk, [{ url: mirror.url, layout: "raw" }]);
    expect(outcome).toBe("succeeded");
    expect(output as DeployOutput).toMatchObject({
      bytesFetched: nonZeroBytes,
      sources: [
        { url: mirror.url, bytes: nonZeroBytes },
        { url: server.url, bytes: 0 },
      ],
    });
    expect((output as DeployOutput).sources?.[0]).not.toHaveProperty("gaveUp");
    expect(mirror.sentBytes()).toBe(nonZeroBytes);
    expect(await holds(disk)).toBe(true);
  });

  test("from a file of the host, also through a link that stays within what is listed", async () => {
    for (const path of ["disk.raw", "inner/in.raw"]) {
      const disk = await makeDisk([`file:${directory}`]);
      const sent = server.sentBytes();
      const url = `file://${directory}/${path}`;
      const { outcome, output } = await deploy(disk, [{ url, layout: "raw" }]);
      expect(outcome).toBe("succeeded");
      expect((output as DeployOutput).sources?.[0]).toEqual({ url, bytes: nonZeroBytes });
      expect(server.sentBytes()).toBe(sent);
      expect(await holds(disk)).toBe(true);
    }
  });

  test("a raw source alone has no manifest", async () => {
    const disk = await makeDisk([`file:${directory}`]);
    const { error } = await run(disk, [{ url: `file://${directory}/disk.raw`, layout: "raw" }], "plan");
    expect(error).toMatchObject({ code: "image.fetch-failed", message: expect.stringContaining("manifest") });
  });
});

describe("refused before the disk is touched", () => {
  test.each<[string, (mirror: string) => Source]>([
    ["a mirror that is not listed", (mirror) => ({ url: `${mirror}/other/disk.raw`, layout: "raw" })],
    ["a step up", (mirror) => ({ url: `${mirror}/images/../other/disk.raw`, layout: "raw" })],
    ["a file outside", () => ({ url: `file://${host.directory}/secret.raw`, layout: "raw" })],
    ["a file by a step up", () => ({ url: `file://${directory}/../secret.raw`, layout: "raw" })],
    ["a link that leads out", () => ({ url: `file://${directory}/out.raw`, layout: "raw" })],
    ["a directory", () => ({ url: `file://${directory}/inner`, layout: "raw" })],
    ["no file", () => ({ url: `file://${directory}/none.raw`, layout: "raw" })],
    ["a file that is not raw", () => ({ url: `file://${directory}/disk.raw` })],
  ])("%s", async (_, sourceOf) => {
    await using mirror = await serveRaw(image.bytes);
    const disk = await makeDisk([`${mirror.origin}/images`, `file:${directory}`]);
    const before = await sha256Of(disk.path);
    const result = await deploy(disk, [sourceOf(mirror.origin)]);
    expect(result).toMatchObject({ outcome: "failed", error: { code: "source.refused" } });
    expect(result.error?.details).not.toHaveProperty("left");
    expect(mirror.sentBytes()).toBe(0);
    expect(await sha256Of(disk.path)).toBe(before);
  });

  test("a named pipe keeps nobody waiting", async () => {
    const pipe = `${directory}/pipe.raw`;
    expect(spawnSync("mkfifo", [pipe]).status).toBe(0);
    const disk = await makeDisk([`file:${directory}`]);
    expect(await deploy(disk, [{ url: `file://${pipe}`, layout: "raw" }])).toMatchObject({
      error: { code: "source.refused" },
    });
  });
});

describe("a mirror that lies is given up and named, and the deploy ends from the next source", () => {
  const flipped = () => {
    const copy = Uint8Array.from(image.bytes);
    for (let group = 1; group < 20; group++) copy[group * mib + 500]! ^= 1;
    return copy;
  };
  test.each<[string, string, Parameters<typeof serveRaw>[1]]>([
    ["wrong bytes", "image.corrupt", ({ start, end }, _, serve) => serve(flipped().subarray(start, end))],
    ["another length", "image.fetch-failed", (_, __, serve) => serve(undefined, imageBytes + 1)],
    [
      "more than its range",
      "image.fetch-failed",
      ({ start, end }, _, serve) => serve(image.bytes.subarray(start, end - 1)),
    ],
    [
      "another range",
      "image.fetch-failed",
      ({ start, end }, response) =>
        void response
          .writeHead(206, { "content-range": `bytes ${start + 1}-${end}/${imageBytes}` })
          .end(image.bytes.subarray(start, end)),
    ],
    [
      "a redirect to a link-local address",
      "source.refused",
      (_, response) => void response.writeHead(302, { location: "http://169.254.169.254/" }).end(),
    ],
    [
      "the whole file",
      "image.fetch-failed",
      (_, response) => void response.writeHead(200).end(image.bytes.subarray(0, 1000)),
    ],
    ["nothing", "image.fetch-failed", (_, response) => void response.writeHead(404).end()],
  ])("%s", async (_, gaveUp, misbehave) => {
    await using mirror = await serveRaw(image.bytes, misbehave);
    const disk = await makeDisk([`${mirror.origin}/`]);
    const { outcome, output } = await deploy(disk, [{ url: mirror.url, layout: "raw" }]);
    expect(outcome).toBe("succeeded");
    expect((output as DeployOutput).sources).toMatchObject([
      { url: mirror.url, gaveUp },
      { url: server.url },
    ]);
    expect((output as DeployOutput).sources?.[1]).not.toHaveProperty("gaveUp");
    expect(await holds(disk)).toBe(true);
  });

  test("a file that is too short", async () => {
    const disk = await makeDisk([`file:${directory}`]);
    const { outcome, output } = await deploy(disk, [{ url: `file://${directory}/short.raw`, layout: "raw" }]);
    expect(outcome).toBe("succeeded");
    expect((output as DeployOutput).sources?.[0]).toMatchObject({ gaveUp: "image.truncated" });
    expect(await holds(disk)).toBe(true);
  });

  test("transfers that break off are resumed at the mirror, which is not given up", async () => {
    let cut = 0;
    await using mirror = await serveRaw(image.bytes, ({ start, end }, response, serve) => {
      if (end - start < 2 * mib || cut >= 3) return serve();
      cut++;
      response.writeHead(206, {
        "content-range": `bytes ${start}-${end - 1}/${imageBytes}`,
        "content-length": end - start,
      });
      response.write(image.bytes.subarray(start, start + mib + 1000), () => response.destroy());
    });
    const disk = await makeDisk([mirror.origin]);
    const { outcome, output } = await deploy(disk, [{ url: mirror.url, layout: "raw" }]);
    expect(outcome).toBe("succeeded");
    expect(cut).toBe(3);
    expect((output as DeployOutput).sources?.[0]).not.toHaveProperty("gaveUp");
    expect((output as DeployOutput).bytesFetched).toBeLessThan(nonZeroBytes + 3 * mib);
    expect(await holds(disk)).toBe(true);
  });

  test("all of them wrong: image.corrupt, that group as it was, the marker on the disk", async () => {
    await using mirror = await serveRaw(flipped());
    const disk = await makeDisk([mirror.origin]);
    server.misbehave(({ start, end }, _, serve) => serve(new Uint8Array(end - start)));
    try {
      expect(await deploy(disk, [{ url: mirror.url, layout: "raw" }])).toMatchObject({
        outcome: "failed",
        error: { code: "image.corrupt", details: { left: { marker: true } } },
      });
    } finally {
      server.misbehave(undefined);
    }
    const bytes = await readFile(disk.path);
    expect(bytes.subarray(0, 8).toString()).toBe("BEDPLATE");
    expect(bytes.subarray(5 * mib, 6 * mib).every((byte) => byte === 0xee)).toBe(true);
  });
});

test("no more is written in a second than the limit says, and the plan's limit is the apply's", async () => {
  const disk = await makeDisk([`file:${directory}`]);
  const limits = { bytesPerSecondMax: 8 * mib };
  const source = { url: `file://${directory}/disk.raw`, layout: "raw" } as const;
  const { outcome, output } = await deploy(disk, [source], { limits });
  expect(outcome).toBe("succeeded");
  // The buckets begin full.
  const { write } = (output as DeployOutput).seconds;
  expect(write).toBeGreaterThan(20 / 8 - 0.5);
  const free = await deploy(await makeDisk([`file:${directory}`]), [source]);
  expect((free.output as DeployOutput).seconds.write).toBeLessThan(write);
});
