// Operators and their signatures, end to end: real controller, agents, executors and SSH keys; and a controller that lies.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { cp, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, expect, test } from "vitest";
import { mintCommandId } from "../../cli/clock.ts";
import { policyText } from "../../cli/demo/disks.ts";
import { type DemoHost, openHost, openStage } from "../../cli/demo/stage.ts";
import type { CommandView, HostView, ImageView } from "../../protocol/api.ts";
import { type Command, DeployPlanOutput, encodeCommand } from "../../protocol/commands.ts";
import { formatDiskSelector } from "../../protocol/disks.ts";
import type { Plan } from "../../protocol/plans.ts";
import { checker } from "../../protocol/schema.ts";
import {
  bedplateProgram,
  type CommandLine,
  commandLine,
  type Failure,
  type Run,
} from "../support/command-line.ts";
import { type LyingProxy, lyingProxy } from "../support/lying-proxy.ts";

const here = spawnSync("ssh-keygen", ["-?"]).error === undefined;
const mib = 1 << 20;
const imageBytes = 8 * mib;
const diskBytes = 16 * mib;
const stop = new AbortController();
let directory: string;
let stage: Awaited<ReturnType<typeof openStage>>;
let web: DemoHost;
let db: DemoHost;
let operator: CommandLine;
let lied: CommandLine;
let proxy: LyingProxy;
let image: Buffer;

const key = (name: string) => join(directory, name);
const signers = (...names: string[]) =>
  names.map((name) => JSON.stringify(execFileSync("cat", [`${key(name)}.pub`], { encoding: "utf8" }).trim()));
const disk = (host: DemoHost, index = 0) => host.disks.disks[index]!;
const selector = (host: DemoHost, index = 0) => formatDiskSelector(disk(host, index).selector);

interface Submitted {
  readonly plan: Plan;
  readonly planKey: string | null;
  readonly command: CommandView;
}
const deployTo = (host: DemoHost, index = 0) => [
  ...["deploy", host.name, "--image", "small", "--disk", selector(host, index), "--yes"],
];
/** A deploy that waits for two signatures. */
const submit = (index = 0) => operator.json<Submitted>(9, ...deployTo(web, index));
const signedBy = async (id: string) => (await stage.client.command(id)).signatures.length;

async function contentOf(host: DemoHost, index: number, length: number): Promise<Buffer> {
  await using file = await open(disk(host, index).backing, "r");
  const bytes = Buffer.alloc(length);
  await file.read(bytes, 0, length, 0);
  return bytes;
}

beforeAll(async () => {
  if (!here) return;
  directory = await mkdtemp(join(tmpdir(), "bedplate-signing-"));
  for (const name of ["alice", "bob", "carol", "mallory"])
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key(name)]);
  stage = await openStage({ signal: stop.signal });
  const policy: Parameters<typeof openHost>[1]["policy"] = (disks) => `${policyText(disks, "")}
[signers]
ops = [${signers("alice", "bob", "carol").join(", ")}]
[kinds."image.deploy"]
signatures = { k = 2, from = ["ops"] }
[kinds."host.exec"]
signatures = { k = 1, from = ["ops"] }
argv = [["/usr/bin/env", "printf", "**"], ["/bin/sh", "-c", "**"]]
shell = true
`;
  const join_ = async (name: string) => {
    const { token } = await stage.client.createJoinToken({ approve: "manual" });
    return openHost(stage, { diskBytes, joinToken: token, name, policy, signal: stop.signal });
  };
  [web, db] = [await join_("web-1"), await join_("db-1")];
  proxy = await lyingProxy(
    join(stage.directory, "controller"),
    JSON.parse(await readFile(stage.clientFile, "utf8")),
  );
  await writeFile(join(directory, "lying.json"), JSON.stringify(proxy.client));
  operator = commandLine({ HOME: directory, TMPDIR: directory, BEDPLATE_CLIENT: stage.clientFile });
  lied = commandLine({ HOME: directory, TMPDIR: directory, BEDPLATE_CLIENT: join(directory, "lying.json") });
  image = Buffer.concat([randomBytes(3 * mib), Buffer.alloc(2 * mib), randomBytes(3 * mib)]);
  await writeFile(join(directory, "small.raw"), image);
  await writeFile(join(directory, "other.raw"), randomBytes(2 * mib));
  for (const name of ["small", "other"]) {
    const sha256 = createHash("sha256")
      .update(await readFile(join(directory, `${name}.raw`)))
      .digest("hex");
    await operator.json(0, "image", "add", join(directory, `${name}.raw`), "--sha256", sha256);
  }
}, 120_000);

afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]();
  await db?.[Symbol.asyncDispose]();
  await web?.[Symbol.asyncDispose]();
  await stage?.[Symbol.asyncDispose]();
  if (here) await rm(directory, { recursive: true, force: true });
});

test.skipIf(here)("needs ssh-keygen, which is not installed here: nothing of this file ran", () => {});

test.runIf(here)("a host is let in and known by its fingerprint alone", { timeout: 60_000 }, async () => {
  const [before] = (await stage.client.hosts()).filter(({ name }) => name === "web-1");
  expect(before!.standing).toBe("pending");
  const wrong = await operator.json<Failure>(
    3,
    ...["host", "approve", "web-1", "--fingerprint", "0000-1111-2222-3333"],
  );
  expect(wrong.error.code).toBe("enrol.fingerprint-mismatch");
  expect((await stage.client.host("web-1")).standing).toBe("pending");

  const approved = await operator.json<HostView & { known: { name: string } | null }>(
    0,
    ...["host", "approve", "web-1", "--fingerprint", before!.fingerprint],
  );
  expect(approved).toMatchObject({ standing: "approved", known: { name: "web-1" } });
  const [, other] = await operator.refusal("command", "sign", mintCommandId(), "--yes");
  expect(other).toBe("api.not-found");
  const { hosts } = await operator.json<{ hosts: { id: string; attestationKey: string }[] }>(
    0,
    ...["known-hosts", "list"],
  );
  expect(hosts).toHaveLength(1);
  expect(hosts[0]).toMatchObject({ id: approved.id });
  const { identity } = await stage.client.host("web-1");
  expect(identity!.attestationKey).toContain(hosts[0]!.attestationKey);
  await operator.json(0, ...["host", "approve", "db-1"]);
});

test.runIf(here)(
  "two of three sign: nothing happens before, the image is there after",
  {
    timeout: 120_000,
  },
  async () => {
    const before = await contentOf(web, 0, imageBytes);
    const { plan, planKey, command } = await submit();
    expect(plan.requires).toEqual({ k: 2, from: ["ops"], operators: ["alice", "bob", "carol"] });
    expect(planKey).toMatch(/^SHA256:/);
    expect(command).toMatchObject({ state: "waiting", signaturesWanted: 2, signatures: [] });
    expect(command.suggest).toContain(`bedplate command sign ${command.id}`);

    const shown = await operator.run("command", "sign", command.id, "--print");
    expect(shown.code, shown.stderr).toBe(0);
    for (const part of ["web-1", "2 of ops (alice, bob, carol)", "nobody yet", disk(web).path, "small"])
      expect(shown.stdout).toContain(part);

    const first = await operator.run("command", "sign", command.id, "--key", key("alice"), "--yes");
    expect(first.code, first.stderr).toBe(0);
    expect(first.stdout).toContain("1 more signature is missing");
    // Again, she adds nothing.
    await operator.json(0, "command", "sign", command.id, "--key", key("alice"), "--yes");
    expect(await signedBy(command.id)).toBe(1);
    expect((await stage.client.command(command.id)).state).toBe("waiting");
    expect((await contentOf(web, 0, imageBytes)).equals(before)).toBe(true);

    // Bob's key is on a machine that has no network.
    const file = join(directory, "deploy.json");
    const exported = await operator.run("command", "sign", command.id, "--output", file);
    expect(exported.code, exported.stderr).toBe(0);
    expect(exported.stdout).toContain("ssh-keygen -Y sign -n bedplate-command -f KEY deploy.json");
    expect(await readFile(file, "utf8")).toContain('"bedplate": "command/1"');
    expect(exported.stdout).toContain(
      createHash("sha256")
        .update(await readFile(file))
        .digest("hex"),
    );
    execFileSync("ssh-keygen", ["-q", "-Y", "sign", "-n", "bedplate-command", "-f", key("bob"), file], {
      stdio: "ignore",
    });
    const added = await operator.run("command", "sign", command.id, "--signature", `${file}.sig`, "--yes");
    expect(added.code, added.stderr).toBe(0);

    const followed = await operator.run("command", "show", command.id, "--follow");
    expect(followed.code, followed.stdout + followed.stderr).toBe(0);
    expect((await contentOf(web, 0, imageBytes)).equals(image)).toBe(true);

    const late = await operator.refusal("command", "sign", command.id, "--key", key("carol"), "--yes");
    expect(late).toEqual([3, "command.already-offered"]);
  },
);

