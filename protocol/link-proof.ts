// How a host proves that it holds its link key: an SSHSIG signed-data blob over this connection's nonces.
import { concatBytes, hex, sshString, utf8 } from "./bytes.ts";

/** Each use of a key has its own SSHSIG namespace, so that no signature can serve for another. */
export type Namespace =
  | "bedplate-link"
  | "bedplate-plan"
  | "bedplate-certificate"
  | "bedplate-audit"
  | "bedplate-usage"
  | "bedplate-command"
  | "bedplate-image"
  | "bedplate-identity";

/** How the message is hashed before the signature: both are OpenSSH's. */
export type SignatureHash = "sha256" | "sha512";

export interface LinkProof {
  readonly agentNonce: Uint8Array;
  readonly controllerNonce: Uint8Array;
  /** 32 bytes of TLS keying material: the proof holds on this connection only. */
  readonly exported: Uint8Array;
  /** The hello frame, the very bytes sent. */
  readonly hello: Uint8Array;
}

/** The bytes that the link key signs: nonces, exporter and SHA-256 of the hello, as SSHSIG signed data of `bedplate-link`. */
export async function linkProofBytes(proof: LinkProof): Promise<Uint8Array> {
  const helloDigest = new Uint8Array(await crypto.subtle.digest("SHA-256", proof.hello));
  return signedData(
    "bedplate-link",
    concatBytes(proof.agentNonce, proof.controllerNonce, proof.exported, helloDigest),
  );
}

/** The bytes that the link key signs to show that it is at this end of this connection at this moment. */
export async function probeBytes(nonce: Uint8Array, exported: Uint8Array): Promise<Uint8Array> {
  return signedData("bedplate-link", concatBytes(utf8("bedplate probe"), nonce, exported));
}

/** The blob that an SSHSIG signature covers (OpenSSH PROTOCOL.sshsig, section 3). */
export async function signedData(
  namespace: Namespace,
  message: Uint8Array,
  hash: SignatureHash = "sha512",
): Promise<Uint8Array> {
  const algorithm = hash === "sha256" ? "SHA-256" : "SHA-512";
  return signedDataOfDigest(namespace, new Uint8Array(await crypto.subtle.digest(algorithm, message)), hash);
}

/** The same for who has the message's digest by `hash`. */
export function signedDataOfDigest(
  namespace: Namespace,
  digest: Uint8Array,
  hash: SignatureHash,
): Uint8Array {
  return concatBytes(
    utf8("SSHSIG"),
    sshString(utf8(namespace)),
    sshString(utf8("")),
    sshString(utf8(hash)),
    sshString(digest),
  );
}

/** Whether `signature` is the Ed25519 signature of `data` by the raw 32-byte public key. */
export async function verifyEd25519(
  publicKey: Uint8Array,
  signature: Uint8Array,
  data: Uint8Array,
): Promise<boolean> {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  const key = await crypto.subtle.importKey("raw", publicKey, "Ed25519", false, ["verify"]);
  return crypto.subtle.verify("Ed25519", key, signature, data);
}

/** The host's identity everywhere: lower-case hexadecimal SHA-256 of its raw link key. */
export async function hostIdOf(linkKey: Uint8Array): Promise<string> {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", linkKey)));
}
