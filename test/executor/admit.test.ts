// Admission: the decision over facts, in every case that the delivery contract and the policy name.
import { describe, expect, test } from "vitest";
import {
  type AdmissionFacts,
  admit,
  type GoingOnFacts,
  goingOnFault,
  repeatsMax,
  resumesMax,
  waitingMax,
} from "../../agent/executor/admit.ts";
import { generationJumpMax } from "../../agent/executor/fence.ts";
import { noRules, type PolicyRules, type SignatureFacts } from "../../agent/policy/rules.ts";
import type { Command, Effect, OperationState } from "../../protocol/commands.ts";
import { parseSignerSets } from "../../protocol/signer-sets.ts";
import { makeSigner } from "../protocol/ssh-signers.ts";

const host = "aa".repeat(32);
const digest = "dd".repeat(32);
const planDigest = "ee".repeat(32);
const planId = "019ab000-0000-7000-8000-0000000000aa";
const given = { image: { root: "11".repeat(32), sizeBytes: 5 }, disk: { serial: "S1" } };
const decoded = {
  id: "x",
  host,
  kind: "image.deploy",
  mode: "apply",
  limits: {},
  arguments: given,
} as unknown as Command;
const quote = { id: planId, digest: planDigest, hostname: "h1", chassisSerial: "C1" };
const issued = {
  id: planId,
  kind: "image.deploy",
  digest: planDigest,
  arguments: { disk: { serial: "S1" }, image: { sizeBytes: 5, root: "11".repeat(32) } },
  expiresAt: 2_000_000,
  usedBy: null,
};
const [alice, bob, carol] = ["alice", "bob", "carol"].map((name) => ({
  name,
  key: makeSigner("ssh-ed25519"),
}));
const signers = parseSignerSets({
  ops: [alice!.key.line("alice"), bob!.key.line("bob")],
  auditors: [carol!.key.line("carol")],
});
const verified = (...names: string[]): SignatureFacts => ({
  verified: names.map((name) => {
    const { key } = signers.flatMap((set) => set.signers).find(({ operator }) => operator === name)!;
    return { key, fingerprint: `SHA256:${name}` };
  }),
  refused: [],
});
const unsigned: PolicyRules = { ...noRules, unsigned: ["image.deploy", "host.exec"] };
const rule = { signatures: null, window: null, exec: null };
const twoOfOps: PolicyRules = {
  ...noRules,
  signers,
  kinds: { "image.deploy": { ...rule, signatures: { k: 2, from: ["ops"] } } },
};
const facts = (changes: Partial<AdmissionFacts> = {}): AdmissionFacts => ({
  nowMs: 1_000_000,
  host,
  hostname: "h1",
  chassisSerial: "C1",
  epoch: 3,
  generation: 8,
  fence: { epoch: 3, generation: 7, digest: "cc".repeat(32) },
  digest,
  command: { decoded, effect: "resumable" },
  known: undefined,
  policy: { state: "present", rules: unsigned },
  signatures: { verified: [], refused: [] },
  plan: undefined,
  destructiveToday: 0,
  lane: "taken",
  ...changes,
});
const asked = (more: object, effect: Effect = "resumable") => ({
  command: { decoded: { ...decoded, ...more } as Command, effect },
});
const ruled = (rules: Partial<PolicyRules>) => ({
  policy: { state: "present" as const, rules: { ...unsigned, ...rules } },
});
/** An offer that two operators signed, quoting a plan of this host's: it starts. */
const signed = (changes: Partial<AdmissionFacts> = {}) =>
  facts({
    ...asked({ plan: quote }),
    policy: { state: "present", rules: twoOfOps },
    signatures: verified("alice", "bob"),
    plan: issued,
    ...changes,
  });
const known = (state: OperationState, effect: Effect, runs: number, sameDocument = true) => ({
  state,
  effect,
  runs,
  sameDocument,
});
const codeOf = (given: AdmissionFacts) => {
  const admission = admit(given);
  return "error" in admission ? `${admission.do} ${admission.error.code}` : admission.do;
};