test.runIf(here)("who is no operator adds nothing that the host counts", { timeout: 120_000 }, async () => {
  const before = await contentOf(web, 1, imageBytes);
  const { command } = await submit(1);
  await operator.json(0, "command", "sign", command.id, "--key", key("alice"), "--yes");
  await operator.json(0, "command", "sign", command.id, "--key", key("mallory"), "--yes");
  const followed = await operator.run("command", "show", command.id, "--follow", "--json");
  expect(followed.code).toBe(3);
  const view = JSON.parse(followed.stdout.trim().split("\n").at(-1)!) as CommandView;
  expect(view.result!.error!.code).toMatch(/^(policy\.signature-required|signature\.unknown-key)$/);
  expect((await contentOf(web, 1, imageBytes)).equals(before)).toBe(true);
});

test.runIf(here)(
  "one of one: planned, signed and sent in one go; the output comes as it is printed",
  {
    timeout: 60_000,
  },
  async () => {
    const run = await operator.run(
      ...["exec", "web-1", "--yes", "--sign", key("carol")],
      ...["--", "/bin/sh", "-c", "printf 'to out'; printf 'to err' >&2; exit 3"],
    );
    expect(run.code, run.stderr).toBe(1);
    expect(run.stdout).toBe("to out");
    expect(run.stderr).toContain("to err");
    expect(run.stderr).toContain("exit code 3");

    const json = await operator.json<{ exec: { exitCode: number; bytes: number }; command: CommandView }>(
      0,
      ...["exec", "web-1", "--yes", "--sign", key("alice"), "--", "/usr/bin/env", "printf", "%s", "a b"],
    );
    expect(json.exec).toMatchObject({ exitCode: 0, bytes: 3, tail: { text: "a b" } });
    const again = await operator.run("command", "output", json.command.id, "--follow");
    expect([again.code, again.stdout]).toEqual([0, "a b"]);

    const refused = await operator.json<Failure & { plan: Plan }>(
      3,
      ...["exec", "web-1", "--yes", "--sign", key("alice"), "--", "/bin/rm", "-rf", "/tmp/nothing"],
    );
    expect(refused.error.code).toBe("policy.exec-not-allowed");
    expect(refused.plan.allowed).toBe(false);
  },
);

test.runIf(here)(
  "a host that is not known: unsigned with a warning, signed not at all",
  {
    timeout: 60_000,
  },
  async () => {
    const plan = await operator.run("deploy", "db-1", "--image", "small", "--disk", selector(db), "--plan");
    expect(plan.code, plan.stderr).toBe(0);
    expect(plan.stderr).toMatch(/warning: db-1 is not in .*known_hosts/);
    expect(plan.stdout).toContain("NOT CHECKED");
    expect(await operator.refusal(...deployTo(db), "--sign", key("alice"))).toEqual([3, "host.not-known"]);
    const { command } = await operator.json<Submitted>(9, ...deployTo(db));
    expect(await operator.refusal("command", "sign", command.id, "--key", key("alice"), "--yes")).toEqual([
      3,
      "host.not-known",
    ]);
    expect(await signedBy(command.id)).toBe(0);
  },
);

test.runIf(here)(
  "another key under a known name is refused loudly, before anything is sent",
  {
    timeout: 60_000,
  },
  async () => {
    const { command } = await submit(1);
    const file = join(directory, "wrong_known_hosts");
    const { id, name } = await stage.client.host("web-1");
    const stranger = (await readFile(`${key("mallory")}.pub`, "utf8")).split(" ").slice(0, 2).join(" ");
    await writeFile(file, `${id} ${name} ${stranger}\n`, { mode: 0o600 });
    const before = await stage.client.commands({ limit: 1 });
    for (const argv of [
      [...deployTo(web, 1), "--sign", key("alice")],
      deployTo(web, 1),
      ["command", "sign", command.id, "--key", key("alice"), "--yes"],
      ["known-hosts", "add", "web-1", "--fingerprint", id.slice(0, 16)],
    ]) {
      const refused = await operator.json<Failure>(3, ...argv, "--known-hosts", file);
      expect(refused.error.code, argv.join(" ")).toBe("host.key-changed");
      expect(refused.error.message.match(/SHA256:/g)).toHaveLength(2);
      expect(refused.error.hint).toContain("bedplate known-hosts remove web-1");
    }
    expect(await stage.client.commands({ limit: 1 })).toEqual(before);
    expect(await signedBy(command.id)).toBe(0);
  },
);

