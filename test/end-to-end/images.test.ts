// Images by the real command line against a real controller: signed, verified, mirrored; interoperating with ssh-keygen.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ListedSignatures } from "../../cli/image-signatures.ts";
import type { ImageView } from "../../protocol/api.ts";
import type { CollectionView, ImageMirror, ImageSignature } from "../../protocol/api-images.ts";
import { decodeManifest, frameOffsets } from "../../protocol/manifest.ts";
import { type CommandLine, commandLine, type Failure } from "../support/command-line.ts";
import { documentOf, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";
import { makeOperator, type Operator, sshKeygenPresent } from "../support/operators.ts";

const mib = 1 << 20;
const imageBytes = 5 * mib + 1234;
let directory: string;
let controller: TestController;
let bedplate: CommandLine;
let image: ImageView;
let [alice, bob]: Operator[] = [];
const inDirectory = (name: string) => join(directory, name);

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-images-"));
  controller = await testController();
  await mkdir(inDirectory("home"));
  bedplate = commandLine({
    HOME: inDirectory("home"),
    BEDPLATE_CLIENT: join(controller.directory, "client.json"),
  });
  [alice, bob] = ["alice", "bob"].map((name) => makeOperator(directory, name));
  const raw = Buffer.alloc(imageBytes);
  for (let at = 0; at < imageBytes; at++) raw[at] = at >> 20 === 2 ? 0 : (at * 7 + (at >> 8)) & 0xff;
  await writeFile(inDirectory("small.raw"), raw);
  image = await bedplate.json<ImageView>(0, "image", "add", inDirectory("small.raw"));
});
afterAll(async () => {
  await controller?.[Symbol.asyncDispose]();
  if (directory !== undefined) await rm(directory, { recursive: true });
});

const signaturesOf = async () =>
  (await controller.call<{ signatures: ImageSignature[] }>("GET", "/v1/images/small/signatures")).body
    .signatures;

test.skipIf(!sshKeygenPresent)(
  "signed here, ssh-keygen verifies it; signed by ssh-keygen, it is taken; verify says who",
  async () => {
    const keyFile = inDirectory("carol");
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "carol", "-f", keyFile]);
    const signed = await bedplate.json<{ signedBy: string; signatures: ImageSignature[] }>(
      ...([0, "image", "sign", "small", "--key", keyFile] as [number, ...string[]]),
    );
    expect(signed.signatures.map(({ fingerprint }) => fingerprint)).toEqual([signed.signedBy]);
    const manifest = (await controller.call("GET", "/v1/images/small/manifest")).bytes;
    const carol = (await readFile(`${keyFile}.pub`, "utf8")).trim();
    await writeFile(inDirectory("allowed"), `carol ${carol.split(" ").slice(0, 2).join(" ")}\n`);
    await writeFile(inDirectory("by-carol.sig"), signed.signatures[0]!.signature);
    const checked = spawnSync(
      "ssh-keygen",
      [
        ...["-Y", "verify", "-n", "bedplate-image", "-I", "carol"],
        ...["-f", inDirectory("allowed"), "-s", inDirectory("by-carol.sig")],
      ],
      { input: manifest },
    );
    expect([checked.status, checked.stdout.toString()]).toEqual([
      0,
      expect.stringContaining('Good "bedplate-image" signature'),
    ]);

    const file = inDirectory("small.manifest");
    const exported = await bedplate.run("image", "sign", image.root, "--output", file);
    expect(exported.stdout).toContain("ssh-keygen -Y sign -n bedplate-image");
    expect(Buffer.compare(await readFile(file), manifest)).toBe(0);
    execFileSync("ssh-keygen", ["-q", "-Y", "sign", "-n", "bedplate-image", "-f", keyFile, file]);
    await bedplate.json(0, "image", "sign", image.root, "--signature", `${file}.sig`);
    // The same key again is one signature.
    expect(await signaturesOf()).toHaveLength(1);
    await writeFile(inDirectory("by-alice.sig"), await alice!.sign(manifest, "bedplate-image"));
    await bedplate.json(0, "image", "sign", "small", "--signature", inDirectory("by-alice.sig"));
    expect(await signaturesOf()).toHaveLength(2);

    await writeFile(inDirectory("ops.pub"), `# operators\n${alice!.line}\n${carol}\n`);
    const verified = await bedplate.json<{ signedBy: string[]; groups: number }>(
      ...([0, "image", "verify", "small", "--signers", inDirectory("ops.pub")] as [number, ...string[]]),
    );
    expect(verified).toMatchObject({ groups: 6, signedBy: ["carol", "alice"] });
    await writeFile(inDirectory("others.pub"), `${bob!.line}\n`);
    expect(
      await bedplate.refusal("image", "verify", "small", "--signers", inDirectory("others.pub")),
    ).toEqual([3, "image.unsigned"]);
  },
);

