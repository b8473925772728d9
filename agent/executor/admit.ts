// Whether an operation starts, goes on, is replayed or is refused: decided from facts alone, so that a simulator can ask.
import { type Command, type Effect, isTerminal, type OperationState } from "../../protocol/commands.ts";
import type { ErrorReport } from "../../protocol/errors.ts";

export interface AdmissionFacts {
  readonly nowMs: number;
  /** This host's id. */
  readonly host: string;
  readonly epoch: number;
  /** The highest epoch of any state-changing command accepted here. */
  readonly epochSeen: number;
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
  readonly policy:
    | { readonly state: "present" | "missing"; readonly denyKinds: readonly string[] }
    | { readonly state: "unusable"; readonly error: ErrorReport };
  /** The lane for what changes state; an operation that only reads needs none. */
  readonly lane: "taken" | "not-needed" | { readonly busyWith: string | undefined };
}

export type Admission =
  /** Serve what the journal has: the operation is over. */
  | { readonly do: "replay" }
  /** Another command of the same id is known; its record stays as it is. */
  | { readonly do: "conflict"; readonly error: ErrorReport }
  /** Record and serve a refusal. */
  | { readonly do: "refuse"; readonly error: ErrorReport }
  /** Record that it is accepted, and start it. */
  | { readonly do: "start" }
  /** Start it again. With "wait" another operation has the lane now: when it ends. */
  | { readonly do: "resume"; readonly lane: "ready" | "wait" }
  /** It must not be started again: record how it ends. */
  | { readonly do: "conclude"; readonly outcome: "indeterminate" | "failed"; readonly error: ErrorReport };

/** Runs of an operation that reads, or that may be repeated, until it is given up. */
export const repeatsMax = 3;
/** Runs of one that continues where it was: each gets somewhere, or something is broken. */
export const resumesMax = 100;

export function admit(facts: AdmissionFacts): Admission {
  const { known } = facts;
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

function admitNew({ nowMs, host, epoch, epochSeen, command, policy, lane }: AdmissionFacts): Admission {
  const refuse = (
    code: ErrorReport["code"],
    message: string,
    more: Partial<ErrorReport> = {},
  ): Admission => ({ do: "refuse", error: { code, message, ...more } });
  if ("error" in command) return { do: "refuse", error: command.error };
  const { decoded, effect } = command;
  const { kind } = decoded;
  const { notAfter } = decoded.limits;
  if (decoded.host !== host) {
    return refuse(
      "command.wrong-host",
      `The command names the host ${decoded.host.slice(0, 16)}…, this is ${host.slice(0, 16)}….`,
      {
        details: { named: decoded.host, found: host },
      },
    );
  }
  if (notAfter !== undefined && nowMs > notAfter) {
    return refuse(
      "command.expired",
      `The command was to start before ${new Date(notAfter).toISOString()}; by this host's clock it is ${new Date(nowMs).toISOString()}.`,
    );
  }
  if (policy.state === "unusable") return { do: "refuse", error: policy.error };
  if (policy.denyKinds.includes(kind))
    return refuse("policy.denied", `This host's policy denies ${kind}.`, { details: { kind } });
  if (effect === "read") return { do: "start" };
  if (epoch < epochSeen) {
    return refuse(
      "command.stale-epoch",
      `The offer is of epoch ${epoch}; this host has taken commands of epoch ${epochSeen}.`,
      {
        hint: "The controller was restored from a backup without raising its epoch.",
        details: { epoch, epochSeen },
      },
    );
  }
  if (policy.state === "missing")
    return refuse("policy.missing", `The host has no policy file, so nothing may be changed on it.`);
  if (typeof lane === "object") {
    return refuse(
      "executor.lane-busy",
      `Operation ${lane.busyWith ?? "(unknown)"} is changing this host's state; one does at a time.`,
      {
        hint: "Send it again, under a new id, when that one has ended.",
        details: { running: lane.busyWith ?? null },
      },
    );
  }
  return { do: "start" };
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
