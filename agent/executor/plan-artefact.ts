// Issuing a plan: its document with a fresh nonce, kept until it is used, and signed by the host's attestation key.
import type { Command } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { encodePlan, type Plan, type PlanArtefact, planLimits } from "../../protocol/plans.ts";
import type { CommandEnd } from "../commands/command.ts";
import type { MachineNames } from "../devices/machine-names.ts";
import type { Random } from "../host/random.ts";
import { policyFindings } from "../policy/findings.ts";
import { describedRequirement, type PolicyRules } from "../policy/rules.ts";
import type { AttestationKey } from "./attestation.ts";
import { sha256Hex } from "./journal.ts";
import type { NewPlan } from "./trust-tables.ts";

export interface PlanIssue {
  readonly command: Command;
  readonly end: CommandEnd;
  readonly nowMs: number;
  readonly random: Random;
  readonly names: MachineNames;
  readonly key: AttestationKey;
  readonly policyDigest: string | null;
  readonly rules: PolicyRules;
  readonly destructiveToday: number;
}

const textCharactersMax = 256 * 1024;

/**
 * The artefact, and what the journal keeps of it.
 * @throws `plan.invalid` when it would be larger than plans may be
 */
export function issuePlan(issue: PlanIssue): {
  readonly artefact: PlanArtefact;
  readonly kept: NewPlan;
  readonly allowed: boolean;
} {
  const { command, end, nowMs, names, key, rules } = issue;
  const given = end.plan ?? { arguments: command.arguments, facts: factsOf(end.output), findings: [] };
  const findings = [
    ...given.findings,
    ...policyFindings({
      nowMs,
      rules,
      command: { kind: command.kind, arguments: given.arguments },
      destructiveToday: issue.destructiveToday,
    }),
  ];
  const plan: Plan = {
    bedplate: "plan/1",
    id: command.id,
    nonce: Buffer.from(issue.random.bytes(32)).toString("base64url"),
    host: command.host,
    hostname: names.hostname,
    chassisSerial: names.chassisSerial,
    kind: command.kind,
    arguments: { ...given.arguments },
    facts: { ...given.facts },
    issuedAt: nowMs,
    expiresAt: nowMs + planLimits.validMs,
    policy: issue.policyDigest,
    requires: describedRequirement(rules, command.kind),
    findings,
    allowed: findings.every(({ ok }) => ok),
  };
  const bytes = encodePlan(plan);
  const text = Buffer.from(bytes).toString("utf8");
  if (text.length > textCharactersMax)
    throw new BedplateError("plan.invalid", `The plan would have ${text.length} characters.`, {
      hint: `At most ${textCharactersMax} are taken: give the command smaller arguments.`,
    });
  return {
    allowed: plan.allowed,
    artefact: { text, signature: key.sign("bedplate-plan", bytes) },
    kept: {
      id: plan.id,
      kind: plan.kind,
      digest: sha256Hex(bytes),
      // As they will be read back: what JSON does not carry is not planned.
      arguments: (JSON.parse(text) as Plan).arguments,
      text,
      issuedAt: plan.issuedAt,
      expiresAt: plan.expiresAt,
    },
  };
}

function factsOf(output: unknown): Readonly<Record<string, unknown>> {
  return typeof output === "object" && output !== null && !Array.isArray(output)
    ? (output as Record<string, unknown>)
    : {};
}
