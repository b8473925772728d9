// What the policy says about a command that is planned, as findings beside those of its guards. Pure.
import type { GuardFinding } from "../../protocol/disks.ts";
import type { ErrorReport } from "../../protocol/errors.ts";
import {
  type AskedCommand,
  type PolicyRules,
  programFault,
  quotaFault,
  requirementOf,
  windowFault,
} from "./rules.ts";

export interface FindingFacts {
  readonly nowMs: number;
  readonly rules: PolicyRules;
  readonly command: AskedCommand;
  readonly destructiveToday: number;
}

/** Signatures are told, and found missing only where none would ever do. */
export function policyFindings({ nowMs, rules, command, destructiveToday }: FindingFacts): GuardFinding[] {
  const { kind } = command;
  const found = (guard: string, fault: ErrorReport | undefined, otherwise: string): GuardFinding =>
    fault === undefined
      ? { guard, ok: true, finding: otherwise }
      : { guard, ok: false, code: fault.code, finding: fault.message };
  const requirement = requirementOf(rules, kind);
  const findings: GuardFinding[] = [
    requirement === "unstated"
      ? {
          guard: "signatures",
          ok: false,
          code: "policy.signature-required",
          finding: `The policy says neither whose signatures ${kind} needs, nor that it needs none.`,
        }
      : {
          guard: "signatures",
          ok: true,
          finding:
            requirement === "unsigned"
              ? `the policy takes ${kind} unsigned`
              : `the policy wants ${requirement.k} of ${requirement.from.join(" or ")}`,
        },
  ];
  const window = rules.kinds[kind]?.window ?? null;
  if (window !== null)
    findings.push(found("window", windowFault(rules, kind, nowMs), `the window "${window.name}" is open`));
  if (rules.destructivePerDay !== null)
    findings.push(
      found(
        "destructive-per-day",
        quotaFault(rules, command, destructiveToday),
        `${destructiveToday} of ${rules.destructivePerDay} disks in the last 24 hours`,
      ),
    );
  if (kind === "host.exec")
    findings.push(found("program", programFault(rules, command), "the policy lists the program"));
  return findings;
}
