// Which commands go to a host's session now, pure: what is held and why, what is due, in which order, and how much at once.
// The store and a simulator drive these very functions.
import { effectOf, isCommandKind, type OperationState } from "../../protocol/commands.ts";
import { assert } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import type { Standing } from "../../protocol/schema.ts";

export const offering = {
  /** Offers of one session that its agent has not confirmed. */
  inFlightMax: 64,
  /** An offer that is not answered for so long holds back no other. */
  answerMsMax: 30_000,
  /** Documents that go out in one round; one larger goes alone. */
  roundBytesMax: limits.socketBufferBytesMax,
} as const;
assert(offering.roundBytesMax >= limits.commandBytesMax, "a round takes any command");

/** What the rule needs to know of a command that has not ended. */
export interface OpenCommand {
  readonly id: string;
  readonly state: OperationState;
  /** Its effect is more than to read. */
  readonly changesState: boolean;
  readonly signatures: number;
  readonly signaturesWanted: number;
  /** Null before its first offer. */
  readonly generation: number | null;
  readonly cancelRequestedAt: number | null;
  /** What an operator said last, if anything. */
  readonly pause: { readonly paused: boolean } | null;
  readonly documentBytes: number;
}

/** What a session was sent since it began: offers with the moment of each (monotonic), and cancels. */
export interface SentInSession {
  readonly offered: ReadonlyMap<string, number>;
  readonly cancelled: ReadonlySet<string>;
  /** Whether it was told to wait or to go on. */
  readonly paused: ReadonlyMap<string, boolean>;
}

/** What this version does not know may change anything. */
export function changesState(kind: string, mode: string): boolean {
  return !isCommandKind(kind) || effectOf({ kind, mode: mode === "plan" ? "plan" : "apply" }) !== "read";
}

/** Why a command is not offered, though its host may be connected. */
export type Hold = "pending" | "revoked" | "quarantined" | "signatures";

/** @param standing of the command's host */
export function holdOf(
  command: Pick<OpenCommand, "state" | "changesState" | "signatures" | "signaturesWanted">,
  standing: Standing,
): Hold | null {
  if (standing === "pending" || standing === "revoked") return standing;
  // What was offered had them: a controller that was set back to before must not forget to ask what came of it.
  if (command.state === "waiting" && command.signatures < command.signaturesWanted) return "signatures";
  // Two machines answer with its key: until a person says which one is true, it is only read from.
  if (standing === "quarantined" && command.changesState) return "quarantined";
  return null;
}

export type Step =
  /** `cancel-known`: not offered in this session; an agent that does not know the command does nothing. */
  { readonly step: "offer" | "cancel" | "cancel-known" | "pause" | "resume"; readonly id: string };

export interface DueSteps {
  readonly steps: readonly Step[];
  /** What keeps the rest: another round follows at once, or when the agent has confirmed what it was offered. */
  readonly rest: "none" | "next-round" | "in-flight";
}

/**
 * What to send to the session now. `open`: all commands of the host that have not ended, in order of creation. Each is
 * offered once in a session; its cancel follows the offer. What the host knows already it answers with its state. In
 * quarantine what was offered before is not offered again, but its cancel goes out: to stop is never a danger.
 */
export function dueSteps(
  open: readonly OpenCommand[],
  standing: Standing,
  sent: SentInSession,
  nowMs: number,
): DueSteps {
  const steps: Step[] = [];
  let rest: DueSteps["rest"] = "none";
  let bytes = 0;
  let inFlight = open.filter((command) => isInFlight(command, sent, nowMs)).length;
  for (const command of inOrderOfOffers(open)) {
    const { id, documentBytes } = command;
    const wasOffered = sent.offered.has(id);
    let offered = wasOffered;
    const hold = holdOf(command, standing);
    if (!offered && rest === "none" && hold === null) {
      const counts = isUnanswered(command.state);
      if (counts && inFlight >= offering.inFlightMax) rest = "in-flight";
      else if (bytes > 0 && bytes + documentBytes > offering.roundBytesMax) rest = "next-round";
      else {
        steps.push({ step: "offer", id });
        bytes += documentBytes;
        if (counts) inFlight += 1;
        offered = true;
      }
    }
    // An executor remembers that it was paused, so that it is also said in each session that it is not any more.
    const { pause } = command;
    const told = sent.paused.get(id);
    const known = offered || (hold === "quarantined" && command.state !== "waiting");
    if (pause !== null && known && (pause.paused !== told || (offered && !wasOffered)))
      steps.push({ step: pause.paused ? "pause" : "resume", id });
    if (command.cancelRequestedAt === null) continue;
    const wasCancelled = sent.cancelled.has(id);
    // The host hears of a command before it hears of its end: said before the offer, the cancel was for who knew it.
    if (offered && !(wasOffered && wasCancelled)) steps.push({ step: "cancel", id });
    // One of two machines runs it, perhaps: the other must not say that it has put an end to it.
    else if (!offered && hold === "quarantined" && command.state !== "waiting" && !wasCancelled)
      steps.push({ step: "cancel-known", id });
    // Cancelled where it lacks signatures, it had them perhaps before this controller was set back: its host says.
    else if (!offered && hold === "signatures" && standing === "approved" && !wasCancelled)
      steps.push({ step: "cancel", id });
  }
  return { steps, rest };
}

// The host takes generations in rising order only: what has one already goes first, lowest first, whatever was made before
// it but waited longer for its signatures.
function inOrderOfOffers(open: readonly OpenCommand[]): readonly OpenCommand[] {
  const rank = ({ generation }: OpenCommand) => generation ?? Number.POSITIVE_INFINITY;
  return open.toSorted((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)));
}

function isInFlight(command: OpenCommand, sent: SentInSession, nowMs: number): boolean {
  const offeredAtMs = sent.offered.get(command.id);
  return (
    offeredAtMs !== undefined && isUnanswered(command.state) && nowMs - offeredAtMs < offering.answerMsMax
  );
}

// Confirmed is what the agent has on its disk.
function isUnanswered(state: OperationState): boolean {
  return state === "waiting" || state === "offered";
}
