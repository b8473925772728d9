// What operators sign, by real executor processes: the one good command runs once, and every other is refused by name,
// audited, and leaves the disk as it was.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { chmod, rm } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { FileDisk } from "../../agent/devices/disks.ts";
import { attestationKeyLine } from "../../agent/executor/attestation.ts";
import { checkAudit } from "../../agent/executor/audit-check.ts";
import { openJournal, readJournal } from "../../agent/executor/journal.ts";
import { systemFiles } from "../../agent/host/files.ts";
import { type Command, type DeployPlanOutput, encodeCommand } from "../../protocol/commands.ts";
import { type Plan, verifyPlan } from "../../protocol/plans.ts";
import { type DeployStage, deployOf, openDeployStage } from "../support/deploy-stage.ts";
import {
  attach,
  auditOf,
  declared,
  type ExecutorHost,
  hostId,
  mintId,
  type RunOptions,
  resultOf,
  runRequest,
  runToEnd,
  sha256Of,
} from "../support/executor-host.ts";
import { holdAfter, type ImageServer } from "../support/image-server.ts";
import { makeOperator, type Operator, sshKeygenPresent, weakRsaLine } from "../support/operators.ts";
import { makeImage, type TestImage } from "../support/test-image.ts";

if (!sshKeygenPresent) console.log("ssh-keygen is not installed: operators' keys are node's");

// Several executors after each other, which give way to whatever else runs on a busy machine.
const busy = { timeout: 180_000 } as const;
const mib = 1 << 20;
const diskBytes = 4 * mib;
let stage: DeployStage;
let host: ExecutorHost;
let image: TestImage;
let otherImage: TestImage;
let server: ImageServer;
let offer: RunOptions;
let people: Record<"alice" | "alice2" | "bob" | "carol" | "mallory", Operator>;
let disks: readonly FileDisk[];
/** What a plan said, and its artefact. */
interface Planned {
  readonly output: DeployPlanOutput;
  readonly plan: Plan;
  readonly digest: string;
}
let planned: Planned;

beforeAll(async () => {
  stage = await openDeployStage({ sizeBytes: 2 * mib + 5000 });
  ({ host, image, server } = stage);
  otherImage = await makeImage({ sizeBytes: mib });
  offer = { ...stage.offer, epoch: 5 };
  people = {
    alice: makeOperator(host.directory, "alice", "ed25519"),
    alice2: makeOperator(host.directory, "alice", "ecdsa"),
    bob: makeOperator(host.directory, "bob", "rsa"),
    carol: makeOperator(host.directory, "carol", "ecdsa"),
    mallory: makeOperator(host.directory, "mallory"),
  };
  disks = await Promise.all(["first", "second", "kept"].map((name) => host.makeOldDisk(name, diskBytes)));
  await host.writePolicy(policyText());
  planned = await plan();
}, busy.timeout);
afterAll(() => stage?.[Symbol.asyncDispose]());

interface PolicyChanges {
  readonly top?: string;
  readonly ops?: readonly Operator[];
  readonly deploy?: string;
  readonly more?: string;
}

function policyText({ top = "", ops, deploy = "", more = "" }: PolicyChanges = {}): string {
  const set = (operators: readonly Operator[]) => JSON.stringify(operators.map(({ line }) => line));
  const { alice, alice2, bob, carol } = people;
  return `allowDisks = ["file:first", "file:second", "file:kept"]
protectDisks = ["file:kept"]
${top}
${disks.map(declared).join("\n")}
[signers]
ops = ${set(ops ?? [alice, alice2, bob])}
auditors = ${set([carol])}
[kinds."image.deploy"]
signatures = { k = 2, from = ["ops"] }
${deploy}
[kinds."host.exec"]
signatures = { k = 1, from = ["auditors"] }
argv = [["/usr/bin/env"], ["/bin/true", "*"]]
${more}`;
}

const planCommand = (name = "first") => deployOf(image, { name }, "plan");