test("signatures are listed, each verified here; one is taken away by its key, and the audit keeps who did", async () => {
  const manifest = (await controller.call("GET", "/v1/images/small/manifest")).bytes;
  const before = (await signaturesOf()).map(({ fingerprint }) => fingerprint);
  for (const operator of [alice!, bob!]) {
    await writeFile(inDirectory("one.sig"), await operator.sign(manifest, "bedplate-image"));
    await bedplate.json(0, "image", "sign", "small", "--signature", inDirectory("one.sig"));
  }
  await writeFile(inDirectory("bob.pub"), `${bob!.line}\n`);
  const listed = await bedplate.json<ListedSignatures>(
    ...([0, "image", "signatures", "small", "--signers", inDirectory("bob.pub")] as [number, ...string[]]),
  );
  expect(listed).toMatchObject({ image: { root: image.root } });
  const bobs = listed.signatures.find(({ operator }) => operator === "bob")!;
  const alices = listed.signatures.find(
    ({ fingerprint }) =>
      fingerprint !== bobs.fingerprint && (before.length === 0 || fingerprint !== before[0]),
  )!;
  expect(listed.signatures.every(({ fault }) => fault === null)).toBe(true);
  const text = (await bedplate.run("image", "signatures", "small")).stdout;
  expect(text).toContain(image.root);
  expect(text.split("\n").find((line) => line.startsWith(bobs.fingerprint))).toMatch(/ yes$/);

  const unsign = ["image", "unsign", "small", "--fingerprint"] as const;
  const { signatures } = await bedplate.json<{ signatures: ImageSignature[] }>(
    ...([0, ...unsign, bobs.fingerprint] as [number, ...string[]]),
  );
  expect(signatures.map(({ fingerprint }) => fingerprint)).not.toContain(bobs.fingerprint);
  expect(signatures).toHaveLength(listed.signatures.length - 1);
  expect(await signaturesOf()).toEqual(signatures);
  expect(await bedplate.refusal(...unsign, bobs.fingerprint)).toEqual([1, "api.not-found"]);
  expect(await bedplate.refusal(...unsign, "SHA256:short")).toEqual([2, "usage"]);
  const { entries } = (
    await controller.call<{ entries: { route: string; object: string | null; code: string | null }[] }>(
      ...(["GET", "/v1/audit?limit=20"] as const),
    )
  ).body;
  expect(
    entries
      .filter(({ route }) => route === "/v1/images/:root/signatures/remove")
      .map(({ object, code }) => [object, code]),
  ).toEqual([
    [`${image.root} ${bobs.fingerprint}`, "api.not-found"],
    [`${image.root} ${bobs.fingerprint}`, null],
  ]);
  await bedplate.json(0, ...unsign, alices.fingerprint);
});

test("a signature that does not hold, as a damaged store may have it, is told so", async () => {
  const stored = join(controller.directory, "images", image.root, "signatures");
  const before = await readFile(stored, "utf8");
  const signature = await alice!.sign(Buffer.from("other bytes"), "bedplate-image");
  const one = { signature, fingerprint: `SHA256:${"A".repeat(43)}`, addedAt: 1 };
  await writeFile(stored, JSON.stringify({ signatures: [one] }));
  const { stdout } = await bedplate.run("image", "signatures", "small");
  expect(stdout).toMatch(/^SHA256:A{43} .* no: /m);
  await writeFile(stored, before);
});

test("signatures that do not hold are not taken, and say why", async () => {
  const before = await signaturesOf();
  const manifest = (await controller.call("GET", "/v1/images/small/manifest")).bytes;
  const wrong: [string, string][] = [
    [await alice!.sign(manifest), "signature.wrong-namespace"],
    [await alice!.sign(Buffer.from("other bytes"), "bedplate-image"), "signature.invalid"],
    ["what is none", "signature.malformed"],
  ];
  for (const [signature, code] of wrong) {
    const file = inDirectory("wrong.sig");
    await writeFile(file, signature);
    expect((await bedplate.refusal("image", "sign", "small", "--signature", file))[1]).toBe(code);
    const answer = await controller.call<{ code: string }>("POST", "/v1/images/small/signatures", {
      json: { signature },
    });
    expect([answer.status, answer.body.code]).toEqual([400, code]);
  }
  expect(await signaturesOf()).toEqual(before);
});