test.runIf(here)(
  "a controller that lies is found out before anything is signed",
  {
    timeout: 180_000,
  },
  async () => {
    const { command } = await submit(1);
    const { id } = command;
    const truth = JSON.parse(Buffer.from(command.document, "base64").toString()) as Command;
    const other = await stage.client.image("other");
    const swapped = (document: unknown) =>
      Buffer.from(JSON.stringify(document, undefined, 2)).toString("base64");
    const documentOf = (changed: Command) => Buffer.from(encodeCommand(changed)).toString("base64");
    const view =
      (changes: (answer: CommandView) => Partial<CommandView>) => (path: string, answer: unknown) =>
        path === `/v1/commands/${id}`
          ? { ...(answer as CommandView), ...changes(answer as CommandView) }
          : answer;

    // The true host's plan of the other disk, and the other host's of its own: signed, and not what was asked for.
    const planOn = async (host: DemoHost, index: number, planned: ImageView) => {
      const { id: hostId } = await stage.client.host(host.name);
      const asked = {
        id: mintCommandId(),
        host: hostId,
        kind: "image.deploy",
        mode: "plan",
        arguments: {
          image: { root: planned.root, sizeBytes: planned.sizeBytes, name: planned.name },
          disk: disk(host, index).selector,
        },
        limits: {},
      } as Command;
      await stage.client.submit(asked);
      await expect
        .poll(async () => (await stage.client.command(asked.id)).state, { timeout: 30_000 })
        .toBe("succeeded");
      const { result } = await stage.client.command(asked.id);
      return checker(DeployPlanOutput, "message.invalid", "plan")(result!.output).artefact!;
    };
    const quoting = (artefact: { text: string }, host: string): Command => {
      const plan = JSON.parse(artefact.text) as Plan;
      return {
        id,
        host,
        kind: "image.deploy",
        mode: "apply",
        arguments: plan.arguments,
        limits: truth.limits,
        plan: {
          id: plan.id,
          digest: createHash("sha256").update(artefact.text).digest("hex"),
          hostname: plan.hostname,
          chassisSerial: plan.chassisSerial,
        },
      } as unknown as Command;
    };
    const dbId = (await stage.client.host("db-1")).id;
    const dbPlan = await planOn(db, 0, await stage.client.image("small"));
    const dbDocument = documentOf(quoting(dbPlan, dbId));
    const signature = { text: "{}", signature: dbPlan.signature };

    const lies: readonly (readonly [string, string, Parameters<LyingProxy["tell"]>[0]])[] = [
      [
        "the image",
        "plan.changed",
        view(() => ({
          document: swapped({
            ...truth,
            arguments: { ...truth.arguments, image: { root: other.root, sizeBytes: other.sizeBytes } },
          }),
        })),
      ],
      [
        "the disk",
        "plan.changed",
        view(() => ({
          document: swapped({ ...truth, arguments: { ...truth.arguments, disk: disk(web, 2).selector } }),
        })),
      ],
      ["the host", "host.key-changed", view(() => ({ document: swapped({ ...truth, host: dbId }) }))],
      [
        "the host's name in the quote",
        "command.wrong-host",
        view(() => ({
          document: swapped({ ...truth, plan: { ...truth.plan, hostname: "elsewhere" } }),
        })),
      ],
      [
        "the image in document and plan",
        "signature.invalid",
        view(({ plan }) => {
          const text = plan!.text.replaceAll(
            (truth.arguments as { image: { root: string } }).image.root,
            other.root,
          );
          return {
            plan: { ...plan!, text },
            document: documentOf(quoting({ text }, truth.host)),
          };
        }),
      ],
      [
        "the disk in document and plan",
        "signature.invalid",
        view(({ plan }) => {
          const text = plan!.text.replaceAll(disk(web, 1).backing, disk(web, 2).backing);
          return { plan: { ...plan!, text }, document: documentOf(quoting({ text }, truth.host)) };
        }),
      ],
      [
        "another host's document and plan",
        "host.key-changed",
        view(() => ({ document: dbDocument, plan: dbPlan })),
      ],
      [
        "another host's document and plan under its own name",
        "host.not-known",
        view(() => ({
          document: dbDocument,
          plan: dbPlan,
          hostName: "db-1",
        })),
      ],
      ["another host's plan", "host.key-changed", view(() => ({ plan: dbPlan }))],
      ["a plan that is none", "host.key-changed", view(() => ({ plan: signature }))],
      ["no plan", "plan.unknown", view(() => ({ plan: null }))],
      [
        "no quote",
        "plan.required",
        view(() => {
          const { plan: _, ...bare } = truth;
          return { document: swapped(bare) };
        }),
      ],
      [
        "another command",
        "plan.changed",
        view(() => ({ document: swapped({ ...truth, id: mintCommandId() }) })),
      ],
    ];
    for (const [what, code, lie] of lies) {
      proxy.tell(lie);
      const refused = await lied.refusal("command", "sign", id, "--key", key("alice"), "--yes");
      expect(refused, what).toEqual([3, code]);
    }
    // Not even asked to.
    expect(proxy.changes).toEqual([]);
    expect(await signedBy(id)).toBe(0);

    // A plan of the other disk that the host did sign: only the operator who knows the digest or reads can tell.
    const otherDisk = await planOn(web, 2, await stage.client.image("small"));
    proxy.tell(
      view(() => ({
        plan: otherDisk,
        document: documentOf(quoting(otherDisk, truth.host)),
      })),
    );
    const { digest } = await operator.json<{ digest: string }>(0, "command", "sign", id, "--print");
    expect(await lied.refusal("command", "sign", id, "--digest", digest, "--print")).toEqual([
      3,
      "plan.changed",
    ]);
    const shown = await lied.run("command", "sign", id, "--print");
    expect(shown.stdout).toContain(disk(web, 2).backing);

    // The same in the place of the plan that was asked for.
    proxy.tell((_, answer) => {
      const output = (answer as Partial<CommandView>).result?.output as { artefact?: unknown } | undefined;
      if (output?.artefact !== undefined) output.artefact = otherDisk;
      return answer;
    });
    expect(await lied.refusal(...deployTo(web, 1), "--sign", key("alice"))).toEqual([3, "plan.changed"]);

    proxy.tell((_, answer) => answer);
    await lied.json(0, "command", "sign", id, "--digest", digest, "--key", key("alice"), "--yes");
    expect(await signedBy(id)).toBe(1);
  },
);