async function plan(disk = "first"): Promise<Planned> {
  const { last } = await runToEnd(host, planCommand(disk), offer);
  const output = resultOf(last).output as DeployPlanOutput;
  const { plan } = await verifyPlan(output.artefact!, attestationKey());
  const digest = createHash("sha256").update(output.artefact!.text).digest("hex");
  return { output, plan, digest };
}

function attestationKey(): string {
  return attestationKeyLine(systemFiles, host.stateDirectory, process.geteuid!())!;
}

/** The apply that a plan is for, as an operator signs it; `changes` replace members of it. */
function applyOf({ plan, digest }: Planned, changes: object = {}): Command {
  const { id, hostname, chassisSerial } = plan;
  return {
    id: mintId(),
    host: hostId,
    kind: "image.deploy",
    mode: "apply",
    arguments: plan.arguments,
    limits: {},
    plan: { id, digest, hostname, chassisSerial },
    ...changes,
  } as Command;
}

async function signedBy(command: Command, ...operators: readonly Operator[]): Promise<RunOptions> {
  const bytes = encodeCommand(command);
  return { ...offer, signatures: await Promise.all(operators.map((operator) => operator.sign(bytes))) };
}
const byBoth = (command: Command) => signedBy(command, people.alice, people.bob);

const auditEntries = () => auditOf(host);

const hashes = () => Promise.all(disks.map(({ path }) => sha256Of(path)));

/** Runs a command that must come to nothing: refused, or failed before it changed anything. */
async function comesToNothing(
  command: Command,
  options: RunOptions,
  code: string,
  words = "",
): Promise<void> {
  const before = await hashes();
  const { last } = await runToEnd(host, command, options);
  const error = last.type === "refused" ? last.error : resultOf(last).error;
  expect(error?.code, error?.message).toBe(code);
  expect(error?.message).toContain(words);
  expect(await hashes()).toEqual(before);
  const said = auditEntries().filter((entry) => entry.command === command.id);
  expect(said[0]?.event).toBe("offered");
  expect(said.at(-1)).toMatchObject({
    event: last.type === "refused" ? "refused" : "ended",
    detail: { code },
  });
}

test("a plan is signed by the host's attestation key, and says what the policy wants", () => {
  const { plan, output } = planned;
  expect(plan).toMatchObject({
    host: hostId,
    kind: "image.deploy",
    arguments: { image: image.reference, disk: { file: "first" }, fingerprint: output.fingerprint },
    facts: { disk: { path: disks[0]!.path }, bytesToFetchMax: output.bytesToFetchMax },
    requires: { k: 2, from: ["ops"], operators: ["alice", "bob"] },
    allowed: true,
    policy: createHash("sha256").update(policyText()).digest("hex"),
  });
  expect(plan.expiresAt - plan.issuedAt).toBe(86_400_000);
  expect(plan.findings.map(({ guard }) => guard)).toContain("signatures");
});

