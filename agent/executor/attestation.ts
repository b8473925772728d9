// The host's attestation key: made by the executor at its first start, readable by it alone, and what it signs.
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from "node:crypto";
import { concatBytes } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { type Namespace, signedDataOfDigest } from "../../protocol/link-proof.ts";
import { armoredSignature, publicKeyLine } from "../../protocol/ssh-sign.ts";
import { errnoOf, type Files } from "../host/files.ts";

export interface AttestationKey {
  /** `ssh-ed25519 AAAA… bedplate-attestation` */
  readonly line: string;
  /** An armored SSHSIG signature: at once, so that it can be made within a transaction. */
  sign(namespace: Namespace, message: Uint8Array): string;
}

const keyFile = "attestation.key";
const keyBytesMax = 4096;

/**
 * Reads the key in the executor's directory, or makes it (mode 0600).
 * @throws `state.unsafe` when others could read it, or it is no such key
 */
export function openAttestationKey(files: Files, directory: string, owner: number): AttestationKey {
  const path = `${directory}/${keyFile}`;
  const privateKey = readKey(files, path, owner) ?? makeKey(files, path, owner);
  const publicKey = publicHalf(privateKey);
  return {
    line: publicKeyLine(publicKey, "bedplate-attestation"),
    sign(namespace, message) {
      const digest = createHash("sha512").update(message).digest();
      const value = sign(null, signedDataOfDigest(namespace, digest, "sha512"), privateKey);
      return armoredSignature(publicKey, namespace, value);
    },
  };
}

/** The public half of the key that is there; undefined where none was made yet. @throws `state.unsafe` */
export function attestationKeyLine(files: Files, directory: string, owner: number): string | undefined {
  const key = readKey(files, `${directory}/${keyFile}`, owner);
  return key === undefined ? undefined : publicKeyLine(publicHalf(key), "bedplate-attestation");
}

function publicHalf(privateKey: KeyObject): Uint8Array {
  const { x } = createPublicKey(privateKey).export({ format: "jwk" });
  return concatBytes(Buffer.from(x!, "base64url"));
}

function readKey(files: Files, path: string, owner: number): KeyObject | undefined {
  try {
    const { kind, uid, mode } = files.linkStatus(path);
    if (kind !== "file" || uid !== owner || (mode & 0o077) !== 0)
      throw unusable(
        path,
        `could be read or changed by others (a ${kind} of user ${uid}, mode ${mode.toString(8)})`,
      );
    const key = createPrivateKey(Buffer.from(files.readBytes(path, keyBytesMax)));
    if (key.asymmetricKeyType !== "ed25519") throw unusable(path, `is of type ${key.asymmetricKeyType}`);
    return key;
  } catch (cause) {
    if (cause instanceof BedplateError) throw cause;
    if (errnoOf(cause) === "ENOENT") return undefined;
    throw unusable(path, `cannot be read as a key (${errnoOf(cause)})`, cause);
  }
}

function makeKey(files: Files, path: string, owner: number): KeyObject {
  const { privateKey } = generateKeyPairSync("ed25519");
  const pem = Buffer.from(privateKey.export({ type: "pkcs8", format: "pem" }));
  if (files.create(path, pem, 0o600) === "created") return privateKey;
  // Another executor was first.
  return readKey(files, path, owner)!;
}

function unusable(path: string, why: string, cause?: unknown): BedplateError {
  return new BedplateError("state.unsafe", `The attestation key ${path} ${why}.`, {
    hint: "Restore it from a backup. Without it this host's plans are signed by another key, which operators must confirm anew.",
    details: { path },
    ...(cause === undefined ? {} : { cause }),
  });
}
