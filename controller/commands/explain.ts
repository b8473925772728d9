// Why a command is not yet where it will be, pure: what it waits for, what happens by itself, what helps.
import { textOf } from "../../protocol/bytes.ts";
import { type CommandLimits, isTerminal, type Progress } from "../../protocol/commands.ts";
import { type ExplainedHost, type Explanation, explainHost, nothingToExplain } from "../hosts/explain.ts";
import { changesState, holdOf } from "../rules/offering.ts";
import { waitsUntil } from "../rules/retention.ts";
import type { StoredCommand } from "../store/command-store.ts";

/** How long an agent and its executor may take before somebody should look. */
const usualMs = 10_000;
const orExpires = ", and ends as expired if that is not before its deadline.";
/** Of host.reboot, where the command does not say. */
const rebootSecondsDefault = 900;

/** `at`: now, by the controller's clock. */
export function explainCommand(
  command: StoredCommand,
  host: ExplainedHost,
  online: boolean,
  at: number,
  progress: Pick<Progress, "paused"> | null = null,
): Explanation {
  const { pause, state } = command;
  if (isTerminal(state)) return nothingToExplain;
  const explained = explainOpen(command, host, online, at);
  const waits = progress?.paused === true;
  if (pause?.paused === true) return explainPaused(command, pause.at, explained, waits);
  if (!waits || command.cancelRequestedAt !== null) return explained;
  return {
    ...explained,
    reason:
      "It waits at a safe point: its host has lost its link, or an operator paused it, which this controller does not know.",
    next: "It goes on when the host is connected again, or when it is resumed.",
    suggest: `bedplate command resume ${command.id}`,
  };
}

/** What else holds it back is told before it. */
function explainPaused(
  { id, state, cancelRequestedAt }: StoredCommand,
  pausedAt: number,
  { reason, ...explained }: Explanation,
  waits: boolean,
): Explanation {
  // A cancel ends it where it waits.
  if (cancelRequestedAt !== null) return { reason, ...explained };
  const since = new Date(pausedAt).toISOString();
  if (state === "waiting")
    return {
      ...explained,
      reason:
        `${reason ?? ""} An operator paused it at ${since}: its host will have it wait at its first safe point.`.trim(),
    };
  const resume = `bedplate command resume ${id}`;
  if (waits) {
    return {
      reason: `An operator paused it at ${since}: it waits at a safe point, and its limit on standing still does not count.`,
      deadline: explained.deadline,
      next: "It goes on where it stands when it is resumed.",
      suggest: resume,
    };
  }
  return {
    reason:
      `${reason ?? ""} An operator asked at ${since} that it wait; the host has not said that it does.`.trim(),
    deadline: explained.deadline,
    next: "It waits from its next safe point on, unless it is past its point of no return.",
    suggest: resume,
  };
}

function explainOpen(command: StoredCommand, host: ExplainedHost, online: boolean, at: number): Explanation {
  const { state, notAfter } = command;
  if (state === "waiting") {
    const { reason, ...waits } = explainWaiting(command, host, online);
    return { reason: reason === null ? null : `${reason}${explainCancel(command)}`, ...waits };
  }
  const { limits, arguments: args } = readDocument(command);
  const away = online
    ? ""
    : "agent.offline The host is not connected now; its answer follows when it is back. ";
  const cancel = explainCancel(command);
  const follow = `bedplate command show ${command.id} --follow`;
  const slow = at - sinceOf(command) > usualMs;
  const look = online ? (slow ? "bedplate doctor  # on the host" : null) : explainHost(host, false).suggest;
  switch (state) {
    case "offered": {
      const held = explainHeld(command, host, online);
      return {
        reason: `${away}It was sent to the host, whose agent has not confirmed it yet.${held === null ? "" : ` ${held.reason}`}${cancel}`,
        deadline: notAfter,
        next: held?.next ?? "It is sent again at the host's next connection; the host knows it by its id.",
        suggest: held?.suggest ?? look ?? follow,
      };
    }
    case "received":
      return {
        reason: `${away}The host's agent has it; the executor has not admitted it yet.${cancel}`,
        deadline: notAfter,
        next: "The agent starts an executor for it, which admits or refuses it.",
        suggest: look ?? follow,
      };
    case "accepted":
      return {
        reason: `${away}The host's executor has admitted it and not begun yet.${cancel}`,
        deadline: startDeadline(command, limits) ?? notAfter,
        next:
          limits.startWithinSeconds === undefined
            ? "The executor begins, or says why not."
            : "It begins when what runs there has ended, and ends as timed out if that takes longer than its limit.",
        suggest: look ?? follow,
      };
    case "running":
      return {
        reason: `${away}${command.kind === "host.reboot" && !online ? "The host restarts." : "It runs."}${cancel}`,
        deadline: runDeadline(command, limits, args),
        next: nextOfRunning(command, limits, online),
        suggest: command.cancelRequestedAt === null && online ? follow : (look ?? follow),
      };
    case "refused":
    case "succeeded":
    case "failed":
    case "cancelled":
    case "timed-out":
    case "indeterminate":
      return nothingToExplain;
  }
}

