// The host's policy: what its administrator allows, which no controller can change. Read anew for each operation.
import { createHash } from "node:crypto";
import type { Disk, OverridableGuard } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { boundedReport } from "../../protocol/schema.ts";
import type { Requirement } from "../../protocol/signer-sets.ts";
import { normalWwn } from "../devices/disk-identity.ts";
import type { FileDisk } from "../devices/disks.ts";
import { errnoOf, type Files, parentOf } from "../host/files.ts";
import { readPolicyText } from "./policy-file.ts";
import { noRules, type PolicyFacts, type PolicyRules } from "./rules.ts";

export interface Policy {
  readonly path: string;
  /** A missing file allows reading, and no disk. */
  readonly state: "present" | "missing";
  /** SHA-256 of the file, lower-case hexadecimal; null without one. */
  readonly digest: string | null;
  readonly fileDisks: readonly FileDisk[];
  /** Guards that a command may override. */
  readonly allowOverrides: readonly OverridableGuard[];
  /** Places that images may come from, besides the controller's own. */
  readonly imageSources: readonly string[];
  /** Whose signatures an image needs before it is deployed; null for nobody's. */
  readonly imageSignatures: Requirement | null;
  readonly rules: PolicyRules;
  allows(disk: Disk): boolean;
  /** Whether no command may change it, whatever allows it. */
  protects(disk: Disk): boolean;
}

const policyBytesMax = 1 << 20;

/**
 * @param owner the effective user: file and directory must be its own, or root's
 * @throws `policy.unsafe`, `config.invalid` (file, line, key), `config.unreadable`
 */
export function loadPolicy(files: Files, path: string, owner: number): Policy {
  try {
    // The directory first: whoever may change it may put another file there.
    requireSafe(files, parentOf(path), "directory", owner);
    requireSafe(files, path, "file", owner);
  } catch (cause) {
    if (cause instanceof BedplateError) throw cause;
    if (errnoOf(cause) === "ENOENT") return missingPolicy(path);
    throw unreadable(path, cause);
  }
  return readPolicyBytes(files, path);
}

/** @throws `config.invalid`, `config.unreadable` */
function readPolicyBytes(files: Files, path: string): Policy {
  let bytes: Uint8Array;
  try {
    bytes = files.readBytes(path, policyBytesMax + 1);
  } catch (cause) {
    throw unreadable(path, cause);
  }
  // Half a policy could lack what protects.
  if (bytes.length > policyBytesMax)
    throw new BedplateError("config.invalid", `${path} is longer than ${policyBytesMax} bytes.`, {
      details: { file: path },
    });
  return { ...parsePolicy(textOfPolicy(bytes, path), path), digest: sha256(bytes) };
}

function unreadable(path: string, cause: unknown): BedplateError {
  return new BedplateError("config.unreadable", `${path} cannot be read: ${errnoOf(cause)}.`, {
    details: { path },
    cause,
  });
}

function textOfPolicy(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new BedplateError("config.invalid", `${path} is not UTF-8 text.`, {
      details: { file: path },
      cause,
    });
  }
}

function sha256(content: Uint8Array | string): string {
  return createHash("sha256").update(content).digest("hex");
}

/** What holds without a policy file. */
export function missingPolicy(path: string): Policy {
  return {
    path,
    state: "missing",
    digest: null,
    fileDisks: [],
    allowOverrides: [],
    imageSources: [],
    imageSignatures: null,
    rules: noRules,
    allows: () => false,
    protects: () => false,
  };
}

/** @throws `config.invalid` with file, line and key */
export function parsePolicy(text: string, path: string): Policy {
  const { allowDisks, protectDisks, fileDisks, ...content } = readPolicyText(text, path);
  const allowed = new Set(allowDisks.map(normalEntry));
  const kept = new Set(protectDisks.map(normalEntry).map(looseEntry));
  const protects = (disk: Disk) => aliasesOf(disk, fileDisks).some((name) => kept.has(looseEntry(name)));
  return {
    path,
    state: "present",
    digest: sha256(text),
    fileDisks,
    ...content,
    allows: (disk) => !protects(disk) && namesOf(disk).some((name) => allowed.has(name)),
    protects,
  };
}

