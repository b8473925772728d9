// Signer sets: k of n counts people, not keys or signatures, and says who is missing.
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { utf8 } from "../../protocol/bytes.ts";
import {
  checkRequirement,
  countSignatures,
  keysOf,
  parseSignerSets,
  type SignerSet,
  signerLimits,
} from "../../protocol/signer-sets.ts";
import { decodePublicKey, type PublicKey } from "../../protocol/ssh-keys.ts";
import { verifySignatures } from "../../protocol/sshsig.ts";
import { makeSigner, type TestSigner } from "./ssh-signers.ts";

let signers: TestSigner[];
let keys: PublicKey[];
let sets: SignerSet[];
beforeAll(() => {
  signers = Array.from({ length: 6 }, () => makeSigner("ssh-ed25519"));
  keys = signers.map(({ blob }) => decodePublicKey(blob));
  const line = (index: number, name: string) => signers[index]!.line(name);
  // alice has two keys; carol is in both sets; key 5 is in none.
  sets = parseSignerSets({
    ops: [line(0, "alice"), line(1, "alice"), line(2, "bob"), line(3, "carol")],
    security: [line(3, "carol"), line(4, "dave")],
  });
});
const signedWith = (...indexes: number[]) =>
  indexes.map((index) => ({ key: keys[index]!, fingerprint: `print ${index}` }));
const invalid = (message: RegExp) =>
  expect.objectContaining({ code: "signers.invalid", message: expect.stringMatching(message) });

describe("counting", () => {
  test("says who signed and what is missing", () => {
    expect(countSignatures(signedWith(0), sets, { k: 2, from: ["ops"] })).toEqual({
      satisfied: false,
      signedBy: ["alice"],
      missing: 1,
      couldSign: ["bob", "carol"],
      uncounted: [],
      summary: "needs 2 of ops; has 1: alice",
    });
    expect(countSignatures([], sets, { k: 2, from: ["ops", "security"] })).toMatchObject({
      couldSign: ["alice", "bob", "carol", "dave"],
      summary: "needs 2 of ops or security; has 0",
    });
    expect(countSignatures(signedWith(2, 0), sets, { k: 2, from: ["ops"] })).toMatchObject({
      satisfied: true,
      missing: 0,
      signedBy: ["bob", "alice"],
    });
  });

  test("the same key twice counts once", () => {
    expect(countSignatures(signedWith(2, 2, 2), sets, { k: 2, from: ["ops"] })).toMatchObject({
      satisfied: false,
      signedBy: ["bob"],
      uncounted: [
        { fingerprint: "print 2", reason: "repeated" },
        { fingerprint: "print 2", reason: "repeated" },
      ],
    });
  });

  test("one operator with two keys counts once", () => {
    expect(countSignatures(signedWith(0, 1), sets, { k: 2, from: ["ops"] })).toMatchObject({
      satisfied: false,
      signedBy: ["alice"],
      uncounted: [{ fingerprint: "print 1", reason: "repeated" }],
    });
  });

  test("one operator in two sets counts once", () => {
    expect(countSignatures(signedWith(3), sets, { k: 2, from: ["ops", "security"] })).toMatchObject({
      satisfied: false,
      signedBy: ["carol"],
    });
  });

  test("keys outside the sets asked for do not count", () => {
    expect(countSignatures(signedWith(0, 4, 5), sets, { k: 1, from: ["security"] })).toMatchObject({
      satisfied: true,
      signedBy: ["dave"],
      uncounted: [
        { fingerprint: "print 0", reason: "not-a-signer" },
        { fingerprint: "print 5", reason: "not-a-signer" },
      ],
    });
  });

  test("whatever signs in whatever order: exactly the operators are counted", () => {
    const owners = ["alice", "alice", "bob", "carol", "dave"];
    const from = ["ops", "security"];
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 16 }),
        fc.integer({ min: 1, max: 4 }),
        (who, k) => {
          const count = countSignatures(signedWith(...who), sets, { k, from });
          const expected = [...new Set(who.filter((index) => index < 5).map((index) => owners[index]))];
          expect(count.signedBy).toEqual(expected);
          expect(count.satisfied).toBe(expected.length >= k);
          expect(count.missing).toBe(Math.max(0, k - expected.length));
          expect(new Set([...count.signedBy, ...count.couldSign]).size).toBe(4);
          expect(count.uncounted).toHaveLength(who.length - expected.length);
        },
      ),
    );
  });

  test("from signatures to a verdict", async () => {
    const message = utf8("erase");
    const requirement = { k: 2, from: ["ops"] };
    const signatures = await Promise.all([0, 1, 4, 2].map((index) => signers[index]!.sign(message)));
    const { verified, refused } = await verifySignatures(signatures, {
      namespace: "bedplate-command",
      message,
      keys: keysOf(sets, requirement.from),
    });
    expect(refused.map(({ index, error }) => [index, error.code])).toEqual([[2, "signature.unknown-key"]]);
    expect(countSignatures(verified, sets, requirement)).toMatchObject({
      satisfied: true,
      signedBy: ["alice", "bob"],
    });
  });

  test("keys to verify against are those of the sets asked for, each once", () => {
    const encoded = (indexes: number[]) => indexes.map((index) => keys[index]!.encoded);
    expect(keysOf(sets, ["ops", "security"]).map((key) => key.encoded)).toEqual(encoded([0, 1, 2, 3, 4]));
    expect(keysOf(sets, ["security"]).map((key) => key.encoded)).toEqual(encoded([3, 4]));
  });
});

