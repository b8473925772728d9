// Why a command is not yet where it will be: in every state, whatever holds it, with what helps.
import { describe, expect, test } from "vitest";
import { explainCommand, sinceOf } from "../../controller/commands/explain.ts";
import { type CommandEvent, newCommandState, reduceCommand } from "../../controller/rules/reduce.ts";
import { retention } from "../../controller/rules/retention.ts";
import type { StoredCommand } from "../../controller/store/command-store.ts";
import { utf8 } from "../../protocol/bytes.ts";
import { isTerminal } from "../../protocol/commands.ts";
import type { Standing } from "../../protocol/schema.ts";
import { documentOf } from "../support/commands.ts";

const id = `6d2a91f033c40b7e${"0".repeat(48)}`;
const host = (standing: Standing) => ({ id, name: "web-1", standing, replacedBy: null });
const command = "c";
const life: CommandEvent[] = [
  { type: "offered" },
  { type: "received", command },
  { type: "accepted", command },
  { type: "running", command, run: 1 },
  { type: "running", command, run: 2 },
];
const commandIn = (
  events: readonly CommandEvent[],
  limits: object = {},
  more: Partial<StoredCommand> & { arguments?: object } = {},
): StoredCommand => {
  const { arguments: args = {}, ...rest } = more;
  const document = documentOf(id, { limits, arguments: args });
  return {
    ...events.reduce((state, event, i) => reduceCommand(state, event, 1000 + i), newCommandState(500)),
    ...{ id: JSON.parse(document).id, host: id, kind: "agent.ping", mode: "apply", signatures: [] },
    ...{ document: utf8(document), createdAt: 500, notAfter: 9000, generation: null },
    ...{ signaturesWanted: 0, outputBytes: 0 },
    ...rest,
  };
};
const signed = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ text: "", fingerprint: `SHA256:${i}`, addedAt: 600 }));

test("nothing waits without a reason, a next step and a command that helps; nothing that ended has any", () => {
  const cancels: CommandEvent[][] = [
    [],
    [{ type: "ask-cancel" }],
    [{ type: "ask-cancel" }, { type: "cancel", command, answer: "cancelling", reason: "Stopping." }],
    [{ type: "ask-cancel" }, { type: "cancel", command, answer: "too-late", reason: "Sealed." }],
    [{ type: "ask-pause", paused: true }],
    [
      { type: "ask-pause", paused: true },
      { type: "ask-pause", paused: false },
    ],
  ];
  const standings: Standing[] = ["pending", "approved", "quarantined", "revoked"];
  let open = 0;
  for (let length = 0; length <= life.length; length++) {
    for (const cancel of cancels) {
      for (const kind of ["agent.ping", "image.deploy", "host.reboot", "host.exec"]) {
        for (const signatures of [0, 1, 2]) {
          const more = {
            kind,
            signatures: signed(signatures),
            signaturesWanted: length === 0 ? 2 : signatures,
          };
          const found = commandIn([...life.slice(0, length), ...cancel], {}, more);
          for (const standing of standings) {
            for (const online of [true, false]) {
              const explained = explainCommand(found, host(standing), online, 2000);
              if (isTerminal(found.state)) {
                expect(explained).toEqual({ reason: null, deadline: null, next: null, suggest: null });
                continue;
              }
              open += 1;
              expect(explained.reason, found.state).toMatch(/\w/);
              expect(explained.next, found.state).toMatch(/\w\.$/);
              expect(explained.suggest, found.state).toMatch(/^(bedplate|systemctl) /);
              if (!online && found.state !== "waiting") expect(explained.reason).toContain("not connected");
              if (cancel.length === 1 && cancel[0]!.type === "ask-cancel")
                expect(explained.reason).toContain("cancellation was asked for");
              if (cancel.length === 2 && cancel[0]!.type === "ask-cancel")
                expect(explained.reason).toMatch(/cancel.*(Stopping|Sealed)\.$/);
            }
          }
        }
      }
    }
  }
  expect(open).toBeGreaterThan(400);
});

