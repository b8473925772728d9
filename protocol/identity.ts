// How the two keys of a host vouch for each other: the agent's link key and the executor's attestation key.
import Type, { type Static } from "typebox";
import { hex, utf8 } from "./bytes.ts";
import { BedplateError } from "./errors.ts";
import { hostIdOf } from "./link-proof.ts";
import { Digest, HostId } from "./schema.ts";
import { fingerprintOf, parsePublicKey } from "./ssh-keys.ts";
import { publicKeyLine } from "./ssh-sign.ts";
import { verifySignature } from "./sshsig.ts";

const KeyLine = Type.String({ maxLength: 512 });
const Signature = Type.String({ maxLength: 8192 });

/** What the executor publishes about itself in its run directory, for the agent to pass on. */
export const ExecutorIdentity = Type.Object({
  bedplate: Type.Literal("identity/1"),
  host: HostId,
  /** `ssh-ed25519 AAAA… bedplate-attestation` */
  attestationKey: KeyLine,
  /** By the attestation key, namespace `bedplate-identity`, over `attestationProofBytes`. */
  proof: Signature,
  policyState: Type.Union([Type.Literal("present"), Type.Literal("missing"), Type.Literal("unusable")]),
  policyDigest: Type.Union([Digest, Type.Null()]),
  hostname: Type.String({ maxLength: 255 }),
  chassisSerial: Type.Union([Type.String({ maxLength: 255 }), Type.Null()]),
  /** `absent` where the executor runs as the agent's own user: then a taken-over agent is a taken-over executor. */
  privilegeSplit: Type.Union([Type.Literal("present"), Type.Literal("absent")]),
});
export type ExecutorIdentity = Static<typeof ExecutorIdentity>;

/** The same with the link key's word for it, as it goes to the controller and from there to operators. */
export const HostIdentity = Type.Object({
  ...ExecutorIdentity.properties,
  /** By the link key, namespace `bedplate-identity`, over `linkProofOfAttestation`. */
  linkSignature: Signature,
});
export type HostIdentity = Static<typeof HostIdentity>;

/** What the attestation key signs to say which host it serves. */
export function attestationProofBytes(host: string): Uint8Array {
  return utf8(`bedplate host ${host}`);
}

/** What the link key signs to name the attestation key of its host. @throws what `parsePublicKey` throws */
export function linkProofOfAttestation(attestationKey: string): Uint8Array {
  const { type, encoded } = parsePublicKey(attestationKey);
  return utf8(`bedplate attestation ${type} ${encoded}`);
}

/**
 * Checks that both keys vouch for each other, from the link key that a host id is the hash of.
 * @returns the attestation key's fingerprint, `SHA256:…`
 * @throws `identity.invalid` with the reason as cause
 */
export async function verifyIdentity(
  identity: Pick<HostIdentity, "host" | "attestationKey" | "proof" | "linkSignature">,
  linkKey: Uint8Array,
): Promise<string> {
  const { host, attestationKey, proof, linkSignature } = identity;
  try {
    if ((await hostIdOf(linkKey)) !== host)
      throw new BedplateError("identity.invalid", "The link key is not that of this host id.");
    const key = parsePublicKey(attestationKey);
    if (key.type !== "ssh-ed25519")
      throw new BedplateError("identity.invalid", "An attestation key is of type ssh-ed25519.");
    await verifySignature(proof, {
      namespace: "bedplate-identity",
      message: attestationProofBytes(host),
      keys: [key],
    });
    await verifySignature(linkSignature, {
      namespace: "bedplate-identity",
      message: linkProofOfAttestation(attestationKey),
      keys: [parsePublicKey(publicKeyLine(linkKey, "bedplate-link"))],
    });
    return await fingerprintOf(key);
  } catch (cause) {
    if (!(cause instanceof BedplateError)) throw cause;
    throw new BedplateError(
      "identity.invalid",
      `The keys of host ${host.slice(0, 16)}… do not vouch for each other: ${cause.message}`,
      { cause, details: { host } },
    );
  }
}

/** By which both ends tell whether the controller has this identity: its keys and facts, not the signatures. */
export async function identityDigest(identity: ExecutorIdentity): Promise<string> {
  const { host, attestationKey, policyState, policyDigest, hostname, chassisSerial, privilegeSplit } =
    identity;
  const text = JSON.stringify([
    ...[host, attestationKey, policyState, policyDigest],
    ...[hostname, chassisSerial, privilegeSplit],
  ]);
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", utf8(text))));
}
