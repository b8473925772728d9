// Adding an operator's signature to a command that waits for it: checked, shown from its bytes, confirmed, signed, sent.
import { readFile, stat, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import type { CommandView } from "../protocol/api.ts";
import { isTerminal } from "../protocol/commands.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { VerifiedSignature } from "../protocol/sshsig.ts";
import { signatureBytesMax } from "../protocol/sshsig-format.ts";
import type { ApiClient } from "./api-client.ts";
import {
  changePairs,
  changeText,
  confirmationsFor,
  hostPairs,
  limitPairs,
  type Pairs,
  requirementText,
} from "./change-text.ts";
import { now } from "./clock.ts";
import { confirm } from "./confirm.ts";
import { type ExitCode, exitCodes } from "./exit-codes.ts";
import { errorOfView } from "./operation.ts";
import { formatTime } from "./output.ts";
import type { Terminal } from "./terminal.ts";
import { type CommandReview, reviewCommand } from "./trust/command-review.ts";
import { readKnownHosts } from "./trust/known-hosts-file.ts";
import { signCommand, verifyOwn } from "./trust/ssh-keygen.ts";
import { unreadable } from "./unreadable.ts";

export type SignAction =
  /** With the key, as `signCommand` takes it. */
  | { readonly do: "sign"; readonly key: string }
  | { readonly do: "print" }
  /** Writes the document, to be signed on another machine. */
  | { readonly do: "output"; readonly file: string }
  /** Adds a signature that was made there. */
  | { readonly do: "add"; readonly file: string };

export interface SignCommandOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly id: string;
  readonly knownHostsFile: string;
  readonly action: SignAction;
  /** What another operator said that the document's digest is. */
  readonly digest?: string;
  /** Nothing is asked. */
  readonly confirmed: boolean;
}

export async function signWaiting(options: SignCommandOptions): Promise<ExitCode> {
  const { client, terminal, signal, id, action } = options;
  const view = await client.command(id);
  const review = await reviewCommand({
    id,
    view,
    knownHosts: await readKnownHosts(options.knownHostsFile),
    nowMs: now(),
    ...(options.digest === undefined ? {} : { digest: options.digest }),
  });
  terminal.print(reviewText(review, view));
  const shown = reviewDocument(review);
  if (action.do === "print") {
    terminal.document(shown);
    return exitCodes.ok;
  }
  requireOpen(view);
  if (action.do === "output") {
    await exportDocument(review, action.file, terminal);
    terminal.document({ ...shown, file: action.file });
    return exitCodes.ok;
  }
  if (!review.plan.plan.allowed) {
    throw new BedplateError(
      "policy.denied",
      "The host would refuse it whoever signs: see the findings above.",
      { details: { findings: review.plan.plan.findings.filter((finding) => !finding.ok) } },
    );
  }
  const made = action.do === "add" ? await signatureOfFile(action.file, review) : undefined;
  if (!options.confirmed)
    for (const asked of confirmationsFor(review.plan.plan, review.host.name)) await confirm(asked, signal);
  const { signature, verified } =
    made ?? (await signCommand(review.document, { key: keyOf(action), terminal, signal }));
  const after = await client.addSignature(id, signature);
  terminal.document({ ...shown, signedBy: verified.fingerprint, command: after });
  terminal.print(signedText(after, verified));
  return exitCodes.ok;
}

function keyOf(action: SignAction): string {
  return action.do === "sign" ? action.key : "agent";
}

/** @throws `command.already-offered`, or what the command ended with */
function requireOpen(view: CommandView): void {
  if (view.state === "waiting") return;
  const error = isTerminal(view.state) && view.state !== "succeeded" ? errorOfView(view) : undefined;
  throw new BedplateError(
    "command.already-offered",
    `The command is ${view.state} since ${formatTime(view.since)}: a signature changes nothing any more.`,
    {
      hint: `See what became of it: bedplate command show ${view.id}`,
      ...(error === undefined ? {} : { cause: error }),
    },
  );
}

/** What is signed, all of it from the bytes, but for the list of those who have. */
export function reviewText(review: CommandReview, view: Pick<CommandView, "signatures">): string {
  const { command, host, plan } = review;
  const signed: Pairs = [
    ["needs", requirementText(plan.plan)],
    [
      "signed by",
      view.signatures.length === 0
        ? "nobody yet"
        : `${view.signatures.map(({ fingerprint }) => fingerprint).join(", ")} (as the controller says)`,
    ],
    ["document", `SHA-256 ${review.digest}`],
  ];
  return changeText(
    [
      [["command", command.id]],
      hostPairs(host, plan),
      [["kind", command.kind]],
      changePairs(plan.plan),
      limitPairs(command),
      signed,
    ],
    plan.plan.findings,
  );
}

function reviewDocument({ command, digest, plan, host }: CommandReview): Record<string, unknown> {
  return { document: command, digest, host, plan: plan.plan, planKey: plan.signedBy };
}

function signedText(view: CommandView, { fingerprint }: VerifiedSignature): string {
  const missing = view.signaturesWanted - view.signatures.length;
  return view.state === "waiting" && missing > 0
    ? `Signed by ${fingerprint}. ${missing} more ${missing === 1 ? "signature is" : "signatures are"} missing: bedplate command sign ${view.id}`
    : `Signed by ${fingerprint}. It goes to its host now: bedplate command show ${view.id} --follow`;
}

async function exportDocument(review: CommandReview, file: string, terminal: Terminal): Promise<void> {
  try {
    await writeFile(file, review.document, { flag: "wx", mode: 0o600 });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new BedplateError("file.unreadable", `${file} cannot be written: ${code ?? String(cause)}.`, {
      ...(code === "EEXIST" ? { hint: "It is there already, and is not written over." } : {}),
      cause,
    });
  }
  terminal.print(`The document is in ${file}. Where your key is, compare and sign:

  sha256sum ${basename(file)}      # ${review.digest}
  ssh-keygen -Y sign -n bedplate-command -f KEY ${basename(file)}

then bring ${basename(file)}.sig back here:

  bedplate command sign ${review.command.id} --signature ${file}.sig`);
}

/** @throws `file.unreadable`, `signature.*` when it does not hold over these bytes */
async function signatureOfFile(
  file: string,
  { document }: CommandReview,
): Promise<{ readonly signature: string; readonly verified: VerifiedSignature }> {
  const signature = await readSignatureFile(file);
  return { signature, verified: await verifyOwn(signature, document) };
}

/** @throws `file.unreadable`, `signature.malformed` */
export async function readSignatureFile(file: string): Promise<string> {
  try {
    if ((await stat(file)).size > signatureBytesMax)
      throw new BedplateError("signature.malformed", `${file} is too large for a signature.`);
    return await readFile(file, "utf8");
  } catch (cause) {
    if (cause instanceof BedplateError) throw cause;
    throw unreadable(file, cause);
  }
}