describe("a new command", () => {
  test.each<[string, Partial<AdmissionFacts>, string]>([
    ["starts", {}, "start"],
    [
      "that cannot be read",
      { command: { error: { code: "command.unknown-kind", message: "" } } },
      "refuse command.unknown-kind",
    ],
    ["for another host", asked({ host: "bb".repeat(32) }, "read"), "refuse command.wrong-host"],
    ["after its time", asked({ limits: { notAfter: 999_999 } }, "read"), "refuse command.expired"],
    ["at its last moment", asked({ limits: { notAfter: 1_000_000 } }, "read"), "start"],
    ["denied by the policy", ruled({ denyKinds: ["image.deploy"] }), "refuse policy.denied"],
    [
      "denied by the policy, though it lists it as unsigned",
      ruled({ denyKinds: ["image.deploy"], unsigned: ["image.deploy"] }),
      "refuse policy.denied",
    ],
    [
      "with a policy that is not trusted",
      { policy: { state: "unusable", error: { code: "policy.unsafe", message: "" } } },
      "refuse policy.unsafe",
    ],
    [
      "that changes state, without a policy",
      { policy: { state: "missing", rules: noRules } },
      "refuse policy.missing",
    ],
    [
      "that reads, without a policy",
      { policy: { state: "missing", rules: noRules }, ...asked({}, "read"), lane: "not-needed" },
      "start",
    ],
    ["of an older epoch", { epoch: 2 }, "refuse command.stale-epoch"],
    ["that reads, of an older epoch", { epoch: 2, ...asked({}, "read"), lane: "not-needed" }, "start"],
    ["of a newer epoch, whose generations start over", { epoch: 4, generation: 1 }, "start"],
    ["of a lower generation", { generation: 6 }, "refuse command.stale-generation"],
    ["that reads, of a lower generation", { generation: 0, ...asked({}, "read") }, "start"],
    ["of the same generation", { generation: 7 }, "refuse command.generation-conflict"],
    [
      "that is the last one accepted, which the journal has forgotten",
      { generation: 7, digest: "cc".repeat(32) },
      "refuse command.stale-generation",
    ],
    ["of the farthest generation", { generation: 7 + generationJumpMax }, "start"],
    ["beyond it", { generation: 8 + generationJumpMax }, "refuse command.generation-jump"],
    ["the first ever, of any generation", { fence: undefined, generation: 9e15, epoch: 0 }, "start"],
    ["while another changes state", { lane: { busyWith: "other", waiting: 0 } }, "refuse executor.lane-busy"],
    [
      "that may wait for it",
      { lane: { busyWith: "other", waiting: 7 }, ...asked({ limits: { startWithinSeconds: 9 } }) },
      "start",
    ],
    [
      "that may wait, where too many do",
      { lane: { busyWith: "other", waiting: waitingMax }, ...asked({ limits: { startWithinSeconds: 9 } }) },
      "refuse executor.lane-busy",
    ],
  ])("%s", (_, changes, expected) => expect(codeOf(facts(changes))).toBe(expected));

  test("a busy lane names the operation that runs", () => {
    expect(admit(facts({ lane: { busyWith: "other-id", waiting: 0 } }))).toMatchObject({
      error: { details: { running: "other-id" }, message: expect.stringContaining("other-id") },
    });
  });

  test("that starts says what changes with it: fence, plan, whose signatures counted, the lane", () => {
    expect(admit(signed())).toEqual({
      do: "start",
      lane: "ready",
      fence: { epoch: 3, generation: 8, digest },
      usesPlan: planId,
      signedBy: ["alice", "bob"],
    });
    expect(
      admit(
        facts({
          lane: { busyWith: "other", waiting: 1 },
          ...asked({ limits: { startWithinSeconds: 9 } }),
        }),
      ),
    ).toMatchObject({ do: "start", lane: "wait", usesPlan: null, signedBy: [] });
    expect(admit(facts({ ...asked({}, "read"), lane: "not-needed" }))).toMatchObject({ fence: null });
  });
});