test("verify names each bad group by its number and offset, and says what is cut off", async () => {
  const stored = join(controller.directory, "images", image.root);
  const manifest = decodeManifest(await readFile(join(stored, "manifest")));
  const starts = frameOffsets(manifest);
  const whole = await readFile(join(stored, "frames"));
  const flip = async (position: number) => {
    await using file = await open(join(stored, "frames"), "r+");
    await file.write(Uint8Array.of(whole[position]! ^ 4), 0, 1, position);
  };
  await flip(starts[1]! + 200);
  await flip(starts[4]! + 300);
  const { error } = await bedplate.json<Failure>(1, "image", "verify", "small");
  expect(error).toMatchObject({
    code: "image.corrupt",
    message: expect.stringMatching(/^Group 1 \(offset 1048576\) .* 1 more group is bad too\.$/),
    details: {
      badGroupCount: 2,
      badGroups: [
        { group: 1, offset: mib },
        { group: 4, offset: 4 * mib },
      ],
    },
  });
  await writeFile(join(stored, "frames"), whole);
  expect((await bedplate.run("image", "verify", image.root)).stdout).toContain("all 6 are the image's");
});

test("exported as a mirror serves it: whole, verified, or nothing at all", async () => {
  const target = inDirectory("exported");
  const stored = join(controller.directory, "images", image.root, "frames");
  const whole = await readFile(stored);
  await writeFile(stored, whole.with(whole.length - 100, whole.at(-100)! ^ 1));
  expect(await bedplate.refusal("image", "export", "small", target)).toEqual([1, "image.corrupt"]);
  await writeFile(stored, whole);
  expect((await readdir(directory)).filter((name) => name.startsWith("exported"))).toEqual([]);
  await bedplate.json(0, "image", "export", "small", target);
  expect((await readdir(target)).sort()).toEqual(["frames", "manifest", "signatures"]);
  expect(Buffer.compare(await readFile(join(target, "frames")), whole)).toBe(0);
  expect(JSON.parse(await readFile(join(target, "signatures"), "utf8"))).toEqual({
    signatures: await signaturesOf(),
  });
  expect(await bedplate.refusal("image", "export", "small", target)).toEqual([2, "usage"]);
});

test("what an export that was cut off left is named, with what to do", async () => {
  await mkdir(inDirectory("again.partial"));
  const { error } = await bedplate.json<Failure>(1, "image", "export", "small", inDirectory("again"));
  expect(error).toMatchObject({ code: "file.unreadable", hint: expect.stringContaining("remove it") });
  expect(error.message).toContain(inDirectory("again.partial"));
});

test("mirrors are added, listed and removed", async () => {
  const url = "http://mirror.example/small";
  await bedplate.json<ImageMirror>(0, "image", "mirror", "add", "small", url, "--first");
  const { mirrors } = await bedplate.json<{ mirrors: ImageMirror[] }>(0, "image", "mirror", "list", "small");
  expect(mirrors).toMatchObject([{ root: image.root, name: "small", url, layout: "bedplate", first: true }]);
  expect((await bedplate.run("image", "mirror", "list")).stdout).toMatch(/small .*before the controller/);
  await bedplate.json(0, "image", "mirror", "remove", "small", url);
  expect(await bedplate.refusal("image", "mirror", "remove", "small", url)).toEqual([1, "api.not-found"]);
  expect(await bedplate.refusal("image", "mirror", "add", "small", "ftp://m/")).toEqual([
    2,
    "api.bad-request",
  ]);
});