describe("what is signed", busy, () => {
  type Case = [name: string, code: string, make: () => Promise<readonly [Command, RunOptions]>];
  const apply = (changes: object = {}) => applyOf(planned, changes);
  const quoting = (more: object) => apply({ plan: { ...apply().plan!, ...more } });
  const signed = async (command: Command) => [command, await byBoth(command)] as const;
  const withSignatures = async (...make: ((bytes: Uint8Array) => Promise<string>)[]) => {
    const command = apply();
    const bytes = encodeCommand(command);
    return [command, { ...offer, signatures: await Promise.all(make.map((one) => one(bytes))) }] as const;
  };
  const by = (who: keyof typeof people, namespace?: "bedplate-plan" | "file") => (bytes: Uint8Array) =>
    people[who].sign(bytes, namespace);
  const cases: readonly Case[] = [
    ["by nobody", "policy.signature-required", () => withSignatures()],
    ["by one of two", "policy.signature-required", () => withSignatures(by("alice"))],
    ["by one operator twice", "policy.signature-required", () => withSignatures(by("alice"), by("alice"))],
    [
      "by one operator's two keys",
      "policy.signature-required",
      () => withSignatures(by("alice"), by("alice2")),
    ],
    [
      "by an operator of another set",
      "policy.signature-required",
      () => withSignatures(by("alice"), by("carol")),
    ],
    ["by a stranger", "signature.unknown-key", () => withSignatures(by("alice"), by("mallory"))],
    [
      "for another use",
      "signature.wrong-namespace",
      () => withSignatures(by("alice"), by("bob", "bedplate-plan")),
    ],
    [
      "for ssh-keygen's own use",
      "signature.wrong-namespace",
      () => withSignatures(by("alice"), by("bob", "file")),
    ],
    ["no signature at all", "signature.malformed", () => withSignatures(by("alice"), async () => "bob")],
    [
      "over other bytes",
      "signature.invalid",
      () => withSignatures(by("alice"), (bytes) => people.bob.sign(Uint8Array.of(...bytes, 10))),
    ],
    [
      "over the same command under another id",
      "signature.invalid",
      async () => {
        const [other, command] = [apply(), apply()];
        return [command, await byBoth(other)];
      },
    ],
    ["for another host", "command.wrong-host", () => signed(apply({ host: "cd".repeat(32) }))],
    ["for a machine of another name", "command.wrong-host", () => signed(quoting({ hostname: "elsewhere" }))],
    ["for another chassis", "command.wrong-host", () => signed(quoting({ chassisSerial: "CN7016" }))],
    [
      "for another disk",
      "plan.changed",
      () => signed(apply({ arguments: { ...planned.plan.arguments, disk: { file: "second" } } })),
    ],
    [
      "for another image",
      "plan.changed",
      () => signed(apply({ arguments: { ...planned.plan.arguments, image: otherImage.reference } })),
    ],
    [
      "for a disk with another fingerprint",
      "plan.changed",
      () =>
        signed(
          apply({
            arguments: {
              ...planned.plan.arguments,
              fingerprint: { ...planned.output.fingerprint, edges: "00".repeat(32) },
            },
          }),
        ),
    ],
    ["of a plan with other bytes", "plan.changed", () => signed(quoting({ digest: "00".repeat(32) }))],
    ["of a plan that nobody made", "plan.unknown", () => signed(quoting({ id: mintId() }))],
    ["of no plan", "plan.required", () => signed(apply({ plan: undefined }))],
    ["too late", "command.expired", () => signed(apply({ limits: { notAfter: 1_700_000_000_000 } }))],
  ];
  test.each(cases)("%s: %s", async (_, code, make) => {
    const [command, options] = await make();
    await comesToNothing(command, options, code);
  });
});

