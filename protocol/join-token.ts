// Join tokens as text: what an operator carries to a host. Holds the secret and the pin of the controller's CA.
import { BedplateError } from "./errors.ts";

export interface JoinToken {
  readonly id: string;
  readonly secret: string;
  /** SHA-256 of the controller's CA certificate (DER), lower-case hexadecimal: checked before anything secret is sent. */
  readonly caSha256: string;
}

export function formatJoinToken(token: JoinToken): string {
  return `bedplate-join.${token.id}.${token.secret}.${token.caSha256}`;
}

/** @throws `enrol.token-invalid` */
export function parseJoinToken(text: string): JoinToken {
  const match = /^bedplate-join\.([A-Za-z0-9_-]{8,64})\.([A-Za-z0-9_-]{32,128})\.([0-9a-f]{64})$/.exec(
    text.trim(),
  );
  if (match === null) {
    throw new BedplateError("enrol.token-invalid", "This is not a join token.", {
      hint: "Make one with `bedplate join-token create` and give it whole: bedplate-join.ID.SECRET.PIN.",
    });
  }
  return { id: match[1]!, secret: match[2]!, caSha256: match[3]! };
}
