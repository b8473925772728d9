// Whether a plan is the known host's own, and the one that was asked for or is quoted. Pure.
import { hex, utf8 } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import {
  decodePlan,
  type Plan,
  type PlanArtefact,
  type PlanQuote,
  verifyPlan,
} from "../../protocol/plans.ts";
import { decodePublicKey } from "../../protocol/ssh-keys.ts";
import { parseSignature } from "../../protocol/sshsig-format.ts";
import { type KnownHost, keyChanged } from "./known-hosts.ts";

/** A plan with what is proved of it. */
export interface HostPlan {
  readonly plan: Plan;
  /** SHA-256 of its very bytes. */
  readonly digest: string;
  /** The known key that signed it, `SHA256:…`; null where the host is not known, and the plan is the controller's word. */
  readonly signedBy: string | null;
}

/**
 * @throws `host.key-changed` when another key than the known one signed it; `signature.*` when the signature does not
 * hold; `plan.invalid`
 */
export async function readPlan(
  artefact: PlanArtefact,
  known: KnownHost | undefined,
  knownHostsPath: string,
): Promise<HostPlan> {
  const bytes = utf8(artefact.text);
  const digest = hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
  if (known === undefined) return { plan: decodePlan(bytes), digest, signedBy: null };
  try {
    const { plan, signed } = await verifyPlan(artefact, known.attestationKey);
    return { plan, digest, signedBy: signed.fingerprint };
  } catch (error) {
    if (!(error instanceof BedplateError) || error.code !== "signature.unknown-key") throw error;
    const { type, encoded } = decodePublicKey(parseSignature(artefact.signature).publicKey);
    throw await keyChanged(known, `${type} ${encoded}`, knownHostsPath);
  }
}

export interface PlanWanted {
  readonly id: string;
  readonly host: string;
  readonly kind: string;
  /** Each must be in the plan as it is here. */
  readonly arguments: Readonly<Record<string, unknown>>;
  /** What the plan may say beyond these, and beyond what they say of each of several things. */
  readonly added: readonly string[];
}

/** @throws `plan.changed` when the plan answers another question than the one that was asked */
export function requirePlanFor({ plan }: HostPlan, wanted: PlanWanted): void {
  requireSame("the command that asked for it", plan.id, wanted.id);
  requireSame("the host", plan.host, wanted.host);
  requireSame("the kind of command", plan.kind, wanted.kind);
  const names = new Set([...Object.keys(plan.arguments), ...Object.keys(wanted.arguments)]);
  for (const name of names) {
    if (wanted.added.includes(name)) continue;
    requireSame(`"${name}"`, without(plan.arguments[name], wanted.added), wanted.arguments[name]);
  }
}

/** A list's members without what the plan adds to each. */
function without(value: unknown, added: readonly string[]): unknown {
  if (!Array.isArray(value)) return value;
  return value.map((each: unknown) =>
    each === null || typeof each !== "object" || Array.isArray(each)
      ? each
      : Object.fromEntries(Object.entries(each).filter(([name]) => !added.includes(name))),
  );
}

/** What an apply of this plan quotes. */
export function quoteOf({ plan, digest }: HostPlan): PlanQuote {
  const { id, hostname, chassisSerial } = plan;
  return { id, digest, hostname, chassisSerial };
}

/**
 * Whether a command quotes this very plan and asks for nothing else.
 * @throws `plan.changed`, `command.wrong-host`
 */
export function requireQuoted(
  { plan, digest }: HostPlan,
  command: {
    readonly host: string;
    readonly kind: string;
    readonly arguments: Readonly<Record<string, unknown>>;
    readonly plan: PlanQuote;
  },
): void {
  const { plan: quote } = command;
  requireSame("the plan's digest", digest, quote.digest);
  requireSame("the plan's id", plan.id, quote.id);
  requireSame("the kind of command", plan.kind, command.kind);
  if (
    plan.host !== command.host ||
    plan.hostname !== quote.hostname ||
    plan.chassisSerial !== quote.chassisSerial
  ) {
    throw new BedplateError(
      "command.wrong-host",
      `The command is for ${named(command.host, quote)}; its plan is of ${named(plan.host, plan)}.`,
      { hint: "Do not sign it: something on the way has changed it." },
    );
  }
  const names = new Set([...Object.keys(plan.arguments), ...Object.keys(command.arguments)]);
  for (const name of names) requireSame(`"${name}"`, plan.arguments[name], command.arguments[name]);
}

/** @throws `plan.expired`; by this machine's clock, the host will look at its own */
export function requireFresh({ plan }: HostPlan, nowMs: number): void {
  if (nowMs <= plan.expiresAt) return;
  throw new BedplateError(
    "plan.expired",
    `The plan was valid until ${new Date(plan.expiresAt).toISOString()}; it is ${new Date(nowMs).toISOString()}.`,
    { hint: "Ask for it again: a new plan, a new command." },
  );
}

function named(
  id: string,
  { hostname, chassisSerial }: Pick<PlanQuote, "hostname" | "chassisSerial">,
): string {
  return `${hostname} (${id.slice(0, 16)}…, chassis ${chassisSerial ?? "without a serial number"})`;
}

function requireSame(what: string, planned: unknown, asked: unknown): void {
  if (canonical(planned) === canonical(asked)) return;
  throw new BedplateError(
    "plan.changed",
    `The plan and the command differ in ${what}: ${shown(planned)} is planned, ${shown(asked)} is asked for.`,
    { hint: "Do not sign it: something on the way has changed it, or it is not the plan of this command." },
  );
}

/** JSON with its members in one order: two values are the same exactly when these texts are. */
function canonical(value: unknown): string {
  return (
    JSON.stringify(value, (_, member: unknown) =>
      member !== null && typeof member === "object" && !Array.isArray(member)
        ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
        : member,
    ) ?? "nothing"
  );
}

function shown(value: unknown): string {
  const text = canonical(value);
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
