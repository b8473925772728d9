// What the policy says to one command, part by part, as an operator asks it beforehand. Changes nothing.
import { type Command, effectOf } from "../../protocol/commands.ts";
import type { GuardFinding } from "../../protocol/disks.ts";
import { type ErrorReport, reportOf } from "../../protocol/errors.ts";
import type { SignatureRequirement } from "../../protocol/plans.ts";
import { countSignatures } from "../../protocol/signer-sets.ts";
import type { DiskListing } from "../devices/disks.ts";
import { nameForPolicy } from "../devices/guards.ts";
import { selectDisk } from "../devices/select.ts";
import { policyFindings } from "./findings.ts";
import type { Policy } from "./policy.ts";
import { deniedFault, described, describedRequirement, type SignatureFacts, signaturesOf } from "./rules.ts";

export interface Explanation {
  readonly kind: string;
  /** Whether it would be let through now, with the signatures given; guards of the disk's state and plans aside. */
  readonly allowed: boolean;
  readonly findings: readonly GuardFinding[];
  /** Null where no signature is needed. */
  readonly requires: SignatureRequirement | null;
  /** Operators whose signatures count. */
  readonly signedBy: readonly string[];
  /** What the policy's `imageSignatures` asks of the image; null where the command brings none, or nothing is asked. */
  readonly image: {
    readonly root: string;
    readonly requires: SignatureRequirement;
    /** Operators whose signatures of the image count; null where the image's are not known. */
    readonly signedBy: readonly string[] | null;
  } | null;
}

export interface ExplainFacts {
  readonly nowMs: number;
  readonly policy: Policy;
  readonly command: Command;
  readonly signatures: SignatureFacts;
  /** Over the manifest of the command's image; null where that is not at hand. */
  readonly imageSignatures: SignatureFacts | null;
  readonly destructiveToday: number;
  /** The host's disks as they are now. */
  readonly disks: DiskListing;
}

export function explainCommand(facts: ExplainFacts): Explanation {
  const { policy, command, nowMs } = facts;
  const { rules } = policy;
  const { kind } = command;
  const denied = deniedFault(rules, kind);
  const findings: GuardFinding[] = [finding("kind", denied, `the policy does not deny ${kind}`)];
  const reads = effectOf(command) === "read";
  const signed = reads ? { signedBy: [] } : signaturesOf(rules, kind, facts.signatures);
  if (reads) {
    findings.push({ guard: "effect", ok: true, finding: "it changes nothing, and needs no signature" });
  } else {
    const missing: ErrorReport | undefined =
      policy.state === "missing"
        ? {
            code: "policy.missing",
            message: `There is no ${policy.path}: nothing of this host may be changed.`,
          }
        : undefined;
    findings.push(
      finding("policy", missing, `${policy.path} holds`),
      ...policyFindings({ nowMs, rules, command, destructiveToday: facts.destructiveToday }).filter(
        ({ guard }) => guard !== "signatures",
      ),
      "fault" in signed
        ? finding("signatures", signed.fault, "")
        : finding("signatures", undefined, saidOf(describedRequirement(rules, kind), signed.signedBy)),
    );
  }
  const image = imageOf(facts);
  if (command.kind === "image.deploy") findings.push(imageFinding(policy.path, image));
  if ("disk" in command.arguments) findings.push(diskFinding(facts, command.arguments.disk));
  return {
    kind,
    allowed: findings.every(({ ok }) => ok),
    findings,
    requires: reads ? null : describedRequirement(rules, kind),
    signedBy: "fault" in signed ? [] : signed.signedBy,
    image,
  };
}

/** As a deploy and its plan ask it of the manifest that they fetch. */
function imageOf({ policy, command, imageSignatures }: ExplainFacts): Explanation["image"] {
  const { imageSignatures: requirement, rules } = policy;
  if (command.kind !== "image.deploy" || requirement === null) return null;
  const counted =
    imageSignatures === null
      ? null
      : countSignatures(imageSignatures.verified, rules.signers, requirement).signedBy;
  return {
    root: command.arguments.image.root,
    requires: described(rules, requirement),
    signedBy: counted,
  };
}

function imageFinding(path: string, image: Explanation["image"]): GuardFinding {
  if (image === null)
    return { guard: "image", ok: true, finding: "the policy asks for no signatures of images" };
  const { root, requires, signedBy } = image;
  const needs = `${requires.k} of ${requires.from.join(" or ")} (${requires.operators.join(", ")})`;
  if (signedBy === null) {
    const finding = `the image ${root} must be signed by ${needs}; its signatures are not known here (--image, --client)`;
    return { guard: "image", ok: true, finding };
  }
  if (signedBy.length >= requires.k)
    return { guard: "image", ok: true, finding: `the image ${root} is signed by ${signedBy.join(", ")}` };
  const has = signedBy.length === 0 ? "nobody has signed it" : `only ${signedBy.join(", ")} signed it`;
  return {
    guard: "image",
    ok: false,
    code: "image.unsigned",
    finding: `imageSignatures of ${path} asks for ${needs} to have signed the image ${root}; of these ${has}.`,
  };
}

function finding(guard: string, fault: ErrorReport | undefined, otherwise: string): GuardFinding {
  if (fault === undefined) return { guard, ok: true, finding: otherwise };
  return { guard, ok: false, code: fault.code, finding: fault.message };
}

function saidOf(requires: SignatureRequirement | null, signedBy: readonly string[]): string {
  return requires === null ? "the policy takes it unsigned" : `signed by ${signedBy.join(", ")}`;
}

function diskFinding(
  { policy, disks }: ExplainFacts,
  selector: Parameters<typeof selectDisk>[1],
): GuardFinding {
  try {
    const { disk } = selectDisk(disks, selector);
    const name = nameForPolicy(disk);
    if (policy.protects(disk)) {
      return {
        guard: "disk",
        ok: false,
        code: "disk.protected",
        finding: `The policy protects ${disk.path} (${name}).`,
      };
    }
    return disk.allowed
      ? { guard: "disk", ok: true, finding: `the policy allows ${disk.path} (${name})` }
      : {
          guard: "disk",
          ok: false,
          code: "disk.not-allowed",
          finding: `The policy does not list ${name} in allowDisks.`,
        };
  } catch (error) {
    return finding("disk", reportOf(error), "");
  }
}