test("an image that a command names is not removed but by force; what is dead beside shared groups is freed", async () => {
  const changed = Buffer.from(await readFile(inDirectory("small.raw")));
  changed[4 * mib + 5]! ^= 1;
  await writeFile(inDirectory("next.raw"), changed);
  const next = await bedplate.json<ImageView>(0, "image", "add", inDirectory("next.raw"));
  // A third one is sent without a byte: an image of zeroes has no frames.
  await writeFile(inDirectory("zero.raw"), Buffer.alloc(3 * mib));
  const zero = await bedplate.json<ImageView>(0, "image", "add", inDirectory("zero.raw"));
  expect(zero).toMatchObject({ groups: 3, zeroGroups: 3, storedBytes: 0 });
  await bedplate.json(0, "image", "verify", "zero");
  const key = newLinkKey();
  const joined = await joinLink(controller, { key, joinToken: await controller.joinToken() });
  const waiting = documentOf(joined.host, {
    kind: "image.verify",
    arguments: { image: { root: image.root, sizeBytes: imageBytes }, disk: { serial: "s" } },
  });
  expect((await submit(controller, waiting)).status).toBe(201);
  await bedplate.json(0, "image", "mirror", "add", "small", "http://mirror.example/small");
  const { error } = await bedplate.json<Failure>(1, "image", "remove", "small");
  expect(error).toMatchObject({
    code: "image.in-use",
    details: { commands: [(JSON.parse(waiting) as { id: string }).id] },
  });
  const nothing = (await bedplate.run("image", "gc")).stdout;
  expect(nothing).toMatch(/^in no image: +0 B$/m);
  expect(nothing).toMatch(/^stays: +nothing$/m);

  const removed = await bedplate.json<{ freedBytes: number }>(0, "image", "remove", "small", "--force");
  // All but one group is the next one's too.
  expect(removed.freedBytes).toBeLessThan(20_000);
  expect((await bedplate.json<{ mirrors: ImageMirror[] }>(0, "image", "mirror", "list")).mirrors).toEqual([]);
  const little = await bedplate.json<CollectionView>(0, "image", "gc");
  expect(little).toMatchObject({ freedBytes: 0, left: { files: 1, bytes: little.deadBytes } });
  expect((await bedplate.run("image", "gc", "--dry-run")).stdout).toMatch(
    /^would stay: .* in 1 file of which less than a quarter is in no image: --all frees them, and copies /m,
  );
  const planned = await bedplate.json<CollectionView>(0, "image", "gc", "--dry-run", "--all");
  expect(planned.deadBytes).toBeGreaterThan(0);
  expect(planned.left.files).toBe(0);
  expect(planned.freedBytes).toBe(planned.deadBytes);
  expect(await bedplate.json<CollectionView>(0, "image", "gc", "--all")).toEqual({
    ...planned,
    dryRun: false,
  });
  expect((await bedplate.json<CollectionView>(0, "image", "gc")).deadBytes).toBe(0);
  expect((await bedplate.run("image", "verify", next.root)).stdout).toContain("all 6 are the image's");
  const { entries } = (
    await controller.call<{ entries: { route: string; object: string | null; code: string | null }[] }>(
      ...(["GET", "/v1/audit?limit=20"] as const),
    )
  ).body;
  const removals = entries.filter(({ route }) => route === "/v1/images/:root/remove");
  expect(removals.map(({ object, code }) => [object, code])).toEqual([
    [image.root, null],
    [image.root, "image.in-use"],
  ]);
});

test("no room to import: it is this machine's, and where to say another", async () => {
  const elsewhere = commandLine({
    HOME: inDirectory("home"),
    BEDPLATE_CLIENT: join(controller.directory, "client.json"),
    TMPDIR: inDirectory("none"),
  });
  const { error } = await elsewhere.json<Failure>(1, "image", "add", inDirectory("small.raw"));
  expect(error).toMatchObject({ code: "image.store-failed", hint: expect.stringContaining("TMPDIR") });
  expect(error.message).toContain(inDirectory("none"));
});

test("who may not add an image is told before anything is read or imported", async () => {
  const made = await controller.call<{ token: string }>("POST", "/v1/tokens", { json: { scope: "read" } });
  const file = inDirectory("reader.json");
  await writeFile(file, JSON.stringify({ ...controller.client, token: made.body.token }), { mode: 0o600 });
  const reader = ["--client", file, "image", "add", inDirectory("none.raw")] as const;
  expect(await bedplate.refusal(...reader)).toEqual([3, "api.forbidden"]);
});

test("the help tells of every verb", async () => {
  const { stdout } = await bedplate.run("image", "--help");
  for (const verb of [
    "add",
    "import",
    "sign",
    "signatures",
    "unsign",
    "verify",
    "mirror",
    "export",
    "remove",
    "gc",
  ])
    expect(stdout).toMatch(new RegExp(`^  ${verb} `, "m"));
});
