// Public keys of operators as ssh-keygen writes them ("ssh-ed25519 AAAA… alice"), and which of them are taken.
import { BedplateError } from "./errors.ts";
import { ed25519Fault, isP256Point } from "./ssh-curves.ts";
import { base64, bigintOf, bytesOfBase64, SshReader } from "./ssh-wire.ts";

export const keyTypes = [
  "ssh-ed25519",
  "ecdsa-sha2-nistp256",
  "ssh-rsa",
  "sk-ssh-ed25519@openssh.com",
  "sk-ecdsa-sha2-nistp256@openssh.com",
] as const;
export type KeyType = (typeof keyTypes)[number];

export const keyLimits = { lineCharactersMax: 4096, rsaBitsMin: 2048, rsaBitsMax: 8192 } as const;

type KeyMaterial =
  | { readonly type: "ssh-ed25519"; readonly point: Uint8Array }
  | { readonly type: "ecdsa-sha2-nistp256"; readonly point: Uint8Array }
  | { readonly type: "ssh-rsa"; readonly modulus: Uint8Array; readonly exponent: Uint8Array }
  /** The `sk-` forms live in a FIDO authenticator; `application` is what they are bound to there, mostly "ssh:". */
  | { readonly type: "sk-ssh-ed25519@openssh.com"; readonly point: Uint8Array; readonly application: string }
  | {
      readonly type: "sk-ecdsa-sha2-nistp256@openssh.com";
      readonly point: Uint8Array;
      readonly application: string;
    };

export type PublicKey = KeyMaterial & {
  /** The key's wire form in base64: two keys are the same exactly when these are. */
  readonly encoded: string;
  /** What stands after the key on its line; empty when nothing does. */
  readonly comment: string;
};

/**
 * Reads one line of an authorized_keys file or a `.pub` file, without options.
 * @throws `key.malformed`, `key.unsupported` (its type, options, certificates and their authorities), `key.too-weak`
 */
export function parsePublicKey(line: string): PublicKey {
  if (line.length > keyLimits.lineCharactersMax) {
    throw malformed(`is longer than ${keyLimits.lineCharactersMax} characters`);
  }
  const [, type = "", encoded = "", comment = ""] =
    /^(\S+)[ \t]+(\S+)(?:[ \t]+(.*))?$/s.exec(line.trim()) ?? [];
  if (!isKeyType(type)) throw notTaken(line.trim(), type);
  // These would let a comment forge lines of a log or a prompt.
  if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(comment)) throw malformed("has control characters in its comment");
  const blob = bytesOfBase64(encoded);
  if (blob === undefined) throw malformed("is not valid base64");
  const key = decodePublicKey(blob, comment);
  if (key.type !== type) throw malformed(`says ${type} on its line and ${key.type} inside`);
  return key;
}

/**
 * Reads a key's wire form (RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4, PROTOCOL.u2f).
 * @throws as `parsePublicKey`
 */
export function decodePublicKey(blob: Uint8Array, comment = ""): PublicKey {
  const reader = new SshReader(blob, malformed);
  const type = reader.name();
  if (!isKeyType(type)) throw notTaken(type, type);
  const material = readMaterial(type, reader);
  reader.end();
  return { ...material, encoded: base64(blob), comment };
}

/** `SHA256:…`, as `ssh-keygen -lf` prints it. */
export async function fingerprintOf(key: Pick<PublicKey, "encoded">): Promise<string> {
  return fingerprintOfBlob(bytesOfBase64(key.encoded)!);
}

export async function fingerprintOfBlob(blob: Uint8Array): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", blob));
  return `SHA256:${base64(digest).replace(/=+$/, "")}`;
}