/** How the policy can name a disk. What stands for a disk is named by its file alone. */
function namesOf(disk: Disk): readonly string[] {
  if (disk.type === "file") return [`file:${disk.fileDisk}`];
  if (disk.type === "loop") return [`loop:${disk.backing}`];
  return [
    ...(disk.serial === null ? [] : [`serial:${disk.serial}`]),
    ...(disk.wwn === null ? [] : [`wwn:${disk.wwn}`]),
  ];
}

/** With the names that others who stand for the same file would have: a protection holds whichever way one comes. */
function aliasesOf(disk: Disk, fileDisks: readonly FileDisk[]): readonly string[] {
  if (disk.backing === null) return namesOf(disk);
  const files = fileDisks.filter(({ path }) => path === disk.backing).map(({ name }) => `file:${name}`);
  return [...namesOf(disk), `loop:${disk.backing}`, ...files];
}

function normalEntry(entry: string): string {
  const at = entry.indexOf(":");
  const value = entry.slice(at + 1).trim();
  return `${entry.slice(0, at)}:${entry.startsWith("wwn:") ? (normalWwn(value) ?? value) : value}`;
}

/** Serials in either case: what is meant to be protected is, however it was typed. */
function looseEntry(entry: string): string {
  return entry.startsWith("serial:") ? entry.toLowerCase() : entry;
}

function requireSafe(files: Files, path: string, kind: "directory" | "file", owner: number): void {
  const status = kind === "directory" ? files.status(path) : files.linkStatus(path);
  const problem =
    status.kind !== kind
      ? `is a ${status.kind}, not a ${kind}`
      : status.uid !== owner && status.uid !== 0
        ? `belongs to user ${status.uid}`
        : (status.mode & 0o022) !== 0
          ? `can be written by others (mode ${status.mode.toString(8).padStart(4, "0")})`
          : undefined;
  if (problem === undefined) return;
  throw new BedplateError(
    "policy.unsafe",
    `The policy's ${kind} ${path} ${problem}, so the policy is not trusted.`,
    {
      hint: `It must belong to ${owner === 0 ? "root" : "root or the executor's user"} and be writable by its owner only: chmod go-w ${path}.`,
      details: { path },
    },
  );
}

/**
 * A policy wherever it lies, with what would keep the executor from trusting it there.
 * @throws `config.invalid`, `config.unreadable`
 */
export function readPolicyDraft(
  files: Files,
  path: string,
  owner: number,
): { readonly policy: Policy; readonly distrust: BedplateError | undefined } {
  let distrust: BedplateError | undefined;
  try {
    return { policy: existing(loadPolicy(files, path, owner)), distrust };
  } catch (error) {
    if (!(error instanceof BedplateError) || error.code !== "policy.unsafe") throw error;
    distrust = error;
  }
  return { policy: readPolicyBytes(files, path), distrust };
}

function existing(policy: Policy): Policy {
  if (policy.state === "present") return policy;
  throw new BedplateError("config.unreadable", `There is no ${policy.path}.`, {
    details: { path: policy.path },
  });
}

export interface LoadedPolicy {
  /** What holds: nothing is allowed by a policy that cannot be used. */
  readonly policy: Policy;
  readonly facts: PolicyFacts;
}

/** The policy of this moment, or why there is none that can be used. */
export function loadedPolicy(files: Files, path: string, owner: number): LoadedPolicy {
  try {
    const policy = loadPolicy(files, path, owner);
    return { policy, facts: { state: policy.state, rules: policy.rules } };
  } catch (error) {
    return { policy: missingPolicy(path), facts: { state: "unusable", error: boundedReport(error) } };
  }
}