describe("signatures", () => {
  const bad = { code: "signature.invalid" as const, message: "It does not hold." };
  test.each<[string, Partial<AdmissionFacts>, string]>([
    ["of two operators", {}, "start"],
    ["none", { signatures: verified() }, "refuse policy.signature-required"],
    ["of one operator", { signatures: verified("alice") }, "refuse policy.signature-required"],
    [
      "of one operator, twice",
      { signatures: verified("alice", "alice") },
      "refuse policy.signature-required",
    ],
    [
      "of an operator of another set",
      { signatures: verified("alice", "carol") },
      "refuse policy.signature-required",
    ],
    [
      "one of which does not hold",
      { signatures: { ...verified("alice"), refused: [bad] } },
      "refuse signature.invalid",
    ],
    [
      "of two operators, and a third that does not hold: it does no harm",
      { signatures: { ...verified("alice", "bob"), refused: [bad] } },
      "start",
    ],
    [
      "none, of a kind that is listed as unsigned too: signatures win",
      {
        policy: { state: "present", rules: { ...twoOfOps, unsigned: ["image.deploy"] } },
        signatures: verified(),
      },
      "refuse policy.signature-required",
    ],
    [
      "of two operators, of a kind that the policy says nothing about",
      { policy: { state: "present", rules: { ...noRules, signers } } },
      "refuse policy.signature-required",
    ],
  ])("%s", (_, changes, expected) => expect(codeOf(signed(changes))).toBe(expected));

  test("what is missing is counted, and who could sign is named", () => {
    expect(admit(signed({ signatures: verified("bob", "bob", "carol") }))).toMatchObject({
      error: {
        message: expect.stringContaining("needs 2 of ops; has 1: bob"),
        details: {
          signedBy: ["bob"],
          couldSign: ["alice"],
          uncounted: [{ reason: "repeated" }, { reason: "not-a-signer" }],
        },
      },
    });
  });
});

describe("plans", () => {
  const quoting = (more: object, plan: Partial<typeof issued> | undefined = {}) => ({
    ...asked({ plan: { ...quote, ...more } }),
    plan: plan && { ...issued, ...plan },
  });
  test.each<[string, Partial<AdmissionFacts>, string]>([
    ["of this host, quoted as it is", {}, "start"],
    ["none, where operators sign", asked({}), "refuse plan.required"],
    ["that this host did not issue", { plan: undefined }, "refuse plan.unknown"],
    ["that was used", quoting({}, { usedBy: "other" } as object), "refuse plan.used"],
    ["that is too old", quoting({}, { expiresAt: 999_999 }), "refuse plan.expired"],
    ["at its last moment", quoting({}, { expiresAt: 1_000_000 }), "start"],
    ["with another digest", quoting({ digest: "ef".repeat(32) }), "refuse plan.changed"],
    ["of another kind", quoting({}, { kind: "host.reboot" }), "refuse plan.changed"],
    [
      "for another disk",
      asked({ plan: quote, arguments: { ...given, disk: { serial: "S2" } } }),
      "refuse plan.changed",
    ],
    [
      "for another image",
      asked({ plan: quote, arguments: { ...given, image: { ...given.image, sizeBytes: 6 } } }),
      "refuse plan.changed",
    ],
    [
      "with a member more",
      asked({ plan: quote, arguments: { ...given, force: true } }),
      "refuse plan.changed",
    ],
    ["with a member less", asked({ plan: quote, arguments: { disk: given.disk } }), "refuse plan.changed"],
    ["for a machine of another name", quoting({ hostname: "h2" }), "refuse command.wrong-host"],
    ["for another chassis", quoting({ chassisSerial: "C2" }), "refuse command.wrong-host"],
    ["for a chassis without a number", quoting({ chassisSerial: null }), "refuse command.wrong-host"],
    ["on a machine that tells no number", { chassisSerial: null }, "refuse command.wrong-host"],
  ])("%s", (_, changes, expected) => expect(codeOf(signed(changes))).toBe(expected));

  test("one quoted where nobody signs counts the same", () => {
    const rules = { policy: { state: "present" as const, rules: unsigned } };
    expect(codeOf(signed({ ...rules, plan: undefined }))).toBe("refuse plan.unknown");
    expect(admit(signed({ ...rules, signatures: verified() }))).toMatchObject({ usesPlan: planId });
  });
});

