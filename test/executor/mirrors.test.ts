// Mirrors and signatures of images, by real executor processes: the host's policy says which it uses and what it asks for.
import { mkdir, readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { FileDisk } from "../../agent/devices/disks.ts";
import type { DeployOutput, DeployPlanOutput } from "../../protocol/commands.ts";
import { encodeManifest } from "../../protocol/manifest.ts";
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
import { serveMirror } from "../support/mirror-server.ts";
import { makeOperator, type Operator } from "../support/operators.ts";
import { makeImage, type TestImage } from "../support/test-image.ts";

const mib = 1 << 20;
const imageBytes = 6 * mib + 1234;
const diskBytes = 8 * mib;
type Source = NonNullable<RunOptions["sources"]>[number] & { readonly mirror?: true };

let stage: DeployStage;
let host: ExecutorHost;
let image: TestImage;
let server: ImageServer;
let [alice, bob, mallory]: Operator[] = [];
let made = 0;
beforeAll(async () => {
  stage = await openDeployStage({ sizeBytes: imageBytes, zeroGroups: [3] });
  ({ host, image, server } = stage);
  const keys = `${host.directory}/keys`;
  await mkdir(keys);
  [alice, bob, mallory] = ["alice", "bob", "mallory"].map((name) => makeOperator(keys, name));
});
afterAll(() => stage?.[Symbol.asyncDispose]());

/** Under a policy that lists these places. */
async function makeDisk(places: readonly string[], policy = ""): Promise<FileDisk> {
  const disk = await host.makeOldDisk(`mirrored${made++}`, diskBytes);
  await host.writePolicy(policyOf([disk], `imageSources = ${JSON.stringify(places)}`, policy));
  return disk;
}

async function run(disk: FileDisk, sources: readonly Source[], mode: "plan" | "apply", more: object = {}) {
  const command = deployOf(image, disk, mode, more);
  return resultOf((await runToEnd(host, command, { ca: server.ca, sources })).last);
}
/** Both by these sources. */
async function deploy(disk: FileDisk, sources: readonly Source[]) {
  const planned = await run(disk, sources, "plan");
  if (planned.outcome !== "succeeded") return planned;
  const { fingerprint } = planned.output as DeployPlanOutput;
  return await run(disk, sources, "apply", { fingerprint });
}
const holds = (disk: FileDisk) => holdsImage(disk, image);
const files = (more: Readonly<Record<string, Uint8Array>> = {}) => ({
  manifest: image.manifestBytes,
  frames: image.frames,
  ...more,
});

describe("the controller's mirrors", () => {
  test("one that the policy lists, asked first: all frames from there", async () => {
    await using mirror = await serveMirror(files());
    const disk = await makeDisk([mirror.url]);
    const sent = server.sentBytes();
    const { outcome, output } = await deploy(disk, [{ url: mirror.url, mirror: true }, server.source]);
    expect(outcome).toBe("succeeded");
    expect((output as DeployOutput).sources).toEqual([
      { url: mirror.url, bytes: image.frames.length },
      { url: server.url, bytes: 0 },
    ]);
    expect(server.sentBytes()).toBe(sent);
    expect(mirror.requests()).not.toContain("manifest");
    expect(await holds(disk)).toBe(true);
  });

  test("those that it does not list are passed over and never asked, https or http, file or raw", async () => {
    await using mirror = await serveMirror(files());
    const disk = await makeDisk([`${mirror.url}-other`]);
    const passedOver: Source[] = [
      { url: mirror.url, mirror: true },
      { url: server.url, mirror: true },
      { url: "file:///srv/none.raw", layout: "raw", mirror: true },
    ];
    const { outcome, output } = await deploy(disk, [...passedOver, server.source]);
    expect(outcome).toBe("succeeded");
    expect((output as DeployOutput).sources).toEqual([{ url: server.url, bytes: image.frames.length }]);
    expect(mirror.requests()).toEqual([]);
    expect(await holds(disk)).toBe(true);
  });

  const other = (bytes: Uint8Array) => bytes.map((byte, i) => (i % mib === 5000 ? byte ^ 1 : byte));
  test.each<[string, () => Record<string, Uint8Array>, string]>([
    ["in its frames", () => files({ frames: other(image.frames) }), "image.corrupt"],
    ["with half of its frames", () => files({ frames: image.frames.subarray(0, mib) }), "image.fetch-failed"],
    ["and has none", () => ({}), "image.fetch-failed"],
  ])("one that lies %s is given up, and the controller gives the rest", async (_, filesOf, gaveUp) => {
    await using mirror = await serveMirror(filesOf());
    const disk = await makeDisk([mirror.url]);
    const { outcome, output } = await deploy(disk, [{ url: mirror.url, mirror: true }, server.source]);
    expect(outcome).toBe("succeeded");
    expect((output as DeployOutput).sources).toMatchObject([
      { url: mirror.url, gaveUp },
      { url: server.url },
    ]);
    expect(await holds(disk)).toBe(true);
  });

  test("a manifest of another image is passed over for the next source's", async () => {
    const lie = await makeImage({ sizeBytes: imageBytes });
    await using first = await serveMirror(files({ manifest: lie.manifestBytes }));
    await using second = await serveMirror(files());
    const disk = await makeDisk([first.url, second.url]);
    const mirrors = [first, second].map(({ url }): Source => ({ url, mirror: true }));
    expect((await deploy(disk, mirrors)).outcome).toBe("succeeded");
    expect(first.requests()).toContain("manifest");
    expect(await holds(disk)).toBe(true);
    expect((await deploy(disk, mirrors.slice(0, 1))).error?.code).toBe("image.digest-mismatch");
  });
});

describe("imageSignatures of the policy", () => {
  const signers = () => `[signers]\nops = ["${alice!.line}", "${bob!.line}"]\nothers = ["${mallory!.line}"]`;
  const signed = async (by: readonly Operator[], over: Uint8Array = image.manifestBytes, as?: "file") => {
    const signatures = await Promise.all(
      by.map(async (operator) => ({
        signature: await operator.sign(over, as ?? "bedplate-image"),
        fingerprint: `SHA256:${"A".repeat(43)}`,
        addedAt: 0,
      })),
    );
    return Buffer.from(JSON.stringify({ signatures }));
  };
  const policy = (k: number) => `imageSignatures = { k = ${k}, from = ["ops"] }\n`;
  /** TOML's tables come after its keys. */
  const makeSignedDisk = async (url: string, k: number) => {
    const disk = await makeDisk([url], policy(k));
    const text = await readFile(host.policyFile, "utf8");
    await host.writePolicy(`${text}\n${signers()}`);
    return disk;
  };

  test.each<[string, number, () => Promise<Record<string, Uint8Array>>]>([
    ["no list at all", 1, async () => ({})],
    ["an empty list", 1, async () => ({ signatures: await signed([]) })],
    ["an operator of another set", 1, async () => ({ signatures: await signed([mallory!]) })],
    ["one operator of two", 2, async () => ({ signatures: await signed([alice!, alice!]) })],
    ["over other bytes", 1, async () => ({ signatures: await signed([alice!], image.bytes) })],
    ["for another use", 1, async () => ({ signatures: await signed([alice!], image.manifestBytes, "file") })],
    ["what is no list", 1, async () => ({ signatures: Buffer.from("[]") })],
  ])("%s: the plan refuses", async (_, k, more) => {
    await using mirror = await serveMirror(files(await more()));
    const disk = await makeSignedDisk(mirror.url, k);
    expect(["image.unsigned", "image.bad-manifest"]).toContain(
      (await run(disk, [{ url: mirror.url }], "plan")).error?.code,
    );
  });

  test("the source of the apply lacks what that of the plan had: refused, and the disk is as it was", async () => {
    await using good = await serveMirror(files({ signatures: await signed([alice!, bob!]) }));
    await using less = await serveMirror(files({ signatures: await signed([alice!]) }));
    const disk = await makeSignedDisk(good.url, 2);
    const before = await sha256Of(disk.path);
    const planned = await run(disk, [{ url: good.url }], "plan");
    const { fingerprint } = planned.output as DeployPlanOutput;
    await host.writePolicy((await readFile(host.policyFile, "utf8")).replace(good.url, less.url));
    const { error } = await run(disk, [{ url: less.url }], "apply", { fingerprint });
    expect(error).toMatchObject({
      code: "image.unsigned",
      message: expect.stringContaining("needs 2 of ops; has 1: alice"),
    });
    expect(error?.details).not.toHaveProperty("left");
    expect(await sha256Of(disk.path)).toBe(before);
  });

  test("enough signatures: it is deployed; the rest in the list takes nothing away", async () => {
    const signatures = await signed([mallory!, bob!, alice!]);
    await using mirror = await serveMirror(files({ signatures }));
    const disk = await makeSignedDisk(mirror.url, 2);
    expect((await deploy(disk, [{ url: mirror.url }])).outcome).toBe("succeeded");
    expect(await holds(disk)).toBe(true);
  });

  test("the same root under a manifest that nobody signed is not the image that was signed", async () => {
    const renamed = encodeManifest({ ...image.manifest, name: "renamed" });
    const signatures = await signed([alice!]);
    await using unsigned = await serveMirror(files({ manifest: renamed, signatures }));
    const disk = await makeSignedDisk(unsigned.url, 1);
    expect((await deploy(disk, [{ url: unsigned.url }])).error?.code).toBe("image.unsigned");
  });

  test("a source whose manifest is not signed is passed over for one whose is", async () => {
    await using unsigned = await serveMirror(files());
    await using good = await serveMirror(files({ signatures: await signed([alice!]) }));
    const disk = await makeSignedDisk(unsigned.url, 1);
    const text = await readFile(host.policyFile, "utf8");
    await host.writePolicy(text.replace(`"${unsigned.url}"`, `"${unsigned.url}", "${good.url}"`));
    const { outcome, output } = await deploy(disk, [{ url: unsigned.url }, { url: good.url, mirror: true }]);
    expect(outcome).toBe("succeeded");
    expect((output as DeployOutput).sources?.[0]?.bytes).toBe(image.frames.length);
  });
});
