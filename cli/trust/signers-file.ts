// Files of operators' public keys: lines as of a `.pub` file or of authorized_keys, or as of OpenSSH's allowed_signers.
import { readFile, stat } from "node:fs/promises";
import { BedplateError } from "../../protocol/errors.ts";
import { parseSignerSets, type SignerSet, signerLimits } from "../../protocol/signer-sets.ts";
import { unreadable } from "../unreadable.ts";

/** A key of RSA with 16384 bits has below 3 KiB. */
const fileBytesMax = signerLimits.keysMax * 4096;

/** @throws `file.unreadable`, `signers.invalid` */
export async function readSignersFile(path: string): Promise<SignerSet> {
  let text: string;
  try {
    if ((await stat(path)).size > fileBytesMax)
      throw new BedplateError(
        "signers.invalid",
        `${path} is larger than ${fileBytesMax} bytes: no file of signers.`,
      );
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof BedplateError) throw cause;
    throw unreadable(path, cause);
  }
  return parseSigners(text, path);
}

/** @throws `signers.invalid` naming file and line */
export function parseSigners(text: string, path: string): SignerSet {
  const lines = text.split("\n").flatMap((line, index) => {
    const trimmed = line.trim();
    return trimmed === "" || trimmed.startsWith("#") ? [] : [publicKeyLine(trimmed, `${path}:${index + 1}`)];
  });
  if (lines.length === 0) throw new BedplateError("signers.invalid", `${path} has no public key.`);
  const [set] = parseSignerSets({ [path]: lines });
  return set!;
}

const keyType = /^(ssh-|ecdsa-|sk-)[A-Za-z0-9@.-]+$/;

/** `alice ssh-ed25519 AAAA…` of allowed_signers says who signs before the key, a `.pub` line after it. */
function publicKeyLine(line: string, where: string): string {
  const words = line.split(/\s+/);
  if (keyType.test(words[0]!)) return line;
  const [operator, type, key] = words;
  if (type !== undefined && keyType.test(type) && key !== undefined && !operator!.includes(","))
    return `${type} ${key} ${operator}`;
  throw new BedplateError("signers.invalid", `${where} is no public key with its operator's name.`, {
    hint: "Write `ssh-ed25519 AAAA… alice`, or `alice ssh-ed25519 AAAA…`; options and several names are not taken.",
  });
}