test.runIf(here)(
  "a controller that lies about a plan, or which image and host are meant, gets no signature",
  {
    timeout: 120_000,
  },
  async () => {
    const small = await stage.client.image("small");
    const other = await stage.client.image("other");
    const host = await stage.client.host("web-1");
    const known = proxy.changes.length;
    const applied = () =>
      proxy.changes
        .slice(known)
        .filter(({ path, body }) => path === "/v1/commands" && body.includes('\\"mode\\": \\"apply\\"'));
    const attempt = async (image_: string, lie: Parameters<LyingProxy["tell"]>[0]) => {
      proxy.tell(lie);
      const deploy = ["deploy", "web-1", "--image", image_, "--disk", selector(web, 1), "--yes"];
      return lied.refusal(...deploy, "--sign", key("alice"));
    };
    const plans = (change: (text: string) => string) => (_: string, answer: unknown) => {
      const { result } = (answer ?? {}) as Partial<CommandView>;
      const output = result?.output as { artefact?: { text: string } } | undefined;
      if (output?.artefact !== undefined) output.artefact.text = change(output.artefact.text);
      return answer;
    };
    // By its root an image cannot be another.
    expect(
      await attempt(small.root, (path, answer) => (path.startsWith("/v1/images/") ? other : answer)),
    ).toEqual([1, "image.unknown"]);
    const imposter = { ...host, id: "ab".repeat(32) };
    expect(
      await attempt("small", (path, answer) => (path.startsWith("/v1/hosts/") ? imposter : answer)),
    ).toEqual([3, "host.key-changed"]);
    expect(
      await attempt(
        "small",
        plans((text) => text.replace(/"allowed": true/, '"allowed":  true')),
      ),
    ).toEqual([3, "signature.invalid"]);
    expect(
      await attempt(
        "small",
        plans((text) => text.replaceAll(small.root, other.root)),
      ),
    ).toEqual([3, "signature.invalid"]);
    expect(applied()).toEqual([]);
  },
);

