// Whether a file is signed by a key of a keyring that is good now: gpgv's own word, read from its status lines.
import { chown, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BedplateError } from "../../protocol/errors.ts";
import { type Programs, runTool, unprivilegedId } from "./tool.ts";

export interface SignedFile {
  readonly content: Uint8Array;
  /** Detached, armored or not; null for a content that is clear-signed itself. */
  readonly signature: Uint8Array | null;
  /** Public keys as `gpg --export` writes them, armored or not. */
  readonly keyring: Uint8Array;
  /** How the file is called in errors. */
  readonly where: string;
  readonly programs: Programs;
  readonly signal: AbortSignal;
}

export interface GoodSignature {
  /** Of the primary key, 40 hexadecimal digits. */
  readonly fingerprint: string;
  /** The key's first user id, as it claims. */
  readonly owner: string;
}

const statusBytesMax = 1 << 20;

/**
 * @returns the content that is signed, and who signed it
 * @throws `image.untrusted-sums`, `image.tool-missing`
 */
export async function verifyWithGpgv(
  file: SignedFile,
): Promise<{ readonly content: Uint8Array; readonly signedBy: readonly GoodSignature[] }> {
  const { content, signature, keyring, where, programs, signal } = file;
  await using resources = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "bedplate-gpgv-"));
  resources.defer(() => rm(directory, { recursive: true, force: true }));
  const put = async (name: string, bytes: Uint8Array) => {
    const path = join(directory, name);
    await writeFile(path, bytes, { flag: "wx", mode: 0o600 });
    await give(path);
    return path;
  };
  const [keys, data] = [await put("keyring.gpg", dearmoredKeys(keyring)), await put("data", content)];
  const signed = signature === null ? [data] : [await put("signature", signature), data];
  await give(directory);
  const output = join(directory, "output");
  const tool = await runTool({
    program: "gpgv",
    package: "gpgv",
    args: [
      ...["--homedir", directory, "--keyring", keys, "--status-fd", "1", "--weak-digest", "SHA1"],
      ...(signature === null ? ["--output", output] : []),
      ...["--", ...signed],
    ],
    limits: { addressBytes: 1 << 30, fileBytes: 64 << 20, processorSeconds: 120 },
    programs,
    signal,
  });
  let status = "";
  try {
    for await (const piece of tool.stdout) {
      status += Buffer.from(piece).toString("latin1");
      if (status.length > statusBytesMax) throw untrusted(where, "gpgv says too much about it");
    }
    const { exitCode, message } = await tool.ended;
    const signedBy = judge(status, exitCode, (why) => untrusted(where, why, message));
    return { content: signature === null ? await readFile(output) : content, signedBy };
  } finally {
    await tool.stop();
  }
}

const signatureEnds = /^(GOODSIG|BADSIG|ERRSIG|EXPSIG|EXPKEYSIG|REVKEYSIG) /;
const reasons: Readonly<Record<string, string>> = {
  BADSIG: "a signature does not hold over it",
  EXPSIG: "its signature has expired",
  EXPKEYSIG: "it is signed by a key that has expired",
  REVKEYSIG: "it is signed by a key that is revoked",
  ERRSIG: "it is signed by no key of the keyring",
};

/**
 * At least one signature must be good and valid, and none bad. Others by keys that the keyring lacks take nothing away:
 * vendors sign with the next key beside the present one.
 * @see https://github.com/gpg/gnupg/blob/master/doc/DETAILS
 */
export function judge(
  status: string,
  exitCode: number | null,
  refusal: (why: string) => BedplateError,
): readonly GoodSignature[] {
  const signatures: string[][] = [];
  for (const line of status.split("\n")) {
    if (!line.startsWith("[GNUPG:] ")) continue;
    const said = line.slice("[GNUPG:] ".length).trimEnd();
    if (said === "NEWSIG" || said.startsWith("NEWSIG ")) signatures.push([]);
    else signatures.at(-1)?.push(said);
  }
  const verdicts = signatures.map((lines) => ({
    ends: lines.flatMap((line) => signatureEnds.exec(line)?.[1] ?? []),
    owner:
      lines
        .find((line) => line.startsWith("GOODSIG "))
        ?.split(" ")
        .slice(2)
        .join(" ") ?? "",
    fingerprint: lines
      .find((line) => line.startsWith("VALIDSIG "))
      ?.split(" ")
      .at(-1),
  }));
  if (verdicts.some(({ ends }) => ends.includes("BADSIG"))) throw refusal(reasons.BADSIG!);
  const good = verdicts.filter(
    ({ ends, fingerprint }) => ends.length === 1 && ends[0] === "GOODSIG" && fingerprint !== undefined,
  );
  if (good.length === 0) {
    const first = verdicts.flatMap(({ ends }) => ends).find((end) => end !== "GOODSIG");
    throw refusal(reasons[first ?? ""] ?? "it has no signature that gpgv could read");
  }
  // What went wrong must be one of the other signatures.
  if (exitCode !== 0 && good.length === verdicts.length) throw refusal("gpgv does not vouch for it");
  return good.map(({ fingerprint, owner }) => ({ fingerprint: fingerprint!, owner: printable(owner) }));
}

function printable(text: string): string {
  return Buffer.from(text, "latin1").toString("utf8").replaceAll(/\p{C}/gu, "?").slice(0, 200);
}

/** gpgv reads keys in binary only; vendors publish them armored. */
function dearmoredKeys(keyring: Uint8Array): Uint8Array {
  const text = Buffer.from(keyring).toString("latin1");
  if (!text.includes("-----BEGIN PGP PUBLIC KEY BLOCK-----")) return keyring;
  const blocks = text.matchAll(
    /-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+: [^\r\n]*\r?\n)*\r?\n([A-Za-z0-9+/=\s]*?)(?:\r?\n=[A-Za-z0-9+/]{4})?\s*-----END PGP PUBLIC KEY BLOCK-----/g,
  );
  return Buffer.concat([...blocks].map((block) => Buffer.from(block[1]!, "base64")));
}

/** The program runs with no rights where we have all. */
async function give(path: string): Promise<void> {
  if (process.getuid?.() === 0) await chown(path, unprivilegedId, unprivilegedId);
}

function untrusted(where: string, why: string, said = ""): BedplateError {
  return new BedplateError("image.untrusted-sums", `${where} is not trusted: ${why}.`, {
    hint: `Is the keyring the vendor's, and new enough? ${said === "" ? "" : `gpgv said: ${said.slice(0, 500)}`}`.trim(),
  });
}
