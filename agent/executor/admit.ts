// Whether an operation starts, goes on, is replayed or is refused: decided from facts alone, so that a simulator can ask.
import { type Command, type Effect, isTerminal, type OperationState } from "../../protocol/commands.ts";
import type { ErrorReport } from "../../protocol/errors.ts";
import {
  type AskedCommand,
  deniedFault,
  type PolicyFacts,
  type PolicyRules,
  programFault,
  quotaFault,
  requirementOf,
  type SignatureFacts,
  signaturesOf,
  windowFault,
} from "../policy/rules.ts";
import { type Fence, fenceFault } from "./fence.ts";
import { type IssuedPlan, planFault } from "./plans.ts";

export interface AdmissionFacts {
  readonly nowMs: number;
  /** The agent only asks whether it is known: what is not must not begin. */
  readonly onlyKnown?: boolean;
  /** This host's id, and the names that people know the machine by. */
  readonly host: string;
  readonly hostname: string;
  readonly chassisSerial: string | null;
  /** What the offer says beside the document. */
  readonly epoch: number;
  readonly generation: number;
  readonly fence: Fence | undefined;
  /** SHA-256 of the document's bytes, lower-case hexadecimal. */
  readonly digest: string;
  /** The document read, or why it cannot be. */
  readonly command: { readonly decoded: Command; readonly effect: Effect } | { readonly error: ErrorReport };
  /** What the journal knows of its id; `sameDocument` compares the very bytes. */
  readonly known:
    | {
        readonly sameDocument: boolean;
        readonly state: OperationState;
        readonly effect: Effect;
        readonly runs: number;
      }
    | undefined;
  readonly policy: PolicyFacts;
  /** The offer's signatures, verified over the document's very bytes. */
  readonly signatures: SignatureFacts;
  /** What the journal has under the id of the plan that the command quotes. */
  readonly plan: IssuedPlan | undefined;
  /** Commands that overwrite disks and were accepted in the last 24 hours. */
  readonly destructiveToday: number;
  /** The lane for what changes state; an operation that only reads needs none. */
  readonly lane: "taken" | "not-needed" | LaneBusy;
}

export interface LaneBusy {
  readonly busyWith: string | undefined;
  /** Operations that are accepted and wait for it. */
  readonly waiting: number;
}

export type Admission =
  /** Serve what the journal has: the operation is over. */
  | { readonly do: "replay" }
  /** Nobody asked for it to begin: nothing is kept of it. */
  | { readonly do: "not-known"; readonly error: ErrorReport }
  /** Another command of the same id is known; its record stays as it is. */
  | { readonly do: "conflict"; readonly error: ErrorReport }
  /** Record and serve a refusal. */
  | { readonly do: "refuse"; readonly error: ErrorReport }
  /** Record in one transaction that it is accepted, that its plan is used and where the fence stands; then start it. */
  | {
      readonly do: "start";
      readonly lane: "ready" | "wait";
      readonly fence: Fence | null;
      readonly usesPlan: string | null;
      /** The operators whose signatures counted. */
      readonly signedBy: readonly string[];
    }
  /** Start it again. With "wait" another operation has the lane now: when it ends. */
  | { readonly do: "resume"; readonly lane: "ready" | "wait" }
  /** It must not be started again: record how it ends. */
  | { readonly do: "conclude"; readonly outcome: "indeterminate" | "failed"; readonly error: ErrorReport };

/** Runs of an operation that reads, or that may be repeated, until it is given up. */
export const repeatsMax = 3;
/** Runs of one that continues where it was: each gets somewhere, or something is broken. */
export const resumesMax = 100;
/** Operations that wait for the lane, each in a process of its own. */
export const waitingMax = 8;

export function admit(facts: AdmissionFacts): Admission {
  const { known } = facts;
  if (known === undefined && facts.onlyKnown) {
    return {
      do: "not-known",
      error: { code: "command.not-known", message: "This host's journal does not know the command." },
    };
  }
  if (known === undefined) return admitNew(facts);
  if (!known.sameDocument) {
    return {
      do: "conflict",
      error: {
        code: "command.id-conflict",
        message: "Another command with this id is known here.",
        hint: "Mint a new id for a new command.",
      },
    };
  }
  return isTerminal(known.state) ? { do: "replay" } : admitAgain(facts, known);
}

function admitNew(facts: AdmissionFacts): Admission {
  const { command, policy, lane } = facts;
  if ("error" in command) return { do: "refuse", error: command.error };
  const { decoded, effect } = command;
  const bound = hostFault(decoded, facts) ?? expiredFault(decoded, facts.nowMs);
  if (bound !== undefined) return { do: "refuse", error: bound };
  if (policy.state === "unusable") return { do: "refuse", error: policy.error };
  const denied = deniedFault(policy.rules, decoded.kind);
  if (denied !== undefined) return { do: "refuse", error: denied };
  if (effect === "read") return { do: "start", lane: "ready", fence: null, usesPlan: null, signedBy: [] };

  const offer: Fence = { epoch: facts.epoch, generation: facts.generation, digest: facts.digest };
  const fault =
    fenceFault(facts.fence, offer) ??
    missingFault(policy.state) ??
    programFault(policy.rules, decoded) ??
    planFault({
      ...facts,
      ...asked(decoded),
      quote: decoded.plan,
      issued: facts.plan,
      required: requiresPlan(policy.rules, decoded.kind),
    });
  if (fault !== undefined) return { do: "refuse", error: fault };
  const signed = signaturesOf(policy.rules, decoded.kind, facts.signatures);
  if ("fault" in signed) return { do: "refuse", error: signed.fault };
  const notNow =
    windowFault(policy.rules, decoded.kind, facts.nowMs) ??
    quotaFault(policy.rules, decoded, facts.destructiveToday) ??
    laneFault(decoded, lane);
  if (notNow !== undefined) return { do: "refuse", error: notNow };
  return {
    do: "start",
    lane: laneNow(lane),
    fence: offer,
    usesPlan: decoded.plan?.id ?? null,
    signedBy: signed.signedBy,
  };
}

