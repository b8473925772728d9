// Admission: the decision over facts, in every case that the delivery contract names.
import { describe, expect, test } from "vitest";
import { type AdmissionFacts, admit, repeatsMax, resumesMax } from "../../agent/executor/admit.ts";
import type { Command, Effect, OperationState } from "../../protocol/commands.ts";

const host = "aa".repeat(32);
const decoded = {
  id: "x",
  host,
  kind: "image.deploy",
  mode: "apply",
  limits: {},
  arguments: {},
} as unknown as Command;
const facts = (changes: Partial<AdmissionFacts> = {}): AdmissionFacts => ({
  nowMs: 1_000_000,
  host,
  epoch: 3,
  epochSeen: 3,
  command: { decoded, effect: "resumable" },
  known: undefined,
  policy: { state: "present", denyKinds: [] },
  lane: "taken",
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
    [
      "for another host",
      { command: { decoded: { ...decoded, host: "bb".repeat(32) }, effect: "read" } },
      "refuse command.wrong-host",
    ],
    [
      "after its time",
      { command: { decoded: { ...decoded, limits: { notAfter: 999_999 } }, effect: "read" } },
      "refuse command.expired",
    ],
    [
      "at its last moment",
      { command: { decoded: { ...decoded, limits: { notAfter: 1_000_000 } }, effect: "read" } },
      "start",
    ],
    [
      "denied by the policy",
      { policy: { state: "present", denyKinds: ["image.deploy"] } },
      "refuse policy.denied",
    ],
    [
      "with a policy that is not trusted",
      { policy: { state: "unusable", error: { code: "policy.unsafe", message: "" } } },
      "refuse policy.unsafe",
    ],
    [
      "that changes state, without a policy",
      { policy: { state: "missing", denyKinds: [] } },
      "refuse policy.missing",
    ],
    [
      "that reads, without a policy",
      {
        policy: { state: "missing", denyKinds: [] },
        command: { decoded, effect: "read" },
        lane: "not-needed",
      },
      "start",
    ],
    ["of an older epoch", { epoch: 2 }, "refuse command.stale-epoch"],
    [
      "that reads, of an older epoch",
      { epoch: 2, command: { decoded, effect: "read" }, lane: "not-needed" },
      "start",
    ],
    ["of a newer epoch", { epoch: 4 }, "start"],
    ["while another changes state", { lane: { busyWith: "other" } }, "refuse executor.lane-busy"],
  ])("%s", (_, changes, expected) => expect(codeOf(facts(changes))).toBe(expected));

  test("a busy lane names the operation that runs", () => {
    expect(admit(facts({ lane: { busyWith: "other-id" } }))).toMatchObject({
      error: { details: { running: "other-id" }, message: expect.stringContaining("other-id") },
    });
  });
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
            policy: { state: "missing", denyKinds: [] },
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
    const late = facts({ known: known("running", "resumable", 1), nowMs: 1e15, epoch: 0 });
    expect(admit(late)).toEqual({ do: "resume", lane: "ready" });
    expect(admit({ ...late, lane: { busyWith: "other" } })).toEqual({ do: "resume", lane: "wait" });
  });

  test("with other content is a conflict, in every state", () => {
    for (const state of ["accepted", "running", "succeeded", "refused"] as const) {
      expect(codeOf(facts({ known: known(state, "read", 1, false) }))).toBe("conflict command.id-conflict");
    }
  });
});