describe("what the policy says", busy, () => {
  const restored = async (work: () => Promise<void>) => {
    try {
      await work();
    } finally {
      await host.writePolicy(policyText());
      await chmod(host.policyFile, 0o600);
    }
  };
  const under = (changes: PolicyChanges, code: string, words?: string) =>
    restored(async () => {
      await host.writePolicy(policyText(changes));
      const command = applyOf(planned);
      await comesToNothing(command, await byBoth(command), code, words);
    });

  test("written by others: policy.unsafe", () =>
    restored(async () => {
      await chmod(host.policyFile, 0o622);
      const command = applyOf(planned);
      await comesToNothing(command, await byBoth(command), "policy.unsafe");
    }));
  test("denied: policy.denied", () => under({ top: 'denyKinds = ["image.deploy"]' }, "policy.denied"));
  test("the signer is none any more: signature.unknown-key", () =>
    under({ ops: [people.alice, people.mallory] }, "signature.unknown-key"));
  test("a key of RSA with 1024 bits is no signer: config.invalid", () => {
    const weak = weakRsaLine("bob");
    return under({ ops: [people.alice, { ...people.bob, line: weak }] }, "config.invalid", "1024 bits");
  });
  test("not now: policy.outside-window", () => {
    const day = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"][(new Date().getUTCDay() + 3) % 7];
    return under(
      {
        deploy: 'window = "later"',
        more: `[windows.later]\ndays = ["${day}"]\nfrom = "03:00"\nto = "03:01"\n`,
      },
      "policy.outside-window",
    );
  });
  test("its signatures are kept with the refusal, by which it is told from noise", () =>
    restored(async () => {
      await host.writePolicy(policyText({ top: "destructivePerDay = 0" }));
      const command = applyOf(planned);
      await comesToNothing(command, await byBoth(command), "policy.too-many");
      using journal = openJournal(host.stateDirectory);
      expect(journal.operation(command.id)?.signatures).toHaveLength(2);
    }));
  test("none today: policy.too-many", () => under({ top: "destructivePerDay = 0" }, "policy.too-many"));
  test("neither signatures nor unsigned: policy.signature-required", () =>
    restored(async () => {
      await host.writePolicy(policyText().replace("signatures = { k = 2", "# "));
      const command = applyOf(planned);
      await comesToNothing(command, await byBoth(command), "policy.signature-required");
    }));
  test("a protected disk, planned and signed all the same: disk.protected", async () => {
    const kept = await plan("kept");
    expect(kept.plan.allowed).toBe(false);
    expect(kept.output.guards[0]).toMatchObject({ guard: "protected", ok: false, code: "disk.protected" });
    const command = applyOf(kept);
    await comesToNothing(command, await byBoth(command), "disk.protected");
  });
  test("a program that is not listed, signed by whom it should be: policy.exec-not-allowed", async () => {
    const command = {
      ...applyOf(planned),
      kind: "host.exec",
      arguments: { argv: ["/bin/true", "a", "b"] },
    } as Command;
    await comesToNothing(command, await signedBy(command, people.carol), "policy.exec-not-allowed");
  });
});

