// Signing with an Ed25519 key the way ssh-keygen does: public keys as lines, signatures as armored SSHSIG.
import { concatBytes, sshString, utf8 } from "./bytes.ts";
import { assert } from "./errors.ts";
import { type Namespace, signedData } from "./link-proof.ts";
import { base64 } from "./ssh-wire.ts";
import { armor, encodeSignature } from "./sshsig-format.ts";

/** An Ed25519 key that signs; where its private half lives is its owner's affair. */
export interface SigningKey {
  /** Raw, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 64 bytes of Ed25519 over `data`. */
  sign(data: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

const keyType = "ssh-ed25519";

/** `ssh-ed25519 AAAA… comment`, as a line of a `.pub` file. */
export function publicKeyLine(publicKey: Uint8Array, comment: string): string {
  return `${keyType} ${base64(wireForm(publicKey))}${comment === "" ? "" : ` ${comment}`}`;
}

/** The armored SSHSIG signature over `message`: what `ssh-keygen -Y sign -n NAMESPACE` would print. */
export async function signMessage(
  key: SigningKey,
  namespace: Namespace,
  message: Uint8Array,
): Promise<string> {
  return armoredSignature(key.publicKey, namespace, await key.sign(await signedData(namespace, message)));
}

/** What `signMessage` gives, of 64 bytes of Ed25519 over the signed data of `namespace` with SHA-512. */
export function armoredSignature(publicKey: Uint8Array, namespace: Namespace, value: Uint8Array): string {
  assert(value.length === 64, "an Ed25519 signature has 64 bytes");
  return armor(
    encodeSignature({
      publicKey: wireForm(publicKey),
      namespace,
      hash: "sha512",
      algorithm: keyType,
      value: sshString(value),
    }),
  );
}

function wireForm(publicKey: Uint8Array): Uint8Array {
  assert(publicKey.length === 32, "an Ed25519 public key has 32 bytes");
  return concatBytes(sshString(utf8(keyType)), sshString(publicKey));
}
