// Whether the plan that a command quotes is one that this host issued for it, and may be used now. Pure.
import type { ErrorReport } from "../../protocol/errors.ts";
import type { PlanQuote } from "../../protocol/plans.ts";

/** A plan as the journal keeps it. */
export interface IssuedPlan {
  readonly id: string;
  readonly kind: string;
  /** SHA-256 of its text's bytes, lower-case hexadecimal. */
  readonly digest: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  /** By this host's clock. */
  readonly expiresAt: number;
  /** The command that was accepted with it. */
  readonly usedBy: string | null;
}

export interface PlanFacts {
  readonly nowMs: number;
  /** This machine's own. */
  readonly hostname: string;
  readonly chassisSerial: string | null;
  readonly kind: string;
  readonly arguments: object;
  readonly quote: PlanQuote | undefined;
  /** What the journal has under the quoted id. */
  readonly issued: IssuedPlan | undefined;
  /** Whether a command of this kind needs a plan: where operators sign. */
  readonly required: boolean;
}

const again = "Make a new plan, look at it, and apply that one.";

export function planFault(facts: PlanFacts): ErrorReport | undefined {
  const { quote, issued, kind, nowMs } = facts;
  if (quote === undefined) {
    if (!facts.required) return undefined;
    return {
      code: "plan.required",
      message: `${kind} is signed on this host, and what is signed must quote a plan that the host has made.`,
      hint: 'Send it with "mode": "plan" first.',
      details: { kind },
    };
  }
  const wrongHost = bindingFault(quote, facts);
  if (wrongHost !== undefined) return wrongHost;
  const details = { plan: quote.id };
  if (issued === undefined) {
    return {
      code: "plan.unknown",
      message: `This host did not issue the plan ${quote.id}, or has forgotten it.`,
      hint: again,
      details,
    };
  }
  if (issued.usedBy !== null) {
    return {
      code: "plan.used",
      message: `The plan ${quote.id} was applied already, by command ${issued.usedBy}.`,
      hint: again,
      details: { ...details, usedBy: issued.usedBy },
    };
  }
  const changed = changesOf(quote, issued, facts);
  if (changed !== undefined) return { code: "plan.changed", message: changed, hint: again, details };
  if (nowMs <= issued.expiresAt) return undefined;
  return {
    code: "plan.expired",
    message: `The plan ${quote.id} was good until ${new Date(issued.expiresAt).toISOString()}; by this host's clock it is ${new Date(nowMs).toISOString()}.`,
    hint: again,
    details,
  };
}

/** The names that people know a machine by: a command signed for one is not run on another, whatever carried it there. */
function bindingFault(quote: PlanQuote, { hostname, chassisSerial }: PlanFacts): ErrorReport | undefined {
  const wrong =
    quote.hostname !== hostname
      ? { what: "host name", named: quote.hostname, found: hostname }
      : quote.chassisSerial !== chassisSerial
        ? { what: "chassis serial number", named: quote.chassisSerial, found: chassisSerial }
        : undefined;
  if (wrong === undefined) return undefined;
  return {
    code: "command.wrong-host",
    message: `The command is for the machine with the ${wrong.what} ${wrong.named ?? "none"}; this one has ${wrong.found ?? "none"}.`,
    details: wrong,
  };
}

function changesOf(
  quote: PlanQuote,
  issued: IssuedPlan,
  { kind, arguments: given }: PlanFacts,
): string | undefined {
  if (quote.digest !== issued.digest)
    return `The command quotes other bytes than those of the plan ${quote.id}.`;
  if (kind !== issued.kind) return `The plan ${quote.id} is for ${issued.kind}, not for ${kind}.`;
  const names = new Set([...Object.keys(issued.arguments), ...Object.keys(given)]);
  const differing = [...names].filter(
    (name) => !sameValue(issued.arguments[name], (given as Record<string, unknown>)[name]),
  );
  if (differing.length === 0) return undefined;
  return `The command's arguments are not those of the plan ${quote.id}: ${differing.slice(0, 8).join(", ")} differ.`;
}

/** Equality of JSON values, whatever the order of members. */
export function sameValue(a: unknown, b: unknown): boolean {
  if (typeof a !== "object" || a === null || typeof b !== "object" || b === null) return Object.is(a, b);
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const [left, right] = [a as Record<string, unknown>, b as Record<string, unknown>];
  const keys = Object.keys(left);
  return (
    keys.length === Object.keys(right).length &&
    keys.every((key) => Object.hasOwn(right, key) && sameValue(left[key], right[key]))
  );
}
