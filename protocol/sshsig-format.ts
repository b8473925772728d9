// The bytes of an SSHSIG signature (OpenSSH PROTOCOL.sshsig): armor, envelope and what each algorithm puts inside.
import { concatBytes, equalBytes, sshString, textOf, utf8 } from "./bytes.ts";
import { BedplateError } from "./errors.ts";
import type { Namespace, SignatureHash } from "./link-proof.ts";
import { base64, bytesOfBase64, SshReader } from "./ssh-wire.ts";

export const signatureAlgorithms = [
  "ssh-ed25519",
  "ecdsa-sha2-nistp256",
  "rsa-sha2-256",
  "rsa-sha2-512",
  "sk-ssh-ed25519@openssh.com",
  "sk-ecdsa-sha2-nistp256@openssh.com",
] as const;
export type SignatureAlgorithm = (typeof signatureAlgorithms)[number];

/** What a key made. `value`: 64 bytes of Ed25519, r ‖ s of ECDSA at 32 bytes each, or RSA's as long as the modulus. */
export interface Proof {
  readonly algorithm: SignatureAlgorithm;
  readonly value: Uint8Array;
  /** What the authenticator says about its user, signed by it; the `sk-` algorithms only. */
  readonly authenticator?: { readonly flags: number; readonly counter: number };
}

/** A well-formed signature of which nothing is proved yet. */
export interface ParsedSignature {
  /** Wire form of the key that it claims. */
  readonly publicKey: Uint8Array;
  /** 1 to 256 printable ASCII characters. */
  readonly namespace: string;
  readonly hash: SignatureHash;
  readonly proof: Proof;
}

/** Of a signature, armored or not. RSA with 8192 bits needs about 3 KiB. */
export const signatureBytesMax = 8192;

const header = "-----BEGIN SSH SIGNATURE-----\n";
const footer = "\n-----END SSH SIGNATURE-----";
const magic = utf8("SSHSIG");

/**
 * Reads a signature: a string is armored text; bytes are a raw blob, or the bytes of armored text.
 * @throws `signature.malformed`
 */
export function parseSignature(signature: string | Uint8Array): ParsedSignature {
  if (signature.length > signatureBytesMax) throw malformed(`is longer than ${signatureBytesMax} bytes`);
  const reader = new SshReader(blobOf(signature), malformed);
  if (!equalBytes(reader.take(magic.length), magic)) throw malformed("does not start with SSHSIG");
  const version = reader.uint32();
  if (version !== 1) throw malformed(`has version ${version}; only 1 is known`);
  const publicKey = reader.string();
  const namespace = reader.name();
  // Reserved: ignored, and empty in the signed data whatever it is here, as ssh-keygen does.
  reader.string();
  const hash = reader.name();
  if (hash !== "sha256" && hash !== "sha512")
    throw malformed(`uses the hash "${hash}"; sha256 or sha512 are due`);
  const proof = parseProof(reader.string());
  reader.end();
  return { publicKey, namespace, hash, proof };
}

/** A signature's blob of `value`, an algorithm's own bytes as RFC 8709, 5656, 8332 or PROTOCOL.u2f put them after its name. */
export function encodeSignature(parts: {
  readonly publicKey: Uint8Array;
  readonly namespace: Namespace;
  readonly hash: SignatureHash;
  readonly algorithm: string;
  readonly value: Uint8Array;
}): Uint8Array<ArrayBuffer> {
  return concatBytes(
    magic,
    Uint8Array.of(0, 0, 0, 1),
    sshString(parts.publicKey),
    sshString(utf8(parts.namespace)),
    sshString(utf8("")),
    sshString(utf8(parts.hash)),
    sshString(concatBytes(sshString(utf8(parts.algorithm)), parts.value)),
  );
}

/** A blob as the text that ssh-keygen writes and reads: lines of 70 characters. */
export function armor(blob: Uint8Array): string {
  return `${header}${base64(blob).replace(/.{70}(?=.)/g, "$&\n")}${footer}\n`;
}

function blobOf(signature: string | Uint8Array): Uint8Array {
  if (typeof signature === "string") return dearmored(signature);
  if (signature[0] !== header.charCodeAt(0)) return signature;
  if (signature.some((byte) => byte > 0x7e)) throw malformed("is not text");
  return dearmored(textOf(signature));
}

function dearmored(text: string): Uint8Array {
  if (!text.startsWith(header)) throw malformed(`does not start with the line ${header.trim()}`);
  const body = text.endsWith("\n") ? text.slice(header.length, -1) : text.slice(header.length);
  if (!body.endsWith(footer)) throw malformed(`does not end with the line ${footer.trim()}`);
  const lines = body.slice(0, -footer.length).split("\n");
  const blob = lines.includes("") ? undefined : bytesOfBase64(lines.join(""));
  if (blob === undefined) throw malformed("is not valid base64 between its first and last line");
  return blob;
}

function parseProof(bytes: Uint8Array): Proof {
  const reader = new SshReader(bytes, malformed);
  const algorithm = reader.name();
  if (!isAlgorithm(algorithm))
    throw malformed(`uses the algorithm "${algorithm.slice(0, 64)}", which is not taken`);
  const value = parseValue(algorithm, reader);
  const authenticator = algorithm.startsWith("sk-")
    ? { flags: reader.byte(), counter: reader.uint32() }
    : undefined;
  reader.end();
  return { algorithm, value, ...(authenticator === undefined ? {} : { authenticator }) };
}

function parseValue(algorithm: SignatureAlgorithm, reader: SshReader): Uint8Array {
  const value = reader.string();
  switch (algorithm) {
    case "ssh-ed25519":
    case "sk-ssh-ed25519@openssh.com":
      if (value.length !== 64) throw malformed(`has ${value.length} bytes where Ed25519 has 64`);
      return value;
    case "rsa-sha2-256":
    case "rsa-sha2-512":
      return value;
    case "ecdsa-sha2-nistp256":
    case "sk-ecdsa-sha2-nistp256@openssh.com": {
      const numbers = new SshReader(value, malformed);
      const [r, s] = [numbers.positive(32), numbers.positive(32)];
      numbers.end();
      return concatBytes(new Uint8Array(32 - r.length), r, new Uint8Array(32 - s.length), s);
    }
  }
}

function isAlgorithm(name: string): name is SignatureAlgorithm {
  return (signatureAlgorithms as readonly string[]).includes(name);
}

/** The error for a signature that cannot be read; `why` completes "The signature …". */
export function malformed(why: string): BedplateError {
  return new BedplateError("signature.malformed", `The signature ${why}.`, {
    hint: "Give the whole file that `ssh-keygen -Y sign` wrote.",
  });
}
