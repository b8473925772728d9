// What a host says of itself in records, held against its keys before it is stored: its identity, and where its audit stands.
import { type AuditHead, auditHeadBytes } from "../../protocol/audit.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { identityDigest, verifyIdentity } from "../../protocol/identity.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { parsePublicKey } from "../../protocol/ssh-keys.ts";
import { type SigningKey, signMessage } from "../../protocol/ssh-sign.ts";
import { verifySignature } from "../../protocol/sshsig.ts";
import type { Vouched } from "../rules/record-rule.ts";

export interface VouchParts {
  readonly host: string;
  readonly linkKey: Uint8Array;
  readonly auditKey: SigningKey;
}

/** Judges a session's records one after the other: a head is held against the key of the identity before it. */
export class Voucher {
  readonly #parts: VouchParts;
  #attestationKey: string | undefined;

  constructor(parts: VouchParts) {
    this.#parts = parts;
  }

  /** As stored when the session begins. */
  set attestationKey(line: string | undefined) {
    this.#attestationKey = line;
  }

  /** Undefined for records that no key need vouch for. */
  async vouch(body: RecordBody): Promise<Vouched | undefined> {
    try {
      if (body.type === "identity") return await this.#identity(body.identity);
      return body.type === "audit-head" ? await this.#head(body) : undefined;
    } catch (error) {
      if (!(error instanceof BedplateError)) throw error;
      return { type: "refused", reason: `${error.code} ${error.message}` };
    }
  }

  async #identity(identity: Extract<RecordBody, { type: "identity" }>["identity"]): Promise<Vouched> {
    const { host, linkKey } = this.#parts;
    if (identity.host !== host)
      throw new BedplateError("identity.invalid", "The identity is another host's.");
    const fingerprint = await verifyIdentity(identity, linkKey);
    const before = this.#attestationKey;
    this.#attestationKey = identity.attestationKey;
    return {
      type: "identity",
      fingerprint,
      digest: await identityDigest(identity),
      keyBefore:
        before === undefined
          ? "none"
          : parsePublicKey(before).encoded === parsePublicKey(identity.attestationKey).encoded
            ? "same"
            : "another",
    };
  }

  async #head(head: AuditHead): Promise<Vouched> {
    if (this.#attestationKey === undefined)
      throw new BedplateError("identity.invalid", "The host has not told its attestation key.");
    const key = parsePublicKey(this.#attestationKey);
    const message = auditHeadBytes(this.#parts.host, head);
    await verifySignature(head.signature, { namespace: "bedplate-audit", message, keys: [key] });
    return {
      type: "audit-head",
      attestation: `${key.type} ${key.encoded}`,
      countersignature: await signMessage(this.#parts.auditKey, "bedplate-audit", message),
    };
  }
}
