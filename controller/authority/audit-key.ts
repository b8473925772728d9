// The controller's audit key: made once, kept with its state, known to agents and operators by its public half.
import { createPrivateKey, createPublicKey, sign } from "node:crypto";
import { bytesOfHex, concatBytes } from "../../protocol/bytes.ts";
import { publicKeyLine, type SigningKey } from "../../protocol/ssh-sign.ts";
import type { Random } from "../machine/system.ts";
import type { Store } from "../store/store.ts";

export interface AuditKey extends SigningKey {
  /** `ssh-ed25519 AAAA… bedplate-controller-audit` */
  readonly line: string;
}

/** PKCS #8 of an Ed25519 key before its 32 bytes (RFC 8410, section 7). */
const pkcs8Prefix = bytesOfHex("302e020100300506032b657004220420");

export async function openAuditKey(store: Pick<Store, "secret">, random: Random): Promise<AuditKey> {
  const seed = await store.secret("audit-key", () => random.bytes(32));
  const key = createPrivateKey({
    key: Buffer.from(concatBytes(pkcs8Prefix, seed)),
    format: "der",
    type: "pkcs8",
  });
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  const publicKey = Uint8Array.from(spki.subarray(-32));
  return {
    publicKey,
    line: publicKeyLine(publicKey, "bedplate-controller-audit"),
    sign: (data) => Uint8Array.from(sign(null, data, key)),
  };
}