/** Where operators sign, what they sign must be a plan's: its nonce is what makes the signature good for once only. */
function requiresPlan(rules: PolicyRules, kind: string): boolean {
  return typeof requirementOf(rules, kind) !== "string";
}

export interface GoingOnFacts {
  readonly nowMs: number;
  readonly policy: PolicyFacts;
  readonly command: Command;
  readonly effect: Effect;
  /** Those that it was accepted with, verified against the policy as it is now. */
  readonly signatures: SignatureFacts;
  /** Runs before the one that is about to begin. */
  readonly runs: number;
  /** Whether an earlier run passed the point of no return. */
  readonly noReturn: boolean;
}

/**
 * Asked right before each run of an accepted operation: the policy may have changed since. An operation whose kind is
 * denied now, or whose signer was taken out of the policy, stops here: a half-written disk boots nothing, which is safe.
 * Not so past the point of no return: what was signed has happened by then, and only its end is missing. A window says
 * when work may begin, so it binds the first run alone. Disks are the handler's to ask about, in every run.
 */
export function goingOnFault(facts: GoingOnFacts): ErrorReport | undefined {
  const { policy, command, effect, runs } = facts;
  if (policy.state === "unusable") return policy.error;
  if (facts.noReturn) return undefined;
  const { rules } = policy;
  const denied = deniedFault(rules, command.kind);
  if (denied !== undefined || effect === "read") return denied;
  const fault = missingFault(policy.state) ?? programFault(rules, command);
  if (fault !== undefined) return fault;
  const signed = signaturesOf(rules, command.kind, facts.signatures);
  if ("fault" in signed) return signed.fault;
  if (runs > 0) return undefined;
  return windowFault(rules, command.kind, facts.nowMs) ?? expiredFault(command, facts.nowMs);
}

function asked({ kind, arguments: given }: Command): AskedCommand {
  return { kind, arguments: given };
}

function hostFault(command: Command, { host }: AdmissionFacts): ErrorReport | undefined {
  if (command.host === host) return undefined;
  return {
    code: "command.wrong-host",
    message: `The command names the host ${command.host.slice(0, 16)}…, this is ${host.slice(0, 16)}….`,
    details: { named: command.host, found: host },
  };
}

function expiredFault({ limits: { notAfter } }: Command, nowMs: number): ErrorReport | undefined {
  if (notAfter === undefined || nowMs <= notAfter) return undefined;
  return {
    code: "command.expired",
    message: `The command was to start before ${new Date(notAfter).toISOString()}; by this host's clock it is ${new Date(nowMs).toISOString()}.`,
  };
}

function missingFault(state: "present" | "missing"): ErrorReport | undefined {
  if (state === "present") return undefined;
  return { code: "policy.missing", message: "The host has no policy file, so nothing may be changed on it." };
}

function laneFault({ limits }: Command, lane: AdmissionFacts["lane"]): ErrorReport | undefined {
  if (typeof lane !== "object") return undefined;
  if (limits.startWithinSeconds !== undefined && lane.waiting < waitingMax) return undefined;
  const running = lane.busyWith ?? null;
  const crowd = limits.startWithinSeconds === undefined ? "" : ` ${lane.waiting} wait for it already.`;
  return {
    code: "executor.lane-busy",
    message: `Operation ${running ?? "(unknown)"} is changing this host's state; one does at a time.${crowd}`,
    hint: "Send it again, under a new id, when that one has ended; with limits.startWithinSeconds it waits.",
    details: { running, waiting: lane.waiting },
  };
}

function admitAgain(
  { lane }: AdmissionFacts,
  { effect, runs }: NonNullable<AdmissionFacts["known"]>,
): Admission {
  switch (effect) {
    case "once":
      // Accepted, but its run not begun: nothing has happened yet.
      if (runs === 0) return { do: "resume", lane: laneNow(lane) };
      return {
        do: "conclude",
        outcome: "indeterminate",
        error: {
          code: "command.indeterminate",
          message: "The operation was cut off, and must not be repeated: what it did is not known.",
        },
      };
    case "read":
    case "idempotent":
      return runs < repeatsMax ? { do: "resume", lane: laneNow(lane) } : givenUp(runs);
    case "resumable":
      return runs < resumesMax ? { do: "resume", lane: laneNow(lane) } : givenUp(runs);
  }
}

function laneNow(lane: AdmissionFacts["lane"]): "ready" | "wait" {
  return typeof lane === "object" ? "wait" : "ready";
}

function givenUp(runs: number): Admission {
  return {
    do: "conclude",
    outcome: "failed",
    error: {
      code: "executor.failed",
      message: `The operation's executor died in each of ${runs} runs; it is not started again.`,
      details: { runs },
    },
  };
}