test.runIf(here)("who waits sees the other's signature come, and the end", { timeout: 90_000 }, async () => {
  const waiting = operator.start(["--json", ...deployTo(web, 2), "--sign", key("alice"), "--wait"]);
  const find = async () =>
    (await stage.client.commands({ state: "waiting", limit: 20 })).find(
      ({ mode, signatures, createdAt }) => mode === "apply" && signatures.length === 1 && createdAt > started,
    );
  const started = (await stage.client.status()).at - 1000;
  await expect.poll(find, { timeout: 30_000, interval: 100 }).toBeDefined();
  const { id } = (await find())!;
  await operator.json(0, "command", "sign", id, "--key", key("carol"), "--yes");
  const { code, stdout } = await waiting.ended;
  expect(code, stdout).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    deploy: { sizeBytes: imageBytes },
    command: { id, state: "succeeded" },
  });
  expect((await contentOf(web, 2, imageBytes)).equals(image)).toBe(true);
});

test.runIf(here)(
  "a token that only reads shows what would be signed, and adds no signature",
  {
    timeout: 60_000,
  },
  async () => {
    const { command } = await submit(1);
    const { token } = await stage.client.createToken({ scope: "read", name: "reader" });
    const file = join(directory, "reader.json");
    const own = JSON.parse(await readFile(stage.clientFile, "utf8")) as object;
    await writeFile(file, JSON.stringify({ ...own, token }), { mode: 0o600 });
    const shown = await operator.json<{ digest: string }>(
      0,
      ...["command", "sign", command.id, "--print", "--client", file],
    );
    expect(shown.digest).toMatch(/^[0-9a-f]{64}$/);
    const sign = ["command", "sign", command.id, "--key", key("alice"), "--yes", "--client", file];
    expect(await operator.refusal(...sign)).toEqual([3, "api.forbidden"]);
    expect(await operator.refusal(...deployTo(web, 1), "--client", file)).toEqual([3, "api.forbidden"]);
    expect(await signedBy(command.id)).toBe(0);
  },
);

/** On the host itself: where its executor's things are, as its administrator sees them. */
function onHost(host: DemoHost, ...argv: string[]): Run {
  const { rights } = host;
  const bedplate: [string, ...string[]] = [process.execPath, bedplateProgram, "--json", ...argv];
  const [program, ...rest] = rights.wrap(
    rights.kind === "private-mounts" ? bedplate : [...bedplate, "--journal", rights.paths.executorState],
  );
  const { status, stdout, stderr } = spawnSync(program, rest, {
    encoding: "utf8",
    env: { PATH: process.env.PATH, HOME: directory, BEDPLATE_CLIENT: stage.clientFile },
    ...(rights.kind === "other-user" ? { uid: 65_534, gid: 65_534 } : {}),
  });
  return { code: status, stdout, stderr };
}

