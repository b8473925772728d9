// Standing, networks and explanations, pure: what may follow what, who is inside, and that nothing waits without a reason.
import fc from "fast-check";
import { expect, test } from "vitest";
import { explainCommand, sinceOf } from "../../controller/commands/explain.ts";
import { type CommandEvent, newCommandState, reduceCommand } from "../../controller/commands/reduce.ts";
import { isCidr, isWithin } from "../../controller/hosts/cidr.ts";
import { explainHost } from "../../controller/hosts/explain.ts";
import { reduceStanding, type StandingEvent } from "../../controller/hosts/standing.ts";
import type { StoredCommand } from "../../controller/store/store.ts";
import { utf8 } from "../../protocol/bytes.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import type { Standing } from "../../protocol/schema.ts";
import { documentOf } from "../support/commands.ts";

const id = `6d2a91f033c40b7e${"0".repeat(48)}`;
const host = (standing: Standing) => ({ id, name: "web-1", standing, replacedBy: null });

test("a fingerprint is the beginning of the id, in groups", () => {
  expect(fingerprintOf(id)).toBe("6D2A-91F0-33C4-0B7E");
});

test("what may follow what", () => {
  const after = (standing: Standing, event: StandingEvent) => {
    try {
      return reduceStanding(host(standing), event);
    } catch (error) {
      return (error as BedplateError).code;
    }
  };
  const table = (["pending", "approved", "revoked"] as const).map((standing) =>
    (["approve", "reject", "revoke"] as const).map((type) => after(standing, { type })),
  );
  expect(table).toEqual([
    ["approved", "revoked", "revoked"],
    ["approved", "host.not-pending", "revoked"],
    ["enrol.host-revoked", "revoked", "revoked"],
  ]);
  const fingerprints: [string, string][] = [
    ["6D2A-91F0-33C4-0B7E", "approved"],
    ["6d2a 91f0 33c4 0b7e", "approved"],
    ["6d2a91f033c40b7e", "approved"],
    ["6D2A-91F0-33C4-0B7F", "enrol.fingerprint-mismatch"],
    ["6D2A-91F0", "enrol.fingerprint-mismatch"],
    ["", "enrol.fingerprint-mismatch"],
    [id, "enrol.fingerprint-mismatch"],
  ];
  for (const [fingerprint, expected] of fingerprints)
    expect(after("pending", { type: "approve", fingerprint }), fingerprint).toBe(expected);
});

test("revoked is for good, whatever follows, and only an approval ever approves", () => {
  const event = fc.constantFrom<StandingEvent>(
    ...[{ type: "approve" } as const, { type: "reject" } as const, { type: "revoke" } as const],
    { type: "approve", fingerprint: "0" },
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 12 }), (events) => {
      let standing: Standing = "pending";
      for (const next of events) {
        const before: Standing = standing;
        try {
          standing = reduceStanding(host(standing), next);
        } catch (error) {
          if (!(error instanceof BedplateError)) throw error;
        }
        if (before === "revoked") expect(standing).toBe("revoked");
        if (before === "pending" && standing === "approved") expect(next).toEqual({ type: "approve" });
      }
    }),
  );
});

test("addresses inside and outside of networks of both families", () => {
  const cases: [string, string, boolean][] = [
    ["10.1.0.0/16", "10.1.255.255", true],
    ["10.1.0.0/16", "10.2.0.0", false],
    ["10.1.0.0/16", "::ffff:10.1.0.1", true],
    ["10.1.2.3/32", "10.1.2.3", true],
    ["10.1.2.3/32", "10.1.2.4", false],
    ["0.0.0.0/0", "203.0.113.9", true],
    ["0.0.0.0/0", "fd00::1", false],
    ["fd00::/8", "fd12:3456::1", true],
    ["fd00::/8", "fe80::1", false],
    ["fe80::/10", "fe80::1%eth0", true],
    ["::/0", "10.0.0.1", false],
    ["10.1.0.0/16", "", false],
    ["10.1.0.0/16", "not an address", false],
    ["nonsense", "10.1.0.1", false],
  ];
  for (const [cidr, address, inside] of cases)
    expect([cidr, address, isWithin(cidr, address)]).toEqual([cidr, address, inside]);
  for (const text of ["10.0.0.0/8", "::/0", "fd00::/128"]) expect(isCidr(text)).toBe(true);
  for (const text of ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "a/8"])
    expect(isCidr(text), text).toBe(false);
});

const commandIn = (events: readonly CommandEvent[], limits: object = {}): StoredCommand => {
  const document = documentOf(id, { limits });
  return {
    ...events.reduce((state, event, i) => reduceCommand(state, event, 1000 + i), newCommandState(500)),
    ...{ id: JSON.parse(document).id, host: id, kind: "agent.ping", mode: "apply", signatures: [] },
    ...{ document: utf8(document), createdAt: 500, notAfter: 9000, generation: null },
  };
};
const command = "c";
const life: CommandEvent[] = [
  { type: "offered" },
  { type: "received", command },
  { type: "accepted", command },
  { type: "running", command, run: 1 },
  { type: "running", command, run: 2 },
];

test("nothing waits without a reason, a next step and a command that helps; nothing that ended has any", () => {
  for (let length = 0; length <= life.length; length++) {
    for (const cancel of [false, true]) {
      const events = [...life.slice(0, length), ...(cancel ? [{ type: "cancel" } as const] : [])];
      const open = commandIn(events);
      for (const standing of ["pending", "approved", "revoked"] as const) {
        for (const online of [true, false]) {
          const found = explainCommand(open, host(standing), online, 2000);
          if (isTerminal(open.state))
            expect(found).toEqual({ reason: null, deadline: null, next: null, suggest: null });
          else {
            expect(found.reason, open.state).toMatch(/\w/);
            expect(found.next, open.state).toMatch(/\w/);
            expect(found.suggest, open.state).toMatch(/^(bedplate|systemctl) /);
            if (!online && open.state !== "waiting") expect(found.reason).toContain("not connected");
            if (cancel) expect(found.reason).toContain("cancellation");
          }
        }
      }
    }
  }
  for (const standing of ["pending", "revoked"] as const)
    expect(Object.values(explainHost(host(standing), true)).filter((text) => text === null)).toEqual([null]);
  expect(explainHost(host("approved"), true).reason).toBeNull();
  expect(explainHost(host("approved"), false)).toMatchObject({
    ...{ reason: expect.stringMatching(/^agent\.offline /), suggest: expect.stringContaining("systemctl") },
  });
});

test("the deadline is what really ends it: the time to start, then the time to run", () => {
  const at = (length: number, limits?: object) =>
    explainCommand(commandIn(life.slice(0, length), limits), host("approved"), true, 2000).deadline;
  expect([at(0), at(1), at(4), at(5, { runForSeconds: 60 })]).toEqual([9000, 9000, null, 1003 + 60_000]);
});

test("since is when it came into its state; a resumed run is the same state", () => {
  expect([0, 1, 4, 5].map((length) => sinceOf(commandIn(life.slice(0, length))))).toEqual([
    500, 1000, 1003, 1003,
  ]);
});

test("the suggested approval quotes the fingerprint that the host shows", () => {
  expect(explainHost(host("pending"), true)).toMatchObject({
    suggest: "bedplate host approve web-1 --fingerprint 6D2A-91F0-33C4-0B7E",
  });
});
