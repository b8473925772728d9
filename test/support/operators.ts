// Operators with keys of their own: made and used by the real ssh-keygen where it is installed, else by node:crypto.
import { execFileSync, spawnSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { sshString, utf8 } from "../../protocol/bytes.ts";
import type { Namespace } from "../../protocol/link-proof.ts";
import { makeSigner, mpint } from "../protocol/ssh-signers.ts";

export interface Operator {
  readonly name: string;
  /** As in a `.pub` file, the name at its end. */
  readonly line: string;
  /** Armored, over the message; namespace `bedplate-command` unless another is given. */
  sign(message: Uint8Array, namespace?: Namespace | "file"): Promise<string>;
}

export const sshKeygenPresent = spawnSync("ssh-keygen", ["-?"]).error === undefined;

export type OperatorKey = "ed25519" | "ecdsa" | "rsa";
const nodeTypes = { ed25519: "ssh-ed25519", ecdsa: "ecdsa-sha2-nistp256", rsa: "ssh-rsa" } as const;

/** Its files lie in `directory`, which the caller removes. */
export function makeOperator(directory: string, name: string, type: OperatorKey = "ed25519"): Operator {
  if (!sshKeygenPresent) {
    const signer = makeSigner(nodeTypes[type]);
    return {
      name,
      line: signer.line(name),
      sign: (message, namespace = "bedplate-command") =>
        signer.sign(message, { namespace: namespace as Namespace }),
    };
  }
  const file = join(directory, `${name}-${type}-${made++}`);
  execFileSync("ssh-keygen", ["-q", "-t", type, "-N", "", "-C", name, "-f", file]);
  return {
    name,
    line: readFileSync(`${file}.pub`, "utf8").trim(),
    sign: async (message, namespace = "bedplate-command") =>
      execFileSync("ssh-keygen", ["-q", "-Y", "sign", "-n", namespace, "-f", file], {
        input: message,
        encoding: "utf8",
        stdio: ["pipe", "pipe", "ignore"],
      }),
  };
}

let made = 0;

/** A public key of RSA with 1024 bits: good for nobody. */
export function weakRsaLine(comment: string): string {
  const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
  const { n, e } = publicKey.export({ format: "jwk" });
  const number = (text: string) => mpint(new Uint8Array(Buffer.from(text, "base64url")));
  const blob = Buffer.concat([sshString(utf8("ssh-rsa")), number(e!), number(n!)]);
  return `ssh-rsa ${blob.toString("base64")} ${comment}`;
}
