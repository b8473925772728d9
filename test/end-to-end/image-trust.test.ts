// An image's way to a disk with a policy that asks for its signature and lists a mirror: real controller, agent and executor.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { policyText } from "../../cli/demo/disks.ts";
import { type DemoHost, openHost, openStage } from "../../cli/demo/stage.ts";
import type { ImageView } from "../../protocol/api.ts";
import type { DeployOutput } from "../../protocol/commands.ts";
import { formatDiskSelector } from "../../protocol/disks.ts";
import { type CommandLine, commandLine } from "../support/command-line.ts";
import { type MirrorServer, serveMirror } from "../support/mirror-server.ts";
import { sshKeygenPresent } from "../support/operators.ts";

const mib = 1 << 20;
const stop = new AbortController();
const files: Record<string, Uint8Array> = {};
const raw = Buffer.concat([randomBytes(3 * mib), Buffer.alloc(2 * mib), randomBytes(3 * mib)]);
let directory: string;
let mirror: MirrorServer;
let stage: Awaited<ReturnType<typeof openStage>>;
let host: DemoHost;
let bedplate: CommandLine;
let image: ImageView;

beforeAll(async () => {
  if (!sshKeygenPresent) return;
  directory = await mkdtemp(join(tmpdir(), "bedplate-image-trust-"));
  execFileSync("ssh-keygen", [
    "-q",
    "-t",
    "ed25519",
    "-N",
    "",
    "-C",
    "alice",
    "-f",
    join(directory, "alice"),
  ]);
  const line = execFileSync("cat", [join(directory, "alice.pub")], { encoding: "utf8" }).trim();
  mirror = await serveMirror(files);
  stage = await openStage({ signal: stop.signal });
  const { token } = await stage.client.createJoinToken({});
  host = await openHost(stage, {
    diskBytes: 16 * mib,
    joinToken: token,
    signal: stop.signal,
    policy: (disks) =>
      `${policyText(
        disks,
        [
          'unsigned = ["image.deploy"]',
          'imageSignatures = { k = 1, from = ["ops"] }',
          `imageSources = [${JSON.stringify(mirror.url)}]`,
        ].join("\n"),
      )}\n[signers]\nops = [${JSON.stringify(line)}]\n`,
  });
  bedplate = commandLine({ HOME: directory, BEDPLATE_CLIENT: stage.clientFile });
  await writeFile(join(directory, "small.raw"), raw);
  image = await bedplate.json<ImageView>(0, "image", "add", join(directory, "small.raw"));
}, 60_000);
afterAll(async () => {
  stop.abort();
  await host?.[Symbol.asyncDispose]();
  await stage?.[Symbol.asyncDispose]();
  await mirror?.[Symbol.asyncDispose]();
  if (directory !== undefined) await rm(directory, { recursive: true, force: true });
});

const selector = (index: number) => formatDiskSelector(host.disks.disks[index]!.selector);
const deploy = (index: number) => [
  "deploy",
  host.name,
  "--image",
  "small",
  "--disk",
  selector(index),
  "--yes",
];
async function holds(index: number): Promise<boolean> {
  await using file = await open(host.disks.disks[index]!.backing, "r");
  const bytes = Buffer.alloc(raw.length);
  await file.read(bytes, 0, raw.length, 0);
  return bytes.equals(raw);
}
/** What the controller serves, as an operator would copy it to a mirror. */
async function copyToMirror(): Promise<void> {
  files.manifest = await stage.client.manifest(image.root);
  const pieces: Uint8Array[] = [];
  for await (const piece of await stage.client.frames(image.root)) pieces.push(piece);
  files.frames = Buffer.concat(pieces);
}

test.skipIf(!sshKeygenPresent)(
  "unsigned: refused; signed: deployed, from the mirror; from one that lies: from the controller",
  { timeout: 120_000 },
  async () => {
    expect(await bedplate.refusal(...deploy(0), "--plan")).toEqual([3, "image.unsigned"]);
    expect(await bedplate.refusal(...deploy(0))).toEqual([3, "image.unsigned"]);
    expect(await holds(0)).toBe(false);
    await bedplate.json(0, "image", "sign", "small", "--key", join(directory, "alice"));

    await copyToMirror();
    await bedplate.json(0, "image", "mirror", "add", "small", mirror.url, "--first");
    // One that the policy does not list keeps nobody from anything.
    await bedplate.json(0, "image", "mirror", "add", "small", "http://127.0.0.1:9/unlisted", "--first");
    const first = await bedplate.json<{ deploy: DeployOutput }>(0, ...deploy(0));
    expect(first.deploy.sources).toMatchObject([
      { url: mirror.url, bytes: image.storedBytes },
      { url: expect.stringContaining(image.root), bytes: 0 },
    ]);
    expect(await holds(0)).toBe(true);

    files.frames = files.frames!.map((byte, at) => (at % mib === 77 ? byte ^ 1 : byte));
    const second = await bedplate.json<{ deploy: DeployOutput }>(0, ...deploy(1));
    expect(second.deploy.sources?.[0]).toMatchObject({ url: mirror.url, gaveUp: "image.corrupt" });
    expect(await holds(1)).toBe(true);
  },
);
