// Whether an operator's SSHSIG signature holds over the very bytes received, and whose key made it.
import { concatBytes, utf8 } from "./bytes.ts";
import { BedplateError } from "./errors.ts";
import { type Namespace, signedData, verifyEd25519 } from "./link-proof.ts";
import { fingerprintOf, fingerprintOfBlob, type PublicKey } from "./ssh-keys.ts";
import { base64 } from "./ssh-wire.ts";
import { malformed, type Proof, parseSignature } from "./sshsig-format.ts";

export interface VerifyOptions {
  /** The signature's own must be exactly this. */
  readonly namespace: Namespace;
  /** The bytes that are signed, as received: never parsed and written anew. */
  readonly message: Uint8Array;
  /** The keys that may sign. */
  readonly keys: readonly PublicKey[];
  /** Take only signatures for which an authenticator has verified its user (PIN, finger): no key in a file can. Default: false. */
  readonly requireUserVerified?: boolean;
}

export interface VerifiedSignature {
  readonly key: PublicKey;
  /** `SHA256:…` */
  readonly fingerprint: string;
  /** The key's comment: the operator, where signer sets name them. */
  readonly comment: string;
  /** Whether someone touched an authenticator for it: always so for the `sk-` keys, never for others. */
  readonly touched: boolean;
  /** Whether the authenticator also verified who touched it. */
  readonly userVerified: boolean;
  /** Of the authenticator's signatures; null for other keys. It may stay 0: not all authenticators count. */
  readonly counter: number | null;
}

/** FIDO's flags in authenticator data (WebAuthn, section 6.1). */
const flags = { userPresent: 0x01, userVerified: 0x04 } as const;

/**
 * Verifies one signature: armored text, or a raw blob as bytes.
 * @throws `signature.malformed`, `signature.wrong-namespace`, `signature.unknown-key`, `signature.invalid`,
 * `signature.not-touched`, `signature.no-user-verification`; nothing else, whatever the signature's bytes
 */
export async function verifySignature(
  signature: string | Uint8Array,
  { namespace, message, keys, requireUserVerified = false }: VerifyOptions,
): Promise<VerifiedSignature> {
  const parsed = parseSignature(signature);
  if (parsed.namespace !== namespace) {
    throw new BedplateError(
      "signature.wrong-namespace",
      `The signature is for "${parsed.namespace}", not for "${namespace}".`,
      { hint: `Sign with \`ssh-keygen -Y sign -n ${namespace}\`.` },
    );
  }
  // The claimed key is only compared, never parsed: what is not one of ours needs no understanding.
  const encoded = base64(parsed.publicKey);
  const key = keys.find((candidate) => candidate.encoded === encoded);
  if (key === undefined) {
    const fingerprint = await fingerprintOfBlob(parsed.publicKey);
    throw new BedplateError(
      "signature.unknown-key",
      `The signature is by the key ${fingerprint}, which is none of those that may sign.`,
      { details: { fingerprint } },
    );
  }
  const { proof } = parsed;
  if (!algorithmFits(key, proof)) {
    throw malformed(`by ${proof.algorithm} does not fit its key of type ${key.type}`);
  }
  const fingerprint = await fingerprintOf(key);
  const details = { fingerprint, comment: key.comment };
  if (!(await holds(key, proof, await signedData(namespace, message, parsed.hash)))) {
    throw new BedplateError(
      "signature.invalid",
      `The signature by ${nameOf(key)} does not hold: it was made over other bytes, or has been changed.`,
      { details },
    );
  }
  const userPresent = ((proof.authenticator?.flags ?? 0) & flags.userPresent) !== 0;
  const userVerified = ((proof.authenticator?.flags ?? 0) & flags.userVerified) !== 0;
  if (proof.authenticator !== undefined && !userPresent) {
    throw new BedplateError(
      "signature.not-touched",
      `The signature by ${nameOf(key)} was made without a touch of the security key.`,
      { hint: "Use a key that was made without `-O no-touch-required`.", details },
    );
  }
  if (requireUserVerified && !userVerified) {
    throw new BedplateError(
      "signature.no-user-verification",
      `The signature by ${nameOf(key)} does not say that a security key verified its user.`,
      { hint: "Use a key made with `ssh-keygen -t ed25519-sk -O verify-required`.", details },
    );
  }
  return {
    key,
    fingerprint,
    comment: key.comment,
    touched: userPresent,
    userVerified,
    counter: proof.authenticator?.counter ?? null,
  };
}

