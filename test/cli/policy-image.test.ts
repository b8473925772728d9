// The image that a policy is asked about: only the command's own counts, wherever it comes from.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ApiClient } from "../../cli/api-client.ts";
import { imageToExplain } from "../../cli/policy-image.ts";
import { type Command, encodeCommand } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { newCommandId } from "../support/commands.ts";
import { smallImage } from "../support/images.ts";

const image = smallImage("meant", 5000, 1);
const other = smallImage("other", 5000, 2);
const one = { signature: "armored", fingerprint: `SHA256:${"A".repeat(43)}`, addedAt: 1 };
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-policy-image-"));
});
afterAll(() => rm(directory, { recursive: true }));

function commandOf(kind: "image.deploy" | "host.exec"): Uint8Array {
  const given =
    kind === "host.exec"
      ? { argv: ["/bin/true"] }
      : { image: { root: image.root, sizeBytes: 5000 }, disk: { serial: "S1" } };
  return encodeCommand({
    ...{ id: newCommandId(), host: "0".repeat(64), kind, mode: "plan", arguments: given, limits: {} },
  } as unknown as Command);
}

async function exported(name: string, manifest: Uint8Array, signatures: string): Promise<string> {
  const path = join(directory, name);
  await mkdir(path);
  await writeFile(join(path, "manifest"), manifest);
  await writeFile(join(path, "signatures"), signatures);
  return path;
}

const ask = (found: string | undefined, client?: Partial<ApiClient>) =>
  imageToExplain(commandOf("image.deploy"), {
    directory: found,
    controller: client === undefined ? undefined : { client: client as ApiClient },
  });

test("from an exported directory, and from the controller", async () => {
  const whole = await exported("whole", image.manifest, JSON.stringify({ signatures: [one] }));
  const found = await ask(whole);
  expect(found?.signatures).toEqual(["armored"]);
  const client = { manifest: async () => image.manifest, imageSignatures: async () => [one] };
  expect((await ask(undefined, client))?.signatures).toEqual(["armored"]);
  expect(await ask(undefined)).toBeUndefined();
});

test("another image than the command's is refused, whoever gives it", async () => {
  const wrong = await exported("wrong", other.manifest, JSON.stringify({ signatures: [] }));
  await expect(ask(wrong)).rejects.toMatchObject({ code: "image.bad-manifest" });
  const client = { manifest: async () => other.manifest, imageSignatures: async () => [one] };
  await expect(ask(undefined, client)).rejects.toMatchObject({ code: "image.bad-manifest" });
});

test("what the controller has no more is not known; other faults are told", async () => {
  const gone = (code: "image.unknown" | "controller.unreachable") => ({
    manifest: async () => {
      throw new BedplateError(code, "…");
    },
  });
  expect(await ask(undefined, gone("image.unknown"))).toBeUndefined();
  await expect(ask(undefined, gone("controller.unreachable"))).rejects.toMatchObject({
    code: "controller.unreachable",
  });
});

test("what is no export says so, and a command without an image takes none", async () => {
  await expect(ask(join(directory, "none"))).rejects.toMatchObject({
    ...{ code: "file.unreadable", hint: expect.stringContaining("image export") },
  });
  for (const [name, text] of [
    ["garbage", "{"],
    ["shape", '{"signatures":1}'],
  ] as const)
    await expect(ask(await exported(name, image.manifest, text))).rejects.toMatchObject({
      code: "file.unreadable",
    });
  const exec = commandOf("host.exec");
  await expect(imageToExplain(exec, { directory, controller: undefined })).rejects.toMatchObject({
    code: "usage",
  });
  expect(await imageToExplain(exec, { directory: undefined, controller: undefined })).toBeUndefined();
});