test.runIf(here)(
  "on the host: what the policy says, the fence, and an audit that names what is wrong with it",
  {
    timeout: 120_000,
  },
  async () => {
    const { command } = await submit(1);
    const file = join(directory, "explained.json");
    await operator.json(0, "command", "sign", command.id, "--output", file);
    const policy =
      web.rights.kind === "private-mounts"
        ? []
        : ["--policy", join(web.rights.paths.policyDirectory, "policy.toml")];
    const explain = (...signed: string[]) => {
      const signatures = signed.flatMap((name) => {
        const text = execFileSync(
          "ssh-keygen",
          ["-q", "-Y", "sign", "-n", "bedplate-command", "-f", key(name)],
          {
            input: readFileSync(file),
            encoding: "utf8",
            stdio: ["pipe", "pipe", "ignore"],
          },
        );
        writeFileSync(`${file}.${name}`, text);
        return ["--signature", `${file}.${name}`];
      });
      const run = onHost(web, "policy", "explain", file, ...signatures, ...policy);
      expect(run.stdout, run.stderr).toMatch(/^\{/);
      return { code: run.code, ...(JSON.parse(run.stdout) as { allowed: boolean; signedBy: string[] }) };
    };
    expect(explain()).toMatchObject({ code: 3, allowed: false });
    expect(explain("alice", "mallory")).toMatchObject({ code: 3, allowed: false });
    expect(explain("alice", "bob")).toMatchObject({ code: 0, allowed: true, signedBy: ["alice", "bob"] });

    const fence = onHost(web, "fence", "show");
    expect(JSON.parse(fence.stdout), fence.stderr).toMatchObject({ fence: { epoch: 1 } });
    const show = onHost(web, "audit", "show", "--lines", "500");
    const { entries } = JSON.parse(show.stdout) as {
      entries: { seq: number; event: string; hash: string }[];
    };
    for (const event of ["planned", "accepted", "refused", "started", "ended"])
      expect(entries.map((entry) => entry.event)).toContain(event);

    const { id } = await stage.client.host("web-1");
    const heads = join(directory, "web-1.heads");
    const kept = await operator.run("audit", "heads", "web-1");
    expect(kept.code, kept.stderr).toBe(0);
    expect(kept.stdout.trim().split("\n").length).toBeGreaterThan(1);
    await writeFile(heads, kept.stdout);
    const verify = (...more: string[]) =>
      onHost(web, "audit", "verify", "--host", id, "--heads", heads, ...more);
    const whole = verify();
    expect(whole.code, whole.stdout + whole.stderr).toBe(0);
    expect(JSON.parse(whole.stdout)).toMatchObject({ faults: [] });
    expect((JSON.parse(whole.stdout) as { heads: number }).heads).toBeGreaterThan(1);

    // Someone with root's rights edits the journal, or deletes from it: in a copy, which names the fault all the same.
    const spoilt = async (name: string, sql: string) => {
      const copy = join(directory, name);
      await cp(web.rights.paths.executorState, copy, { recursive: true });
      using database = new DatabaseSync(join(copy, "journal.db"));
      database.exec(sql);
      return copy;
    };
    const middle = entries[Math.floor(entries.length / 2)]!.seq;
    for (const [fault, sql] of [
      ["edited", `UPDATE audit SET text = replace(text, '"at":', '"at": ') WHERE seq = ${middle}`],
      ["deleted", `DELETE FROM audit WHERE seq = ${middle}`],
      ["truncated", `DELETE FROM audit WHERE seq > ${middle}`],
    ] as const) {
      const copy = await spoilt(fault, sql);
      const run = spawnSync(
        process.execPath,
        [
          bedplateProgram,
          ...["--json", "audit", "verify", "--host", id, "--heads", heads, "--journal", copy],
        ],
        { encoding: "utf8", env: { PATH: process.env.PATH, HOME: directory } },
      );
      expect(run.status, run.stdout + run.stderr).toBe(1);
      const broken = JSON.parse(run.stdout) as Failure & { faults: { fault: string }[] };
      expect(broken.error.code).toBe("audit.broken");
      expect(broken.faults.map((one) => one.fault)).toContain(fault);
    }

    const reset = onHost(web, "fence", "reset", "--yes");
    expect(reset.code, reset.stderr).toBe(0);
    expect(JSON.parse(onHost(web, "fence", "show").stdout)).toEqual({ fence: null });
    const after = JSON.parse(onHost(web, "audit", "show", "--lines", "1").stdout) as {
      entries: { event: string }[];
    };
    expect(after.entries[0]!.event).toBe("fence-reset");
  },
);

test.runIf(here)(
  "the authority changes under a host that is connected; client and host go on",
  {
    timeout: 60_000,
  },
  async () => {
    const old = JSON.parse(await readFile(stage.clientFile, "utf8")) as { ca: string };
    const file = join(directory, "old-client.json");
    await writeFile(file, JSON.stringify(old), { mode: 0o600 });
    const begun = await operator.json<{ state: string; authorities: string[] }>(0, "controller", "rotate-ca");
    expect(begun).toMatchObject({ state: "overlapping" });
    expect(begun.authorities).toHaveLength(2);
    // Who trusts the old one only is served all the same.
    await operator.json(0, "hosts", "--client", file);
    await expect
      .poll(
        async () =>
          (await operator.json<{ waiting: unknown[] }>(0, "controller", "rotate-ca", "--status")).waiting
            .length,
        { timeout: 30_000, interval: 500 },
      )
      .toBe(0);
    expect(await operator.json(0, "controller", "rotate-ca", "--finish")).toMatchObject({
      state: "finished",
    });
    await operator.json(0, "ping", "web-1");
    expect(await operator.refusal("hosts", "--client", file)).toEqual([8, "controller.untrusted"]);
  },
);
