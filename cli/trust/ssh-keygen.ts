// Signing with the operator's own SSH key, by ssh-keygen: keys in files, in ssh-agent, and on security keys.
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { textOf } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { Namespace } from "../../protocol/link-proof.ts";
import { decodePublicKey, fingerprintOf, type PublicKey, parsePublicKey } from "../../protocol/ssh-keys.ts";
import { type VerifiedSignature, verifySignature } from "../../protocol/sshsig.ts";
import { parseSignature, signatureBytesMax } from "../../protocol/sshsig-format.ts";
import type { Terminal } from "../terminal.ts";

const messageCharactersMax = 2000;

export interface SignOptions {
  /**
   * A file with a private key, or with a public one whose private half ssh-agent or a security key holds.
   * `agent`: the one key in ssh-agent; `agent:NAME` or `agent:SHA256:…` where it holds several.
   */
  readonly key: string;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  /** Where ssh-agent is, and who asks for a passphrase: this process's own if absent. */
  readonly environment?: NodeJS.ProcessEnv;
  /** What is signed: a command if absent. */
  readonly namespace?: Namespace;
}

/**
 * Signs these very bytes, which reach ssh-keygen through its standard input and nobody else.
 * What it made is verified before it is returned.
 * @throws `signature.tool-failed` with what ssh-keygen said; what `verifySignature` and `parsePublicKey` throw
 */
export async function signCommand(
  document: Uint8Array,
  options: SignOptions,
): Promise<{ readonly signature: string; readonly verified: VerifiedSignature }> {
  await using resources = new AsyncDisposableStack();
  const { key, namespace = "bedplate-command" } = options;
  let file = key;
  if (key === "agent" || key.startsWith("agent:")) {
    const { line } = await chooseAgentKey(await agentKeys(options), key.slice("agent:".length));
    const directory = await mkdtemp(join(tmpdir(), "bedplate-sign-"));
    resources.defer(() => rm(directory, { recursive: true, force: true }));
    file = join(directory, "key.pub");
    await writeFile(file, `${line}\n`, { mode: 0o600 });
  }
  const signature = await run(
    // Quiet of what it reads; that a security key waits for a touch it says all the same.
    ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", file],
    document,
    options,
  );
  return { signature, verified: await verifyOwn(signature, document, namespace) };
}

/**
 * Whether a signature holds over these bytes by the key that it claims, of a kind that hosts take.
 * @throws what `verifySignature` and `parsePublicKey` throw
 */
export async function verifyOwn(
  signature: string,
  document: Uint8Array,
  namespace: Namespace = "bedplate-command",
): Promise<VerifiedSignature> {
  const claimed = decodePublicKey(parseSignature(signature).publicKey);
  return verifySignature(signature, { namespace, message: document, keys: [claimed] });
}

interface AgentKey {
  readonly line: string;
  readonly key: PublicKey;
}

async function agentKeys(options: SignOptions): Promise<AgentKey[]> {
  const lines = (await run(["ssh-add", "-L"], new Uint8Array(), options)).split("\n");
  return lines.flatMap((line) => {
    try {
      return line.trim() === "" ? [] : [{ line, key: parsePublicKey(line) }];
    } catch (error) {
      // Certificates and old kinds of key, which hosts would not take either.
      if (error instanceof BedplateError) return [];
      throw error;
    }
  });
}

/** @throws `usage` unless exactly one is meant */
async function chooseAgentKey(keys: readonly AgentKey[], wanted: string): Promise<AgentKey> {
  const named = await Promise.all(
    keys.map(async (one) => ({ ...one, fingerprint: await fingerprintOf(one.key) })),
  );
  const fitting = named.filter(
    ({ key, fingerprint }) => wanted === "" || wanted === key.comment || wanted === fingerprint,
  );
  if (fitting.length === 1) return fitting[0]!;
  throw new BedplateError(
    "usage",
    fitting.length === 0
      ? `ssh-agent holds no key that fits${wanted === "" ? "" : ` "${wanted}"`}.`
      : "ssh-agent holds several keys that could sign.",
    {
      hint:
        named.length === 0
          ? "Add one with ssh-add, or name a key file."
          : "Say which one: agent:NAME or agent:SHA256:… (its comment, or its fingerprint).",
      details: { candidates: named.map(({ key, fingerprint }) => `${fingerprint} ${key.comment}`) },
    },
  );
}

/** Standard output of a program that got `input`; what it asks or says reaches the terminal. */
async function run(
  [program, ...args]: readonly [string, ...string[]],
  input: Uint8Array,
  { terminal, signal, environment = process.env }: SignOptions,
): Promise<string> {
  const child = spawn(program, args, {
    stdio: ["pipe", "pipe", "pipe"],
    env: environment,
    signal,
    killSignal: "SIGTERM",
  });
  const output: Buffer[] = [];
  let outputBytes = 0;
  let said = "";
  child.stdout.on("data", (piece: Buffer) => {
    outputBytes += piece.length;
    // ssh-add lists whole keys; a signature is far below this.
    if (outputBytes <= 64 * signatureBytesMax) output.push(piece);
  });
  child.stderr.on("data", (piece: Buffer) => {
    said = `${said}${piece.toString("utf8")}`.slice(-messageCharactersMax);
    // "Confirm user presence for key …": a security key waits for a touch.
    terminal.note(piece.toString("utf8").trimEnd());
  });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const code = await new Promise<number | NodeJS.Signals | null>((resolve, reject) => {
    child.once("error", (cause: NodeJS.ErrnoException) => {
      if (signal.aborted) reject(signal.reason);
      else if (cause.code === "ENOENT") {
        const error = new BedplateError("signature.tool-failed", `${program} is not installed here.`, {
          hint: "Install OpenSSH's client, or sign elsewhere: --output FILE writes what is to be signed.",
          cause,
        });
        reject(error);
      } else reject(cause);
    });
    child.once("close", (status, name) => resolve(name ?? status));
  });
  signal.throwIfAborted();
  if (code === 0) return textOf(Buffer.concat(output));
  throw new BedplateError(
    "signature.tool-failed",
    `${program} made no signature (${code}): ${said.trim().split("\n").at(-1) || "it does not say why"}`,
    { hint: "Is the key's file right, and, for a key in ssh-agent or on a security key, is it there?" },
  );
}
