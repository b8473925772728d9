// What an administrator asks of this host itself, without agent or controller: its policy, its fence, its audit.
import { AuditHead, type AuditLine } from "../protocol/audit.ts";
import { decodeCommand } from "../protocol/commands.ts";
import { BedplateError, type ErrorReport, reportOf } from "../protocol/errors.ts";
import { checker } from "../protocol/schema.ts";
import type { Requirement } from "../protocol/signer-sets.ts";
import { listDisks } from "./devices/disks.ts";
import { createFacts } from "./devices/facts.ts";
import { type ExecutorPaths, identityPath, rootPaths } from "./door/contract.ts";
import { destructiveToday } from "./executor/admission.ts";
import { attestationKeyLine } from "./executor/attestation.ts";
import { type AuditCheck, checkAudit, type KeptHead } from "./executor/audit-check.ts";
import { requirePrivateDirectory } from "./executor/directories.ts";
import type { Fence } from "./executor/fence.ts";
import { openJournal, readJournal } from "./executor/journal.ts";
import { systemClock } from "./host/clock.ts";
import { errnoOf, systemFiles } from "./host/files.ts";
import { type Explanation, explainCommand } from "./policy/explain.ts";
import { loadPolicy, type Policy, readPolicyDraft } from "./policy/policy.ts";
import { requirementOf } from "./policy/rules.ts";
import { checkSignatures } from "./policy/signatures.ts";

export type { ExecutorPaths } from "./door/contract.ts";
export type { AuditCheck, CheckFault, KeptHead } from "./executor/audit-check.ts";
export type { Fence } from "./executor/fence.ts";
export type { Explanation } from "./policy/explain.ts";

/** The executor's paths: fixed for root, whatever is given; for others what is given, the policy's default being root's. */
export function hostPaths(given: Partial<ExecutorPaths> = {}): ExecutorPaths {
  if (user() === 0) return rootPaths;
  if (given.stateDirectory === undefined)
    throw new BedplateError("usage", "Not being root, name the executor's state directory.", {
      hint: "It is `executor.stateDirectory` of the agent's configuration.",
    });
  return { ...rootPaths, ...given };
}

export interface PolicyCheck {
  readonly path: string;
  readonly digest: string;
  /** Why the executor would not trust the file where it is; null when it would. */
  readonly distrust: ErrorReport | null;
  readonly kinds: readonly { readonly kind: string; readonly needs: string }[];
  readonly signers: readonly { readonly set: string; readonly operators: readonly string[] }[];
  readonly fileDisks: number;
  /** What an image needs before it is deployed, as a sentence says it; null for nothing. */
  readonly imageSignatures: string | null;
}

/**
 * Reads a policy file as the executor does, the one in force or a draft.
 * @throws `config.invalid` with file, line and key; `config.unreadable`
 */
export function checkPolicyFile(path: string = rootPaths.policy): PolicyCheck {
  const { policy, distrust } = readPolicyDraft(systemFiles, path, user());
  const { rules } = policy;
  const named = new Set([...rules.denyKinds, ...rules.unsigned, ...Object.keys(rules.kinds)]);
  return {
    path,
    digest: policy.digest ?? "",
    distrust: distrust === undefined ? null : reportOf(distrust),
    kinds: [...named].sort().map((kind) => ({ kind, needs: needsOf(policy, kind) })),
    signers: rules.signers.map(({ name, signers }) => ({
      set: name,
      operators: [...new Set(signers.map(({ operator }) => operator))],
    })),
    fileDisks: policy.fileDisks.length,
    imageSignatures: policy.imageSignatures === null ? null : countText(policy.imageSignatures),
  };
}

function countText({ k, from }: Requirement): string {
  return `${k} of ${from.join(" or ")}`;
}

function needsOf({ rules }: Policy, kind: string): string {
  if (rules.denyKinds.includes(kind)) return "denied";
  const requirement = requirementOf(rules, kind);
  const window = rules.kinds[kind]?.window ?? null;
  const signed =
    requirement === "unsigned"
      ? "unsigned"
      : requirement === "unstated"
        ? "refused: neither signatures nor unsigned"
        : countText(requirement);
  return window === null ? signed : `${signed}, in the window ${window.name}`;
}

/**
 * What this host's policy says to a command now. For facts of disks and of today's commands it needs the executor's rights.
 * @param document the command document's very bytes
 * @param image of the command: its manifest's very bytes, which the caller has held against the root, and who signed them
 * @throws what `loadPolicy` and `decodeCommand` throw
 */
export async function explainPolicy(
  paths: ExecutorPaths,
  document: Uint8Array,
  signatures: readonly string[] = [],
  image?: { readonly manifest: Uint8Array; readonly signatures: readonly string[] },
): Promise<Explanation> {
  const policy = loadPolicy(systemFiles, paths.policy, user());
  const command = decodeCommand(document);
  const nowMs = systemClock.now();
  return explainCommand({
    nowMs,
    policy,
    command,
    signatures: await checkSignatures(signatures, document, policy.rules),
    imageSignatures:
      image === undefined
        ? null
        : await checkSignatures(image.signatures, image.manifest, policy.rules, "bedplate-image"),
    destructiveToday: acceptedToday(paths, nowMs),
    disks: listDisks({
      facts: createFacts(systemFiles),
      files: systemFiles,
      fileDisks: policy.fileDisks,
      allows: (disk) => policy.allows(disk),
      protectedPaths: ["/", paths.stateDirectory],
    }),
  });
}