/** When the command came into the state that it is in. */
export function sinceOf({ state, history, updatedAt }: StoredCommand): number {
  let since = updatedAt;
  // A resumed run is the same state still.
  for (const entry of history.toReversed()) {
    if (entry.state !== state) break;
    since = entry.at;
  }
  return since;
}

function explainWaiting(command: StoredCommand, host: ExplainedHost, online: boolean): Explanation {
  const { id } = command;
  const deadline = waitsUntil(command);
  const missing = command.signaturesWanted - command.signatures.length;
  if (missing > 0) {
    const held = explainHost(host, online).reason;
    return {
      reason: `It needs ${missing} more ${missing === 1 ? "signature" : "signatures"}: it has ${command.signatures.length} of ${command.signaturesWanted}.${held === null ? "" : ` And it waits for its host: ${held}`}`,
      deadline,
      next: `It is sent to the host when it has them${orExpires}`,
      suggest: `bedplate command sign ${id}`,
    };
  }
  const held = explainHeld(command, host, online);
  if (held !== null) return held;
  const waits = explainHost(host, online);
  return online
    ? {
        reason: "It goes to the host as soon as its agent has confirmed what was sent before it.",
        deadline,
        next: `It is sent to the host${orExpires}`,
        suggest: `bedplate command show ${id} --follow`,
      }
    : {
        reason: waits.reason,
        deadline,
        next: `It is sent when the host is connected${orExpires}`,
        suggest: waits.suggest,
      };
}

/** Null unless the host's standing holds it back. */
function explainHeld(command: StoredCommand, host: ExplainedHost, online: boolean): Explanation | null {
  const { kind, mode, signaturesWanted, notAfter } = command;
  const hold = holdOf(
    {
      ...{ state: command.state, changesState: changesState(kind, mode), signaturesWanted },
      signatures: command.signatures.length,
    },
    host.standing,
  );
  if (hold === null || hold === "signatures") return null;
  const { reason, suggest } = explainHost(host, online);
  // Once offered, the host alone keeps the limit.
  const waits = command.state === "waiting";
  const when = {
    pending: "It is sent when the host is approved",
    quarantined: "It is sent when a person has said which of the machines is the true one",
    revoked: "It is ended",
  } as const;
  const deadline = waits ? waitsUntil(command) : notAfter;
  return { reason, deadline, next: `${when[hold]}${deadline === null ? "." : orExpires}`, suggest };
}

function explainCancel({ cancelRequestedAt, cancelAnswer }: StoredCommand): string {
  if (cancelRequestedAt === null) return "";
  if (cancelAnswer === null) return " Its cancellation was asked for; the host has not answered yet.";
  return cancelAnswer.answer === "cancelling"
    ? ` It is being cancelled: ${cancelAnswer.reason}`
    : ` It is too late to cancel it: ${cancelAnswer.reason}`;
}

function nextOfRunning({ kind }: StoredCommand, limits: CommandLimits, online: boolean): string {
  if (kind === "host.reboot") return "It ends when the host is up anew, or fails at its deadline.";
  if (!online && limits.onLinkLost === "pause")
    return "It pauses where it safely can until the host is connected again, as it asked for.";
  if (!online && limits.onLinkLost === "abort")
    return "The host stops it before its point of no return, as it asked for; its result comes when the host is back.";
  return "Its result comes when it ends; a run that is cut off is resumed or ended by the host.";
}

function startDeadline(command: StoredCommand, { startWithinSeconds }: CommandLimits): number | null {
  return startWithinSeconds === undefined ? null : sinceOf(command) + startWithinSeconds * 1000;
}

function runDeadline(
  command: StoredCommand,
  { runForSeconds }: CommandLimits,
  args: Readonly<Record<string, unknown>>,
): number | null {
  const deadlines: number[] = [];
  if (runForSeconds !== undefined) deadlines.push(runForSeconds);
  if (command.kind === "host.reboot") {
    const { deadlineSeconds } = args;
    deadlines.push(typeof deadlineSeconds === "number" ? deadlineSeconds : rebootSecondsDefault);
  }
  return deadlines.length === 0 ? null : sinceOf(command) + Math.min(...deadlines) * 1000;
}

// Checked when it was taken; a version that does not know its kind reads this much of it all the same.
function readDocument({ document }: StoredCommand): {
  readonly limits: CommandLimits;
  readonly arguments: Readonly<Record<string, unknown>>;
} {
  return JSON.parse(textOf(document)) as ReturnType<typeof readDocument>;
}