describe("what holds a command that waits", () => {
  const deploy = { kind: "image.deploy", mode: "apply" };
  const explain = (found: StoredCommand, standing: Standing = "approved", online = true) =>
    explainCommand(found, host(standing), online, 2000);

  test("signatures: how many it lacks, and how to add one", () => {
    const one = commandIn([], {}, { ...deploy, signatures: signed(1), signaturesWanted: 2 });
    expect(explain(one)).toEqual({
      reason: "It needs 1 more signature: it has 1 of 2.",
      deadline: 9000,
      next: "It is sent to the host when it has them, and ends as expired if that is not before its deadline.",
      suggest: `bedplate command sign ${one.id}`,
    });
    const none = commandIn([], {}, { ...deploy, signaturesWanted: 3, notAfter: null });
    expect(explain(none)).toMatchObject({
      reason: "It needs 3 more signatures: it has 0 of 3.",
      deadline: 500 + retention.waitedMs,
      next: "It is sent to the host when it has them, and ends as expired if that is not before its deadline.",
    });
    // What else it will wait for is said as well: nobody is called to sign what cannot go anyhow.
    expect(explain(none, "approved", false).reason).toMatch(/3 more signatures.*agent\.offline /);
    expect(explain(none, "pending").reason).toMatch(/3 more signatures.*host\.pending /);
  });

  test("its host's standing: pending holds all, quarantine what is more than a read", () => {
    expect(explain(commandIn([]), "pending")).toMatchObject({
      reason: expect.stringMatching(/^host\.pending /),
      next: expect.stringMatching(/when the host is approved, and ends as expired/),
      suggest: "bedplate host approve web-1 --fingerprint 6D2A-91F0-33C4-0B7E",
    });
    const held = explain(commandIn([], {}, deploy), "quarantined");
    expect(held).toMatchObject({
      reason: expect.stringMatching(/^host\.quarantined /),
      next: expect.stringContaining("which of the machines is the true one"),
    });
    expect(explain(commandIn([]), "quarantined").reason).not.toMatch(/quarantine/);
    const offered = explain(commandIn(life.slice(0, 1), {}, deploy), "quarantined");
    expect(offered.reason).toMatch(/has not confirmed it yet\. host\.quarantined /);
  });

  test("a host that is away", () => {
    expect(explain(commandIn([]), "approved", false)).toMatchObject({
      reason: expect.stringMatching(/^agent\.offline /),
      deadline: 9000,
      next: "It is sent when the host is connected, and ends as expired if that is not before its deadline.",
      suggest: expect.stringContaining("systemctl"),
    });
    for (let length = 1; length <= life.length; length++)
      expect(explain(commandIn(life.slice(0, length)), "approved", false).reason).toMatch(/^agent\.offline /);
  });
});

test("the deadline is what really ends it: the time to start, then the time to run", () => {
  const at = (length: number, limits?: object, more?: object) =>
    explainCommand(commandIn(life.slice(0, length), limits, more), host("approved"), true, 2000).deadline;
  expect([at(0), at(1), at(4), at(5, { runForSeconds: 60 })]).toEqual([9000, 9000, null, 1003 + 60_000]);
  expect(at(3, { startWithinSeconds: 30 })).toBe(1002 + 30_000);
  const reboot = { kind: "host.reboot" };
  expect(at(4, {}, reboot)).toBe(1003 + 900_000);
  expect(at(4, {}, { ...reboot, arguments: { deadlineSeconds: 20 } })).toBe(1003 + 20_000);
  expect(at(4, { runForSeconds: 5 }, reboot)).toBe(1003 + 5000);
});

test("a link that is lost: what happens meanwhile is what the command asked for", () => {
  const next = (onLinkLost?: string) =>
    explainCommand(
      commandIn(life, onLinkLost === undefined ? {} : { onLinkLost }),
      host("approved"),
      false,
      2000,
    ).next;
  expect([next(), next("continue")]).toEqual([expect.stringContaining("result comes"), next()]);
  expect(next("pause")).toMatch(/pauses/);
  expect(next("abort")).toMatch(/stops it/);
  const reboot = commandIn(life, {}, { kind: "host.reboot" });
  expect(explainCommand(reboot, host("approved"), false, 2000).reason).toMatch(/The host restarts\./);
});

test("since is when it came into its state; a resumed run is the same state", () => {
  expect([0, 1, 4, 5].map((length) => sinceOf(commandIn(life.slice(0, length))))).toEqual([
    500, 1000, 1003, 1003,
  ]);
});

test("paused: asked for, then known to wait, and how it goes on; also what a controller does not know of", () => {
  const running = [...life.slice(0, 4), { type: "ask-pause", paused: true } as const];
  const told = (events: readonly CommandEvent[], waits: boolean, online = true) =>
    explainCommand(commandIn(events, {}, { kind: "image.deploy" }), host("approved"), online, 2000, {
      paused: waits,
    });
  const resume = expect.stringMatching(/^bedplate command resume /);
  expect(told(running, false)).toMatchObject({
    reason: expect.stringMatching(/asked at 1970-01-01T00:00:01.004Z that it wait; the host has not said/),
    next: expect.stringMatching(/next safe point/),
    suggest: resume,
  });
  expect(told(running, false, false).reason).toContain("agent.offline");
  expect(told(running, true)).toMatchObject({
    reason: expect.stringMatching(/^An operator paused it at .* it waits at a safe point/),
    suggest: resume,
  });
  const resumed = [...running, { type: "ask-pause", paused: false } as const];
  expect(told(resumed, false).reason).toBe("It runs.");
  expect(told(life, true)).toMatchObject({ reason: expect.stringMatching(/does not know/), suggest: resume });
  expect(told([{ type: "ask-pause", paused: true }], false).reason).toMatch(/wait at its first safe point/);
});