test.each([
  { k: 0, from: ["ops"] },
  { k: -1, from: ["ops"] },
  { k: 1.5, from: ["ops"] },
  { k: Number.NaN, from: ["ops"] },
  { k: 4, from: ["ops"] },
  { k: 3, from: ["security"] },
  { k: 1, from: [] },
  { k: 1, from: ["ops", "nobody"] },
])("a requirement that cannot be is refused, never satisfied: %j", (requirement) => {
  expect(() => checkRequirement(requirement, sets)).toThrow(invalid(/./));
  expect(() => countSignatures(signedWith(0, 2, 3, 4), sets, requirement)).toThrow(invalid(/./));
});

test("sets that cannot be are refused, naming set and key", () => {
  const line = (index: number, name: string) => signers[index]!.line(name);
  expect(() => parseSignerSets({ ops: [] })).toThrow(invalid(/"ops" is empty/));
  expect(() => parseSignerSets({ ops: [line(0, "alice"), line(1, "")] })).toThrow(
    invalid(/Key 2 of the signer set "ops".*name/),
  );
  expect(() => parseSignerSets({ ops: [line(0, "alice"), line(0, "alice")] })).toThrow(invalid(/twice/));
  expect(() => parseSignerSets({ ops: [line(0, "alice"), line(0, "bob")] })).toThrow(invalid(/./));
  expect(() => parseSignerSets({ ops: [line(0, "alice")], more: [line(0, "bob")] })).toThrow(
    invalid(/"alice" and of "bob"/),
  );
  expect(() => parseSignerSets({ ops: ["ssh-dss AAAA alice"] })).toThrow(
    expect.objectContaining({
      code: "signers.invalid",
      cause: expect.objectContaining({ code: "key.unsupported" }),
    }),
  );
  expect(() => parseSignerSets({ ops: [line(0, "a".repeat(129))] })).toThrow(invalid(/128/));
  const many = new Array<string>(signerLimits.keysMax + 1).fill(line(0, "alice"));
  expect(() => parseSignerSets({ ops: many })).toThrow(invalid(/at most 256/));
  const lists = Object.fromEntries(
    Array.from({ length: signerLimits.setsMax + 1 }, (_, i) => [`s${i}`, [line(0, "alice")]]),
  );
  expect(() => parseSignerSets(lists)).toThrow(invalid(/at most 64/));
});