function readMaterial(type: KeyType, reader: SshReader): KeyMaterial {
  switch (type) {
    case "ssh-ed25519":
      return { type, point: edwardsPoint(reader) };
    case "ecdsa-sha2-nistp256":
      return { type, point: p256Point(reader) };
    case "ssh-rsa":
      return rsa(reader);
    case "sk-ssh-ed25519@openssh.com":
      return { type, point: edwardsPoint(reader), application: application(reader) };
    case "sk-ecdsa-sha2-nistp256@openssh.com":
      return { type, point: p256Point(reader), application: application(reader) };
  }
}

function edwardsPoint(reader: SshReader): Uint8Array {
  const point = reader.string();
  if (point.length !== 32) throw malformed(`has ${point.length} bytes where an Ed25519 key has 32`);
  const fault = ed25519Fault(point);
  if (fault === "not-canonical") throw malformed("is not the canonical encoding of its point");
  if (fault === "small-order") throw tooWeak("is a point of small order: anyone can sign for it");
  return point;
}

function p256Point(reader: SshReader): Uint8Array {
  const curve = reader.name();
  if (curve !== "nistp256") throw malformed(`names the curve "${curve}" where nistp256 is due`);
  const point = reader.string();
  if (!isP256Point(point)) throw malformed("is not an uncompressed point on P-256");
  return point;
}

function rsa(reader: SshReader): KeyMaterial {
  // 8 bytes: OpenSSL refuses larger exponents with large moduli, and nobody makes them.
  const exponent = reader.positive(8);
  const modulus = reader.positive(2 * (keyLimits.rsaBitsMax / 8));
  const bits = bigintOf(modulus).toString(2).length;
  if (bits < keyLimits.rsaBitsMin) {
    throw tooWeak(`has ${bits} bits; RSA keys need at least ${keyLimits.rsaBitsMin}`);
  }
  if (bits > keyLimits.rsaBitsMax) {
    throw unsupported(`This RSA key has ${bits} bits; at most ${keyLimits.rsaBitsMax} are taken.`);
  }
  const e = bigintOf(exponent);
  if (e < 65537n || e % 2n === 0n) throw tooWeak(`has the exponent ${e}; it must be odd and at least 65537`);
  if (bigintOf(modulus) % 2n === 0n) throw malformed("has an even modulus");
  return { type: "ssh-rsa", modulus, exponent };
}

function application(reader: SshReader): string {
  const text = reader.name();
  // ssh-keygen makes no others; a web site's credential is none of ours.
  if (!text.startsWith("ssh:")) {
    throw unsupported(`This security key is bound to "${text}"; it must be bound to "ssh:" or "ssh:NAME".`);
  }
  return text;
}

function isKeyType(type: string): type is KeyType {
  return (keyTypes as readonly string[]).includes(type);
}

/** Why a line whose first word is no type of ours is refused. */
function notTaken(line: string, first: string): BedplateError {
  if (/(^|[\s,@])cert-authority([\s,]|$)/i.test(line)) {
    return unsupported("Certificate authorities are not taken: list each operator's own key.");
  }
  if (first.endsWith("-cert-v01@openssh.com")) {
    return unsupported("This is a certificate: use the key that it certifies.");
  }
  if (keyTypes.some((type) => new RegExp(`\\s${type}\\s`).test(line)) || /[=,"]/.test(first)) {
    return unsupported("Options before a key are not taken: write type, key and name only.");
  }
  if (/^[a-z0-9][a-z0-9@.-]*$/.test(first)) {
    return unsupported(
      `Keys of type "${first.slice(0, 64)}" are not taken; use one of ${keyTypes.join(", ")}.`,
    );
  }
  return malformed("does not start with its type");
}

function malformed(why: string): BedplateError {
  return new BedplateError("key.malformed", `The public key ${why}.`, {
    hint: "Paste the whole line of the .pub file that ssh-keygen made.",
  });
}

function tooWeak(why: string): BedplateError {
  return new BedplateError("key.too-weak", `The public key ${why}.`, {
    hint: "Make another with `ssh-keygen -t ed25519`.",
  });
}

function unsupported(sentence: string): BedplateError {
  return new BedplateError("key.unsupported", sentence);
}
