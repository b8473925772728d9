// What the policy demands of a command that changes the host, and whether this one has it: all pure, facts in, fault out.
import { type CommandKind, disksOf } from "../../protocol/commands.ts";
import { assert, type ErrorReport } from "../../protocol/errors.ts";
import type { SignatureRequirement } from "../../protocol/plans.ts";
import { countSignatures, type Requirement, type SignerSet } from "../../protocol/signer-sets.ts";
import type { VerifiedSignature } from "../../protocol/sshsig.ts";
import { type ExecRules, execFault } from "./exec-rules.ts";
import { type Window, windowAt } from "./windows.ts";

/** The policy without its disks: plain data. */
export interface PolicyRules {
  readonly denyKinds: readonly string[];
  /** Kinds that are taken without an operator's signature. */
  readonly unsigned: readonly string[];
  /** Disks that commands may overwrite, in 24 hours; null: no limit. */
  readonly destructivePerDay: number | null;
  readonly signers: readonly SignerSet[];
  readonly kinds: { readonly [kind: string]: KindRules | undefined };
}

export interface KindRules {
  readonly signatures: Requirement | null;
  readonly window: Window | null;
  /** Of host.exec alone. */
  readonly exec: ExecRules | null;
}

/** The policy as a decision meets it. */
export type PolicyFacts =
  | { readonly state: "present" | "missing"; readonly rules: PolicyRules }
  | { readonly state: "unusable"; readonly error: ErrorReport };

/** Without a policy nothing is denied, and nothing that changes the host is allowed either. */
export const noRules: PolicyRules = {
  denyKinds: [],
  unsigned: [],
  destructivePerDay: null,
  signers: [],
  kinds: {},
};

/** Kinds that overwrite disks, and so count for `destructivePerDay`. */
export const destructiveKinds: readonly CommandKind[] = ["image.deploy"];

/** What became of the signatures of an offer: verified against every key of the policy, before any decision. */
export interface SignatureFacts {
  readonly verified: readonly Pick<VerifiedSignature, "key" | "fingerprint">[];
  readonly refused: readonly ErrorReport[];
}

/** What the rules look at of a command. */
export interface AskedCommand {
  readonly kind: string;
  readonly arguments: object;
}

export function deniedFault({ denyKinds }: PolicyRules, kind: string): ErrorReport | undefined {
  if (!denyKinds.includes(kind)) return undefined;
  return { code: "policy.denied", message: `This host's policy denies ${kind}.`, details: { kind } };
}

/** The signatures that a kind needs; `unsigned` where it is taken without; `unstated` where the policy says neither. */
export function requirementOf(rules: PolicyRules, kind: string): Requirement | "unsigned" | "unstated" {
  return rules.kinds[kind]?.signatures ?? (rules.unsigned.includes(kind) ? "unsigned" : "unstated");
}

/** A requirement as plans tell it. */
export function describedRequirement(rules: PolicyRules, kind: string): SignatureRequirement | null {
  const requirement = requirementOf(rules, kind);
  return typeof requirement === "string" ? null : described(rules, requirement);
}

/** With the names of those who may sign. */
export function described({ signers }: PolicyRules, { k, from }: Requirement): SignatureRequirement {
  const operators = signers
    .filter(({ name }) => from.includes(name))
    .flatMap((set) => set.signers.map(({ operator }) => operator));
  return { k, from: [...from], operators: [...new Set(operators)].slice(0, 256) };
}

/** Whose signatures counted, or why they are not enough. */
export function signaturesOf(
  rules: PolicyRules,
  kind: string,
  signatures: SignatureFacts,
): { readonly signedBy: readonly string[] } | { readonly fault: ErrorReport } {
  const requirement = requirementOf(rules, kind);
  if (requirement === "unsigned") return { signedBy: [] };
  if (requirement === "unstated") {
    return {
      fault: {
        code: "policy.signature-required",
        message: `This host's policy says neither whose signatures ${kind} needs, nor that it needs none.`,
        hint: `The host's administrator writes signatures into [kinds."${kind}"] of the policy file; a lab's lists the kind in unsigned.`,
        details: { kind },
      },
    };
  }
  const count = countSignatures(signatures.verified, rules.signers, requirement);
  if (count.satisfied) return { signedBy: count.signedBy };
  // A signature that does not hold is told before one that is not there.
  const [bad] = signatures.refused;
  const details = {
    kind,
    needed: requirement.k,
    from: requirement.from,
    signedBy: count.signedBy,
    couldSign: count.couldSign,
    uncounted: count.uncounted,
    refused: signatures.refused.map(({ code, message }) => ({ code, message })),
  };
  if (bad !== undefined) {
    return {
      fault: {
        ...bad,
        message: `${bad.message} The command ${count.summary}.`,
        details: { ...bad.details, ...details },
      },
    };
  }
  return {
    fault: {
      code: "policy.signature-required",
      message: `The command ${count.summary}.`,
      hint: `${count.couldSign.slice(0, 8).join(", ")} may sign: bedplate command sign ID.`,
      details,
    },
  };
}

export function windowFault(rules: PolicyRules, kind: string, nowMs: number): ErrorReport | undefined {
  const window = rules.kinds[kind]?.window ?? null;
  if (window === null) return undefined;
  const now = windowAt(window, nowMs);
  if (now.open) return undefined;
  const opens = new Date(now.opensAt).toISOString();
  return {
    code: "policy.outside-window",
    message: `${kind} is allowed in the window "${window.name}" only, which opens next at ${opens}.`,
    hint: "Send it then, under a new id.",
    details: { kind, window: window.name, opensAt: opens },
  };
}

/** Each disk counts, however many one command names. */
export function quotaFault(
  rules: PolicyRules,
  { kind, arguments: given }: AskedCommand,
  destructiveToday: number,
): ErrorReport | undefined {
  const { destructivePerDay } = rules;
  if (destructivePerDay === null || !(destructiveKinds as readonly string[]).includes(kind)) return undefined;
  const disks = disksOf(given).length;
  if (destructiveToday + disks <= destructivePerDay) return undefined;
  return {
    code: "policy.too-many",
    message: `The command overwrites ${disks === 1 ? "a disk" : `${disks} disks`}, and commands for ${destructiveToday} were accepted in the last 24 hours; this host's policy allows ${destructivePerDay}.`,
    hint: "Wait, or have the host's administrator raise destructivePerDay.",
    details: { kind, disks, accepted: destructiveToday, destructivePerDay },
  };
}

/** host.exec is off unless the policy lists what it may run. */
export function programFault(
  rules: PolicyRules,
  { kind, arguments: given }: AskedCommand,
): ErrorReport | undefined {
  if (kind !== "host.exec") return undefined;
  assert(
    "argv" in given && Array.isArray(given.argv),
    "the arguments of host.exec were checked by its schema",
  );
  const environment = "environment" in given ? Object.keys(given.environment as object) : [];
  const directory = "directory" in given ? (given.directory as string) : "/";
  const argv = given.argv as readonly string[];
  return execFault(rules.kinds[kind]?.exec ?? null, { argv, directory, environment });
}
