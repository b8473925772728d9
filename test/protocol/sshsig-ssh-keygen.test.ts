// Both ways with the real ssh-keygen: it takes what we encode, and we take what it signs. Skipped where it is absent.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { concatBytes, sshString, utf8 } from "../../protocol/bytes.ts";
import { fingerprintOf, keyTypes, parsePublicKey } from "../../protocol/ssh-keys.ts";
import { verifySignature } from "../../protocol/sshsig.ts";
import { armor } from "../../protocol/sshsig-format.ts";
import { makeSigner } from "./ssh-signers.ts";

const present = spawnSync("ssh-keygen", ["-?"]).error === undefined;
if (!present) console.log("skipped: ssh-keygen is not installed (Debian: openssh-client)");
const namespace = "bedplate-command";
const message = utf8("what is signed\n");

describe.skipIf(!present)("ssh-keygen", () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "bedplate-sshsig-"));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  const accepts = (line: string, signature: string, over = message) => {
    const [type, encoded] = line.split(" ");
    writeFileSync(join(directory, "allowed"), `alice ${type} ${encoded}\n`);
    writeFileSync(join(directory, "signature"), signature);
    const args = ["-Y", "verify", "-f", "allowed", "-I", "alice", "-n", namespace, "-s", "signature"];
    return spawnSync("ssh-keygen", args, { cwd: directory, input: over }).status === 0;
  };

  test.each(keyTypes)("takes our signature by %s, and prints the same fingerprint", async (type) => {
    const signer = makeSigner(type);
    const line = signer.line("alice");
    for (const hash of ["sha256", "sha512"] as const) {
      const signature = await signer.sign(message, { hash });
      expect(accepts(line, signature)).toBe(true);
      expect(accepts(line, signature, utf8("other"))).toBe(false);
    }
    writeFileSync(join(directory, "key.pub"), `${line}\n`);
    const printed = execFileSync("ssh-keygen", ["-lf", "key.pub"], { cwd: directory, encoding: "utf8" });
    expect(printed.split(" ")[1]).toBe(await fingerprintOf(parsePublicKey(line)));
  });

  test("takes our rsa-sha2-256, and refuses SHA-1 as we do", async () => {
    const signer = makeSigner("ssh-rsa");
    expect(accepts(signer.line("alice"), await signer.sign(message, { algorithm: "rsa-sha2-256" }))).toBe(
      true,
    );
    expect(accepts(signer.line("alice"), await signer.sign(message, { algorithm: "ssh-rsa" }))).toBe(false);
  });

  test("ignores what is reserved as we do", async () => {
    const signer = makeSigner("ssh-ed25519");
    const blob = await signer.signBlob(message);
    const at = Buffer.from(blob).indexOf(namespace) + namespace.length;
    const reserved = concatBytes(blob.slice(0, at), sshString(utf8("later")), blob.slice(at + 4));
    expect(accepts(signer.line("alice"), armor(reserved))).toBe(true);
    const keys = [parsePublicKey(signer.line("alice"))];
    await expect(verifySignature(reserved, { namespace, message, keys })).resolves.toBeDefined();
  });

  test.each([["ed25519"], ["ecdsa"], ["rsa"]])("we take what it signs with a new %s key", async (type) => {
    const file = join(directory, type);
    const size = type === "rsa" ? ["-b", "2048"] : [];
    execFileSync("ssh-keygen", ["-q", "-t", type, ...size, "-N", "", "-C", "alice", "-f", file]);
    const keys = [parsePublicKey(readFileSync(`${file}.pub`, "utf8"))];
    for (const hash of ["sha256", "sha512"]) {
      const args = ["-q", "-Y", "sign", "-f", file, "-n", namespace, "-O", `hashalg=${hash}`];
      const signature = execFileSync("ssh-keygen", args, {
        input: message,
        stdio: ["pipe", "pipe", "ignore"],
        encoding: "utf8",
      });
      await expect(verifySignature(signature, { namespace, message, keys })).resolves.toMatchObject({
        comment: "alice",
      });
      await expect(
        verifySignature(signature, { namespace, message: utf8("other"), keys }),
      ).rejects.toMatchObject({
        code: "signature.invalid",
      });
    }
  });
});