describe("windows and quotas", () => {
  const window = { name: "w", days: ["thu" as const], fromMinute: 0, toMinute: 60 };
  const kinds = { "image.deploy": { ...rule, window } };
  test.each<[string, Partial<AdmissionFacts>, string]>([
    ["within the window", ruled({ kinds }), "start"],
    ["after it", { ...ruled({ kinds }), nowMs: 3_600_000, plan: undefined }, "refuse policy.outside-window"],
    ["below the quota", { ...ruled({ destructivePerDay: 2 }), destructiveToday: 1 }, "start"],
    ["at the quota", { ...ruled({ destructivePerDay: 2 }), destructiveToday: 2 }, "refuse policy.too-many"],
    ["where none is allowed", ruled({ destructivePerDay: 0 }), "refuse policy.too-many"],
    [
      "a kind that overwrites no disk",
      {
        ...ruled({ destructivePerDay: 0, unsigned: ["host.reboot"] }),
        ...asked({ kind: "host.reboot", arguments: {} }),
      },
      "start",
    ],
  ])("%s", (_, changes, expected) => expect(codeOf(facts(changes))).toBe(expected));

  test("a closed window tells when it opens", () => {
    expect(admit(facts({ ...ruled({ kinds }), nowMs: 3_600_000 }))).toMatchObject({
      error: { details: { opensAt: "1970-01-08T00:00:00.000Z" } },
    });
  });
});

describe("host.exec", () => {
  const exec = (list: readonly string[][], more: object = {}) =>
    ruled({
      kinds: {
        "host.exec": {
          ...rule,
          exec: { argv: list, shell: false, environment: [], directories: [], ...more },
        },
      },
    });
  const run = (argv: string[], more: object = {}) =>
    asked({ kind: "host.exec", arguments: { argv, ...more } }, "once");
  test.each<[string, Partial<AdmissionFacts>, string]>([
    ["listed", { ...exec([["/bin/a", "b"]]), ...run(["/bin/a", "b"]) }, "start"],
    ["without a list", { ...ruled({}), ...run(["/bin/a"]) }, "refuse policy.exec-not-allowed"],
    [
      "not listed, and signed",
      { ...exec([["/bin/a"]]), ...run(["/bin/a", "b"]), signatures: verified("alice", "bob") },
      "refuse policy.exec-not-allowed",
    ],
    [
      "with a variable that is not listed",
      { ...exec([["/bin/a"]]), ...run(["/bin/a"], { environment: { LD_PRELOAD: "/tmp/x" } }) },
      "refuse policy.exec-not-allowed",
    ],
    [
      "with a variable that is",
      { ...exec([["/bin/a"]], { environment: ["TZ"] }), ...run(["/bin/a"], { environment: { TZ: "UTC" } }) },
      "start",
    ],
    [
      "in a directory that is not listed",
      { ...exec([["/bin/a"]], { directories: ["/srv"] }), ...run(["/bin/a"], { directory: "/srv/x" }) },
      "refuse policy.exec-not-allowed",
    ],
    [
      "in a directory that is",
      { ...exec([["/bin/a"]], { directories: ["/srv"] }), ...run(["/bin/a"], { directory: "/srv" }) },
      "start",
    ],
    ["in / by name", { ...exec([["/bin/a"]]), ...run(["/bin/a"], { directory: "/" }) }, "start"],
    [
      "a shell that a pattern would match",
      { ...exec([["/bin/sh", "**"]]), ...run(["/bin/sh", "-c", "id"]) },
      "refuse policy.exec-not-allowed",
    ],
    [
      "a shell that is allowed",
      { ...exec([["/bin/sh", "**"]], { shell: true }), ...run(["/bin/sh", "-c", "id"]) },
      "start",
    ],
  ])("%s", (_, changes, expected) => expect(codeOf(facts(changes))).toBe(expected));
});