export interface SignatureVerdicts {
  readonly verified: readonly VerifiedSignature[];
  /** The others, by their place in the list, each with its reason. */
  readonly refused: readonly { readonly index: number; readonly error: BedplateError }[];
}

/** Verifies each signature by itself, so that a bad one takes nothing from the good ones. Pass at most what a frame holds. */
export async function verifySignatures(
  signatures: readonly (string | Uint8Array)[],
  options: VerifyOptions,
): Promise<SignatureVerdicts> {
  const verified: VerifiedSignature[] = [];
  const refused: { index: number; error: BedplateError }[] = [];
  for (const [index, signature] of signatures.entries()) {
    try {
      verified.push(await verifySignature(signature, options));
    } catch (error) {
      if (!(error instanceof BedplateError)) throw error;
      refused.push({ index, error });
    }
  }
  return { verified, refused };
}

/** RSA keys have two algorithms, and RFC 8332 wants values as long as the modulus; all others have the one of their name. */
function algorithmFits(key: PublicKey, proof: Proof): boolean {
  if (key.type !== "ssh-rsa") return proof.algorithm === key.type;
  return proof.algorithm.startsWith("rsa-sha2-") && proof.value.length === key.modulus.length;
}

async function holds(key: PublicKey, proof: Proof, data: Uint8Array): Promise<boolean> {
  switch (key.type) {
    case "ssh-ed25519":
      return verifyEd25519(key.point, proof.value, data);
    case "ecdsa-sha2-nistp256":
      return verifyP256(key.point, proof.value, data);
    case "ssh-rsa":
      return verifyRsa(key, proof, data);
    case "sk-ssh-ed25519@openssh.com":
      return verifyEd25519(key.point, proof.value, await authenticated(key.application, proof, data));
    case "sk-ecdsa-sha2-nistp256@openssh.com":
      return verifyP256(key.point, proof.value, await authenticated(key.application, proof, data));
  }
}

/** What an authenticator signs (OpenSSH PROTOCOL.u2f): SHA-256(application) ‖ flags ‖ counter ‖ SHA-256(data). */
async function authenticated(application: string, proof: Proof, data: Uint8Array): Promise<Uint8Array> {
  const { flags, counter } = proof.authenticator!;
  const flagsAndCounter = new Uint8Array(5);
  flagsAndCounter[0] = flags;
  new DataView(flagsAndCounter.buffer).setUint32(1, counter);
  return concatBytes(await sha256(utf8(application)), flagsAndCounter, await sha256(data));
}

async function verifyP256(point: Uint8Array, value: Uint8Array, data: Uint8Array): Promise<boolean> {
  const key = await crypto.subtle.importKey("raw", point, { name: "ECDSA", namedCurve: "P-256" }, false, [
    "verify",
  ]);
  return crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, value, data);
}

async function verifyRsa(
  { modulus, exponent }: Extract<PublicKey, { type: "ssh-rsa" }>,
  { algorithm, value }: Proof,
  data: Uint8Array,
): Promise<boolean> {
  const hash = algorithm === "rsa-sha2-256" ? "SHA-256" : "SHA-512";
  const jwk = { kty: "RSA", n: base64url(modulus), e: base64url(exponent) } as const;
  const key = await crypto.subtle.importKey("jwk", jwk, { name: "RSASSA-PKCS1-v1_5", hash }, false, [
    "verify",
  ]);
  return crypto.subtle.verify("RSASSA-PKCS1-v1_5", key, value, data);
}

async function sha256(bytes: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

function base64url(bytes: Uint8Array): string {
  return base64(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function nameOf(key: PublicKey): string {
  return key.comment === "" ? `a key of type ${key.type}` : key.comment;
}