/** None where the executor has not run yet. @throws `executor.failed` */
function acceptedToday({ stateDirectory }: ExecutorPaths, nowMs: number): number {
  if (!exists(`${stateDirectory}/journal.db`)) return 0;
  using journal = readJournal(stateDirectory);
  return destructiveToday(journal, nowMs);
}

/** Whether an executor has ever run with this state directory; also true where that may not be looked at. */
export function hasJournal({ stateDirectory }: ExecutorPaths): boolean {
  try {
    systemFiles.status(`${stateDirectory}/journal.db`);
    return true;
  } catch (error) {
    return errnoOf(error) !== "ENOENT";
  }
}

/** @throws `executor.failed` */
export function showFence({ stateDirectory }: ExecutorPaths): Fence | undefined {
  using journal = readJournal(stateDirectory);
  return journal.fence();
}

/**
 * Takes the fence away: the next command that changes the host sets it anew, whatever its epoch and generation.
 * The audit tells of it. @returns what it was
 * @throws `state.unsafe`, `executor.failed`
 */
export function resetFence({ stateDirectory }: ExecutorPaths): Fence | undefined {
  if (!exists(stateDirectory))
    throw new BedplateError("executor.failed", `There is no journal in ${stateDirectory}.`);
  requirePrivateDirectory(systemFiles, stateDirectory, user());
  using journal = openJournal(stateDirectory);
  return journal.atomically(() => {
    const before = journal.fence();
    journal.setFence(null);
    journal.appendAudit({
      at: systemClock.now(),
      event: "fence-reset",
      command: null,
      kind: null,
      detail: { before: before ?? null, user: user() },
    });
    return before;
  });
}

/** The newest entries, oldest first: each the very text that was hashed, with its hash. @throws `executor.failed` */
export function showAudit({ stateDirectory }: ExecutorPaths, count: number): readonly AuditLine[] {
  using journal = readJournal(stateDirectory);
  return journal.audit(count).lines;
}

export interface AuditVerification {
  /** Absent: from what the executor has published. */
  readonly host?: string;
  /** Files of heads, one JSON document `{seq, hash, signature}` a line: those that the agent keeps, or exported ones. */
  readonly headFiles: readonly string[];
  /** Public keys beside the host's own attestation key: the controller's audit key. */
  readonly keys: readonly string[];
}

const headFileBytesMax = 16 << 20;
/** Of the journal's own events. */
const ownHeadsMax = 1000;
const checkHead = checker(AuditHead, "message.invalid", "audit head");

/**
 * Goes through this host's whole audit and holds it against every head: those in the journal's events, and those given.
 * @throws `usage` when the host's id is not known; `executor.failed`, also where there is no journal; `file.unreadable`,
 * `message.invalid`
 */
export async function verifyAudit(
  paths: ExecutorPaths,
  { host, headFiles, keys }: AuditVerification,
): Promise<AuditCheck> {
  if (!hasJournal(paths))
    throw new BedplateError(
      "executor.failed",
      `There is no journal in ${paths.stateDirectory}, so there is no audit to verify.`,
      { hint: "No executor has run here yet; or it is another directory; or somebody has removed it." },
    );
  const of = host ?? publishedHost(paths);
  const own = attestationKeyLine(systemFiles, paths.stateDirectory, user());
  const given = headFiles.flatMap(readHeads);
  using journal = readJournal(paths.stateDirectory);
  const heads = journal.signedHeads(ownHeadsMax).map((head) => ({ ...head, from: "the journal's events" }));
  return await checkAudit(
    of,
    journal.audit(),
    [...heads, ...given],
    [...(own === undefined ? [] : [own]), ...keys],
  );
}

function publishedHost({ runDirectory }: ExecutorPaths): string {
  try {
    const text = Buffer.from(systemFiles.readBytes(identityPath(runDirectory), 1 << 16)).toString("utf8");
    return String((JSON.parse(text) as { host?: unknown }).host);
  } catch (cause) {
    throw new BedplateError("usage", `The host's id is not known: ${errnoOf(cause)}.`, {
      hint: "Give it: `bedplate host show` on an operator's machine prints it.",
      cause,
    });
  }
}

/** @throws `file.unreadable`, `message.invalid` naming file and line */
function readHeads(path: string): KeptHead[] {
  let text: string;
  try {
    text = Buffer.from(systemFiles.readBytes(path, headFileBytesMax)).toString("utf8");
  } catch (cause) {
    throw new BedplateError("file.unreadable", `${path} cannot be read: ${errnoOf(cause)}.`, { cause });
  }
  // What has no end of line was being written when the power went.
  const lines = text.split("\n").slice(0, -1);
  return lines.map((line, index) => {
    const from = `${path}:${index + 1}`;
    try {
      const { seq, hash, signature } = checkHead(JSON.parse(line));
      return { seq, hash, signature, from };
    } catch (cause) {
      throw new BedplateError("message.invalid", `${from} is no audit head.`, { cause });
    }
  });
}

function exists(path: string): boolean {
  try {
    systemFiles.status(path);
    return true;
  } catch {
    return false;
  }
}

function user(): number {
  return process.geteuid!();
}
