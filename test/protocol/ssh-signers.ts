// Test-side signers of every key type: private keys of node:crypto, and a FIDO authenticator in software (PROTOCOL.u2f).
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { concatBytes, sshString, utf8 } from "../../protocol/bytes.ts";
import { type Namespace, type SignatureHash, signedData } from "../../protocol/link-proof.ts";
import type { KeyType } from "../../protocol/ssh-keys.ts";
import { armor, encodeSignature, type SignatureAlgorithm } from "../../protocol/sshsig-format.ts";

export interface SignOptions {
  readonly namespace?: Namespace;
  readonly hash?: SignatureHash;
  /** For RSA: which of its two algorithms; ssh-rsa is SHA-1 and must be refused. */
  readonly algorithm?: SignatureAlgorithm | "ssh-rsa";
  /** For authenticators: 1 user present, 4 user verified. */
  readonly flags?: number;
  readonly counter?: number;
}

export interface TestSigner {
  readonly type: KeyType;
  readonly blob: Uint8Array;
  /** The line of a `.pub` file. */
  line(comment: string): string;
  signBlob(message: Uint8Array, options?: SignOptions): Promise<Uint8Array>;
  sign(message: Uint8Array, options?: SignOptions): Promise<string>;
}

const text = (value: string) => sshString(utf8(value));
const fromBase64Url = (value: string) => new Uint8Array(Buffer.from(value, "base64url"));

/** RFC 4251: big-endian, shortest, a zero before a set first bit. */
export function mpint(magnitude: Uint8Array): Uint8Array {
  const start = magnitude.findIndex((byte) => byte !== 0);
  const digits = start < 0 ? new Uint8Array() : magnitude.slice(start);
  return sshString((digits[0] ?? 0) >= 0x80 ? concatBytes(Uint8Array.of(0), digits) : digits);
}

/** A fresh key. `application` is for the `sk-` types. */
export function makeSigner(type: KeyType, application = "ssh:"): TestSigner {
  const privateKey = makePrivateKey(type);
  const blob = concatBytes(
    text(type),
    publicPart(privateKey),
    type.startsWith("sk-") ? text(application) : new Uint8Array(),
  );
  const signBlob: TestSigner["signBlob"] = async (message, options = {}) => {
    const { namespace = "bedplate-command", hash = "sha512", flags = 1, counter = 7 } = options;
    const algorithm = options.algorithm ?? (type === "ssh-rsa" ? "rsa-sha2-512" : type);
    let data = await signedData(namespace, message, hash);
    let after = new Uint8Array();
    if (type.startsWith("sk-")) {
      after = new Uint8Array(5);
      after[0] = flags;
      new DataView(after.buffer).setUint32(1, counter);
      data = concatBytes(sha256(utf8(application)), after, sha256(data));
    }
    const value = concatBytes(sshString(rawSignature(privateKey, algorithm, data)), after);
    return encodeSignature({ publicKey: blob, namespace, hash, algorithm, value });
  };
  return {
    type,
    blob,
    line: (comment) => `${type} ${Buffer.from(blob).toString("base64")} ${comment}`.trim(),
    signBlob,
    sign: async (message, options) => armor(await signBlob(message, options)),
  };
}

function makePrivateKey(type: KeyType): KeyObject {
  if (type === "ssh-rsa") return generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
  if (type.includes("ed25519")) return generateKeyPairSync("ed25519").privateKey;
  return generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
}

function publicPart(privateKey: KeyObject): Uint8Array {
  const jwk = privateKey.export({ format: "jwk" });
  if (jwk.kty === "RSA") return concatBytes(mpint(fromBase64Url(jwk.e!)), mpint(fromBase64Url(jwk.n!)));
  if (jwk.kty === "OKP") return sshString(fromBase64Url(jwk.x!));
  const point = concatBytes(Uint8Array.of(4), fromBase64Url(jwk.x!), fromBase64Url(jwk.y!));
  return concatBytes(text("nistp256"), sshString(point));
}

function rawSignature(privateKey: KeyObject, algorithm: string, data: Uint8Array): Uint8Array {
  if (privateKey.asymmetricKeyType === "ed25519") return sign(null, data, privateKey);
  if (privateKey.asymmetricKeyType === "rsa") {
    const digest = { "ssh-rsa": "sha1", "rsa-sha2-256": "sha256" }[algorithm] ?? "sha512";
    return sign(digest, data, privateKey);
  }
  const numbers = new Uint8Array(sign("sha256", data, { key: privateKey, dsaEncoding: "ieee-p1363" }));
  return concatBytes(mpint(numbers.slice(0, 32)), mpint(numbers.slice(32)));
}

function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(bytes).digest());
}