describe("what is signed well runs once", busy, () => {
  let ran: Command;
  let options: RunOptions;
  const generation = 5000;

  test("with two operators' signatures, whatever else lies beside them", async () => {
    ran = applyOf(planned);
    options = await signedBy(ran, people.carol, people.alice, people.alice2, people.bob);
    const { last } = await runToEnd(host, ran, { ...options, generation });
    expect(resultOf(last)).toMatchObject({ outcome: "succeeded", output: { root: image.reference.root } });
    const said = auditEntries().filter(({ command }) => command === ran.id);
    expect(said.map(({ event, detail }) => (event === "step" ? `step ${detail.step}` : event))).toEqual([
      "offered",
      "accepted",
      "started",
      "step prepare",
      "step write",
      "step verify",
      "step seal",
      "step point-of-no-return",
      "ended",
    ]);
    expect(said[1]!.detail).toMatchObject({ signedBy: ["alice", "bob"], plan: planned.plan.id });
  });

  test("the same document again is answered with its result, and runs no second time", async () => {
    const before = await hashes();
    const again = await runToEnd(host, ran, { ...options, generation: generation + 1 });
    expect(resultOf(again.last).outcome).toBe("succeeded");
    expect(await hashes()).toEqual(before);
    expect(
      auditEntries().filter(({ command, event }) => command === ran.id && event === "started"),
    ).toHaveLength(1);
  });

  test("other content under its id is a conflict, and audited", async () => {
    const other = { ...ran, limits: { notAfter: 9e15 } } as Command;
    const executor = host.start({
      request: "run",
      document: Buffer.from(encodeCommand(other)).toString("base64"),
      signatures: [],
      generation: generation + 1,
      epoch: 5,
      sources: [],
      ca: "",
      host: hostId,
    });
    expect(await executor.ended).toBe(3);
    expect(auditEntries().at(-1)).toMatchObject({
      event: "refused",
      command: ran.id,
      detail: { code: "command.id-conflict" },
    });
  });

  test("its plan is used: another command with it is plan.used", async () => {
    const command = applyOf(planned);
    await comesToNothing(command, { ...(await byBoth(command)), generation: generation + 1 }, "plan.used");
  });

  test.each([
    ["of a lower epoch", { epoch: 4, generation: generation + 1 }, "command.stale-epoch"],
    ["of a lower generation", { generation: generation - 1 }, "command.stale-generation"],
    ["of the same generation", { generation }, "command.generation-conflict"],
    ["of an absurd generation", { generation: generation + 2_000_000 }, "command.generation-jump"],
  ])("another one %s is refused", async (_, how, code) => {
    const fresh = await plan();
    const command = applyOf(fresh);
    await comesToNothing(command, { ...(await byBoth(command)), ...how }, code);
  });

  test("cut off, and its signer taken out of the policy: it is not resumed, and the disk boots nothing", async () => {
    const command = applyOf(await plan("second"));
    const request = runRequest(command, { ...(await byBoth(command)), generation: generation + 1 });
    using still = holdAfter(server, 1);
    try {
      const first = host.start(request);
      const follower = await attach(host, command.id);
      await follower.until((event) => event.type === "progress" && event.progress.phase === "write");
      first.process.kill("SIGKILL");
      await first.ended;
      await host.writePolicy(policyText({ ops: [people.alice, people.mallory] }));
      // Whoever starts it again may bring other signatures: those that it was accepted with are what counts.
      const second = host.start({ ...request, signatures: [] } as typeof request);
      const again = await attach(host, command.id);
      const result = resultOf(await again.last);
      again.close();
      expect(result).toMatchObject({ outcome: "failed", error: { code: "signature.unknown-key" } });
      await second.ended;
      const bytes = readFileSync(disks[1]!.path).subarray(0, 64).toString("latin1");
      expect(bytes).toContain("BEDPLATE DEPLOY IN PROGRESS");
    } finally {
      still.release();
      await host.writePolicy(policyText());
    }
  });

  test("cut off, and the policy as it was: it is resumed without its signatures being sent again", async () => {
    const command = applyOf(await plan("second"));
    const request = runRequest(command, { ...(await byBoth(command)), generation: generation + 2 });
    using still = holdAfter(server, 1);
    const first = host.start(request);
    const follower = await attach(host, command.id);
    await follower.until((event) => event.type === "progress" && event.progress.phase === "write");
    first.process.kill("SIGKILL");
    await first.ended;
    still.release();
    const second = host.start({ ...request, signatures: [] } as typeof request);
    const again = await attach(host, command.id);
    const result = resultOf(await again.last);
    again.close();
    expect(result).toMatchObject({ outcome: "succeeded", output: { resumed: { times: 1 } } });
    await second.ended;
  });

  test("a plan that is too old is plan.expired", async () => {
    const fresh = await plan();
    {
      using database = new DatabaseSync(`${host.stateDirectory}/journal.db`);
      database.prepare("UPDATE plans SET expires_at = 1000 WHERE id = ?").run(fresh.plan.id);
    }
    const command = applyOf(fresh);
    await comesToNothing(command, { ...(await byBoth(command)), generation: generation + 3 }, "plan.expired");
  });

  test("with the journal lost, nothing that was signed before runs again", async () => {
    using journal = readJournal(host.stateDirectory);
    const kept = journal.audit();
    const heads = journal.signedHeads(1000).map((head) => ({ ...head, from: "events" }));
    for (const name of ["journal.db", "journal.db-wal", "journal.db-shm"])
      await rm(`${host.stateDirectory}/${name}`, { force: true });
    await comesToNothing(ran, { ...options, generation: generation + 9 }, "plan.unknown");
    // And the loss is seen: what was signed of the audit before is beyond what is there now.
    using anew = readJournal(host.stateDirectory);
    expect(await checkAudit(hostId, kept, heads, [attestationKey()])).toMatchObject({ faults: [] });
    const { faults } = await checkAudit(hostId, anew.audit(), heads, [attestationKey()]);
    expect(new Set(faults.map(({ fault }) => fault))).toEqual(new Set(["truncated", "forked"]));
  });
});
