// Who vouches for whom: the two keys of a host, and plans that its attestation key signed.
import { execFileSync, spawnSync } from "node:child_process";
import { generateKeyPairSync, sign } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { utf8 } from "../../protocol/bytes.ts";
import {
  attestationProofBytes,
  type HostIdentity,
  identityDigest,
  linkProofOfAttestation,
  verifyIdentity,
} from "../../protocol/identity.ts";
import { hostIdOf } from "../../protocol/link-proof.ts";
import { encodePlan, type Plan, verifyPlan } from "../../protocol/plans.ts";
import { publicKeyLine, type SigningKey, signMessage } from "../../protocol/ssh-sign.ts";

function newKey(): SigningKey {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  return {
    publicKey: Uint8Array.from(publicKey.export({ type: "spki", format: "der" }).subarray(-32)),
    sign: (data) => Uint8Array.from(sign(null, data, privateKey)),
  };
}

async function identityOf(link: SigningKey, attestation: SigningKey): Promise<HostIdentity> {
  const host = await hostIdOf(link.publicKey);
  const attestationKey = publicKeyLine(attestation.publicKey, "bedplate-attestation");
  return {
    bedplate: "identity/1",
    host,
    attestationKey,
    proof: await signMessage(attestation, "bedplate-identity", attestationProofBytes(host)),
    linkSignature: await signMessage(link, "bedplate-identity", linkProofOfAttestation(attestationKey)),
    policyState: "missing",
    policyDigest: null,
    hostname: "rack1-7",
    chassisSerial: null,
    privilegeSplit: "present",
  };
}

describe("an identity", () => {
  const link = newKey();
  const attestation = newKey();

  test("holds when each key vouches for the other", async () => {
    expect(await verifyIdentity(await identityOf(link, attestation), link.publicKey)).toMatch(/^SHA256:/);
  });

  test("of another attestation key, another link key or another host does not", async () => {
    const good = await identityOf(link, attestation);
    const stranger = newKey();
    const strange = await identityOf(link, stranger);
    const foreign = await identityOf(newKey(), attestation);
    const refused = [
      { ...good, attestationKey: strange.attestationKey },
      // A controller that puts in its own key cannot make the link key vouch for it,
      { ...strange, linkSignature: good.linkSignature },
      // nor can one machine pass off another's attestation key as its own.
      { ...good, proof: foreign.proof },
      { ...good, host: foreign.host },
      { ...good, attestationKey: "ssh-ed25519 AAAA" },
      { ...good, proof: "" },
    ];
    for (const identity of refused)
      await expect(verifyIdentity(identity, link.publicKey)).rejects.toMatchObject({
        code: "identity.invalid",
      });
    await expect(verifyIdentity(good, stranger.publicKey)).rejects.toMatchObject({
      code: "identity.invalid",
    });
  });

  test("has another digest when the policy changed, and the same whoever signed it again", async () => {
    const good = await identityOf(link, attestation);
    expect(await identityDigest({ ...good, policyDigest: "0".repeat(64) })).not.toBe(
      await identityDigest(good),
    );
    expect(await identityDigest({ ...good, proof: "another" })).toBe(await identityDigest(good));
  });
});

const plan: Plan = {
  bedplate: "plan/1",
  id: "01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90",
  nonce: "A".repeat(43),
  host: "a".repeat(64),
  hostname: "rack1-7",
  chassisSerial: "C07X",
  kind: "host.exec",
  arguments: { argv: ["/usr/bin/uptime"] },
  facts: {},
  issuedAt: 0,
  expiresAt: 1,
  policy: null,
  requires: { k: 1, from: ["ops"], operators: ["alice"] },
  findings: [],
  allowed: true,
};

describe("a plan", () => {
  const key = newKey();
  const line = publicKeyLine(key.publicKey, "");
  const text = new TextDecoder().decode(encodePlan(plan));

  test("is read when its host's key signed these bytes", async () => {
    const signature = await signMessage(key, "bedplate-plan", utf8(text));
    expect((await verifyPlan({ text, signature }, line)).plan).toEqual(plan);
  });

  test("is not, when a byte, the key or the namespace is another", async () => {
    const signature = await signMessage(key, "bedplate-plan", utf8(text));
    const other = text.replace("uptime", "reboot");
    await expect(verifyPlan({ text: other, signature }, line)).rejects.toMatchObject({
      code: "signature.invalid",
    });
    await expect(
      verifyPlan({ text, signature }, publicKeyLine(newKey().publicKey, "")),
    ).rejects.toMatchObject({
      code: "signature.unknown-key",
    });
    await expect(
      verifyPlan({ text, signature: await signMessage(key, "bedplate-command", utf8(text)) }, line),
    ).rejects.toMatchObject({ code: "signature.wrong-namespace" });
    const bad = JSON.stringify({ ...plan, allowed: "yes" });
    await expect(
      verifyPlan({ text: bad, signature: await signMessage(key, "bedplate-plan", utf8(bad)) }, line),
    ).rejects.toMatchObject({ code: "plan.invalid" });
  });

  test.skipIf(spawnSync("ssh-keygen", ["-?"]).error !== undefined)(
    "can be checked with ssh-keygen alone",
    async () => {
      const directory = mkdtempSync(join(tmpdir(), "bedplate-plan-"));
      try {
        writeFileSync(join(directory, "allowed"), `host ${line}\n`);
        writeFileSync(join(directory, "signature"), await signMessage(key, "bedplate-plan", utf8(text)));
        const args = [
          "-Y",
          "verify",
          "-f",
          "allowed",
          "-I",
          "host",
          "-n",
          "bedplate-plan",
          "-s",
          "signature",
        ];
        expect(execFileSync("ssh-keygen", args, { cwd: directory, input: text }).toString()).toContain(
          "Good",
        );
        expect(spawnSync("ssh-keygen", args, { cwd: directory, input: `${text} ` }).status).not.toBe(0);
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  );
});
