// Signing by the operator's own ssh-keygen and ssh-agent, with real keys.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Terminal } from "../../cli/terminal.ts";
import { type SignOptions, signCommand, verifyOwn } from "../../cli/trust/ssh-keygen.ts";
import { utf8 } from "../../protocol/bytes.ts";
import { parsePublicKey } from "../../protocol/ssh-keys.ts";
import { verifySignature } from "../../protocol/sshsig.ts";

const here = spawnSync("ssh-keygen", ["-?"]).error === undefined;
const { signal } = new AbortController();
const notes: string[] = [];
const terminal = { json: false, note: (text: string) => void notes.push(text) } as unknown as Terminal;
const document = utf8('{ "bedplate": "command/1" }\n');
let directory: string;
const file = (name: string) => join(directory, name);
const publicKey = async (name: string) => parsePublicKey(await readFile(file(`${name}.pub`), "utf8"));
const sign = (key: string, environment: SignOptions["environment"] = {}) =>
  signCommand(document, { key, terminal, signal, environment: { PATH: process.env.PATH, ...environment } });

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-keygen-"));
  if (!here) return;
  for (const [name, ...kind] of [
    ["ed25519", "-t", "ed25519"],
    ["rsa", "-t", "rsa", "-b", "2048"],
    ["ecdsa", "-t", "ecdsa", "-b", "256"],
    ["old", "-t", "rsa", "-b", "1024"],
    ["p384", "-t", "ecdsa", "-b", "384"],
  ])
    execFileSync("ssh-keygen", ["-q", "-N", "", "-C", name!, "-f", file(name!), ...kind]);
  execFileSync("ssh-keygen", ["-q", "-N", "secret", "-C", "locked", "-f", file("locked"), "-t", "ed25519"]);
});
afterAll(() => rm(directory, { recursive: true }));

describe.runIf(here)("ssh-keygen", () => {
  test.each(["ed25519", "rsa", "ecdsa"])("signs with a key file of type %s", async (name) => {
    const before = await readdir(directory);
    const { signature, verified } = await sign(file(name));
    await verifySignature(signature, {
      namespace: "bedplate-command",
      message: document,
      keys: [await publicKey(name)],
    });
    expect(verified.fingerprint).toBe(
      execFileSync("ssh-keygen", ["-lf", file(name)], { encoding: "utf8" }).split(" ")[1],
    );
    // Neither document nor signature is left beside the key.
    expect(await readdir(directory)).toEqual(before);
  });

  test.each([
    ["old", "key.too-weak"],
    ["p384", "signature.malformed"],
  ])("a key that hosts would not take is told before it is sent: %s", async (name, code) => {
    const error = await sign(file(name)).catch((thrown: { code: string }) => thrown);
    expect((error as { code: string }).code).toMatch(new RegExp(`^(${code}|key\\.)`));
  });

  test("what it cannot do is told in its own words", async () => {
    await expect(sign(file("absent"))).rejects.toThrow(
      expect.objectContaining({
        code: "signature.tool-failed",
        message: expect.stringMatching(/absent.*No such file/),
      }),
    );
    // Nobody is there to ask for the passphrase.
    await expect(
      sign(file("locked"), { SSH_ASKPASS: "/bin/false", SSH_ASKPASS_REQUIRE: "force" }),
    ).rejects.toThrow(expect.objectContaining({ code: "signature.tool-failed" }));
  });

  test("it is not installed", async () => {
    await expect(sign(file("ed25519"), { PATH: directory })).rejects.toThrow(
      expect.objectContaining({
        code: "signature.tool-failed",
        message: "ssh-keygen is not installed here.",
      }),
    );
  });

  test("a name that looks like an option is a file's name", async () => {
    await expect(sign("-V")).rejects.toThrow(expect.objectContaining({ code: "signature.tool-failed" }));
  });
});

describe.runIf(here && spawnSync("ssh-agent", ["-?"]).error === undefined)("ssh-agent", () => {
  let environment: { SSH_AUTH_SOCK: string };
  let pid = 0;
  beforeAll(() => {
    const socket = file("agent.sock");
    const said = execFileSync("ssh-agent", ["-a", socket], { encoding: "utf8" });
    pid = Number(/SSH_AGENT_PID=(\d+)/.exec(said)![1]);
    environment = { SSH_AUTH_SOCK: socket };
  });
  afterAll(() => void process.kill(pid));
  const add = (name: string) =>
    execFileSync("ssh-add", ["-q", file(name)], { env: { ...process.env, ...environment } });

  test("signs with its one key, with one of several by name or fingerprint, and with a public key's file", async () => {
    const before = (await readdir(tmpdir())).filter((name) => name.startsWith("bedplate-sign-"));
    await expect(sign("agent", environment)).rejects.toThrow(/signature|holds no key/);
    add("ed25519");
    const one = await sign("agent", environment);
    expect(one.verified.key.encoded).toBe((await publicKey("ed25519")).encoded);
    add("ecdsa");
    await expect(sign("agent", environment)).rejects.toThrow(
      expect.objectContaining({ code: "usage", message: expect.stringContaining("several") }),
    );
    const named = await sign("agent:ecdsa", environment);
    expect(named.verified.key.type).toBe("ecdsa-sha2-nistp256");
    const byFingerprint = await sign(`agent:${one.verified.fingerprint}`, environment);
    expect(byFingerprint.verified.fingerprint).toBe(one.verified.fingerprint);
    await expect(sign("agent:nobody", environment)).rejects.toThrow(
      expect.objectContaining({ code: "usage" }),
    );
    // The private half only the agent has.
    const alone = file("alone.pub");
    await writeFile(alone, await readFile(file("ed25519.pub")));
    expect((await sign(alone, environment)).verified.fingerprint).toBe(one.verified.fingerprint);
    const after = (await readdir(tmpdir())).filter((name) => name.startsWith("bedplate-sign-"));
    expect(after).toEqual(before);
  });
});

test.runIf(here)("a signature made elsewhere must hold over these bytes, for this use", async () => {
  const made = (namespace: string, message: string) =>
    execFileSync("ssh-keygen", ["-q", "-Y", "sign", "-n", namespace, "-f", file("ed25519")], {
      input: message,
      encoding: "utf8",
      stdio: ["pipe", "pipe", "ignore"],
    });
  const text = new TextDecoder().decode(document);
  await verifyOwn(made("bedplate-command", text), document);
  await expect(verifyOwn(made("bedplate-command", `${text} `), document)).rejects.toThrow(
    expect.objectContaining({ code: "signature.invalid" }),
  );
  await expect(verifyOwn(made("file", text), document)).rejects.toThrow(
    expect.objectContaining({ code: "signature.wrong-namespace" }),
  );
});
