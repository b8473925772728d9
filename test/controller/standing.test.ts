// Standing, networks and explanations, pure: what may follow what, who is inside, and that nothing waits without a reason.
import fc from "fast-check";
import { expect, test } from "vitest";
import { explainHost } from "../../controller/hosts/explain.ts";
import { isCidr, isWithin } from "../../controller/rules/cidr.ts";
import {
  mayAnswer,
  mayBeOffered,
  reduceStanding,
  type StandingEvent,
} from "../../controller/rules/standing.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import type { Standing } from "../../protocol/schema.ts";

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
  const table = (["pending", "approved", "quarantined", "revoked"] as const).map((standing) =>
    (["approve", "reject", "revoke", "quarantine", "release"] as const).map((type) =>
      after(standing, { type }),
    ),
  );
  const [held, free] = ["host.quarantined", "host.not-quarantined"];
  expect(table).toEqual([
    ["approved", "revoked", "revoked", "pending", free],
    ["approved", "host.not-pending", "revoked", "quarantined", free],
    [held, "host.not-pending", "revoked", "quarantined", "approved"],
    ["enrol.host-revoked", "revoked", "revoked", "revoked", free],
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

test("revoked is for good, whatever follows; only a person ever approves, and no quarantine is a way round", () => {
  const event = fc.constantFrom<StandingEvent>(
    ...[{ type: "approve" } as const, { type: "reject" } as const, { type: "revoke" } as const],
    ...[{ type: "quarantine" } as const, { type: "release" } as const],
    { type: "approve", fingerprint: "0" },
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 16 }), (events) => {
      let standing: Standing = "pending";
      let approved = false;
      for (const next of events) {
        const was: Standing = standing;
        try {
          standing = reduceStanding(host(standing), next);
        } catch (error) {
          if (!(error instanceof BedplateError)) throw error;
        }
        approved ||= next.type === "approve" && standing === "approved";
        if (was === "revoked") expect(standing).toBe("revoked");
        if (standing === "approved") expect(approved).toBe(true);
        for (const effect of ["read", "idempotent", "resumable", "once"] as const) {
          const offered = mayBeOffered(standing, effect);
          if (offered) expect(approved).toBe(true);
          if (standing === "quarantined" && effect !== "read") expect(offered).toBe(false);
        }
      }
    }),
  );
});

test("a host in quarantine is read from and heard; one that waits or is revoked is neither", () => {
  expect(mayBeOffered("quarantined", "read") && mayAnswer("quarantined")).toBe(true);
  for (const effect of ["idempotent", "resumable", "once"] as const) {
    expect(mayBeOffered("quarantined", effect)).toBe(false);
    expect(mayBeOffered("approved", effect)).toBe(true);
  }
  for (const standing of ["pending", "revoked"] as const)
    expect([mayBeOffered(standing, "read"), mayAnswer(standing)]).toEqual([false, false]);
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

test("a host that is not as it should be says why, what happens and what helps", () => {
  for (const standing of ["pending", "revoked"] as const)
    expect(Object.values(explainHost(host(standing), true)).filter((text) => text === null)).toEqual([null]);
  expect(explainHost(host("approved"), true).reason).toBeNull();
  expect(explainHost(host("approved"), false)).toMatchObject({
    ...{ reason: expect.stringMatching(/^agent\.offline /), suggest: expect.stringContaining("systemctl") },
  });
});

test("the suggested approval quotes the fingerprint that the host shows", () => {
  expect(explainHost(host("pending"), true)).toMatchObject({
    suggest: "bedplate host approve web-1 --fingerprint 6D2A-91F0-33C4-0B7E",
  });
});