describe("a known one", () => {
  test.each(["refused", "succeeded", "failed", "cancelled", "timed-out", "indeterminate"] as const)(
    "that is %s is replayed, whatever else has changed",
    (state) => {
      expect(
        codeOf(
          facts({
            known: known(state, "once", 1),
            epoch: 0,
            generation: 0,
            policy: { state: "missing", rules: noRules },
            nowMs: 1e15,
          }),
        ),
      ).toBe("replay");
    },
  );

  test.each<[Effect, number, string]>([
    ["resumable", 1, "resume"],
    ["resumable", resumesMax - 1, "resume"],
    ["resumable", resumesMax, "conclude executor.failed"],
    ["read", 1, "resume"],
    ["read", repeatsMax, "conclude executor.failed"],
    ["idempotent", repeatsMax - 1, "resume"],
    ["idempotent", repeatsMax, "conclude executor.failed"],
    ["once", 1, "conclude command.indeterminate"],
    ["once", 0, "resume"],
  ])("cut off, of effect %s, after %i runs: %s", (effect, runs, expected) => {
    expect(codeOf(facts({ known: known("running", effect, runs) }))).toBe(expected);
  });

  test("is resumed past its time and its epoch, and waits for a busy lane", () => {
    const late = facts({ known: known("running", "resumable", 1), nowMs: 1e15, epoch: 0, generation: 0 });
    expect(admit(late)).toEqual({ do: "resume", lane: "ready" });
    expect(admit({ ...late, lane: { busyWith: "other", waiting: 0 } })).toEqual({
      do: "resume",
      lane: "wait",
    });
  });

  test("with other content is a conflict, in every state", () => {
    for (const state of ["accepted", "running", "succeeded", "refused"] as const) {
      expect(codeOf(facts({ known: known(state, "read", 1, false) }))).toBe("conflict command.id-conflict");
    }
  });
});

describe("before each run the policy is asked again", () => {
  const window = { name: "w", days: ["thu" as const], fromMinute: 0, toMinute: 1 };
  const windowed: PolicyRules = {
    ...twoOfOps,
    kinds: { "image.deploy": { ...rule, signatures: { k: 2, from: ["ops"] }, window } },
  };
  const going = (changes: Partial<GoingOnFacts>): GoingOnFacts => ({
    nowMs: 1000,
    policy: { state: "present", rules: windowed },
    command: decoded,
    effect: "resumable",
    signatures: verified("alice", "bob"),
    runs: 1,
    noReturn: false,
    ...changes,
  });
  const unusable = { state: "unusable", error: { code: "policy.unsafe", message: "" } } as const;
  test.each<[string, Partial<GoingOnFacts>, string | undefined]>([
    ["nothing has changed", {}, undefined],
    ["a signer was taken out", { signatures: verified("alice") }, "policy.signature-required"],
    [
      "the kind is denied",
      { policy: { state: "present", rules: { ...windowed, denyKinds: ["image.deploy"] } } },
      "policy.denied",
    ],
    ["the policy is gone", { policy: { state: "missing", rules: noRules } }, "policy.missing"],
    ["the policy is not trusted", { policy: unusable }, "policy.unsafe"],
    ["the window has closed in between", { nowMs: 1e6 }, undefined],
    ["the window closed while it waited", { nowMs: 1e6, runs: 0 }, "policy.outside-window"],
    [
      "its time passed while it waited",
      { runs: 0, command: { ...decoded, limits: { notAfter: 999 } } },
      "command.expired",
    ],
    [
      "its time passed after its first run",
      { command: { ...decoded, limits: { notAfter: 999 } } },
      undefined,
    ],
    [
      "past the point of no return a signer was taken out",
      { noReturn: true, signatures: verified() },
      undefined,
    ],
    [
      "past the point of no return the policy is not trusted",
      { noReturn: true, policy: unusable },
      "policy.unsafe",
    ],
    [
      "a read, without a policy",
      { effect: "read", policy: { state: "missing", rules: noRules }, signatures: verified() },
      undefined,
    ],
  ])("%s: %s", (_, changes, code) => expect(goingOnFault(going(changes))?.code).toBe(code));
});
