// The fence: which state-changing command a host has accepted last, and whether an offer is of its time. Pure.
import type { ErrorReport } from "../../protocol/errors.ts";

/** Of the last state-changing command that was accepted; survives all pruning, and only root on the host takes it away. */
export interface Fence {
  readonly epoch: number;
  readonly generation: number;
  /** SHA-256 of its document, lower-case hexadecimal. */
  readonly digest: string;
}

/** Generations count commands: a host that gets one a minute needs two years for a jump like this. */
export const generationJumpMax = 1_000_000;

/** Why an offer that is not known here must not be taken. Reads, and commands that the journal knows, are not asked about. */
export function fenceFault(fence: Fence | undefined, offer: Fence): ErrorReport | undefined {
  if (fence === undefined || offer.epoch > fence.epoch) return undefined;
  const details = {
    offered: { epoch: offer.epoch, generation: offer.generation },
    accepted: { epoch: fence.epoch, generation: fence.generation },
  };
  if (offer.epoch < fence.epoch) {
    return {
      code: "command.stale-epoch",
      message: `The offer is of epoch ${offer.epoch}; this host has taken commands of epoch ${fence.epoch}.`,
      hint: "The controller was restored from a backup without raising its epoch, or is a copy.",
      details,
    };
  }
  if (offer.generation < fence.generation) {
    return {
      code: "command.stale-generation",
      message: `The offer is of generation ${offer.generation}; this host has accepted generation ${fence.generation}.`,
      hint: "A later command was accepted before it: look at what that one did, and send this one anew if it is still wanted.",
      details,
    };
  }
  if (offer.generation === fence.generation) {
    // The very same content, and yet not known: it was taken so long ago that the journal forgot it.
    if (offer.digest === fence.digest) {
      return {
        code: "command.stale-generation",
        message: `This very command, of generation ${offer.generation}, was accepted here before; it is not run again.`,
        details,
      };
    }
    return {
      code: "command.generation-conflict",
      message: `Another command of generation ${offer.generation} was accepted here.`,
      hint: "Two controllers give out generations for this host: one of them is a copy.",
      details: { ...details, digest: fence.digest },
    };
  }
  if (offer.generation - fence.generation <= generationJumpMax) return undefined;
  return {
    code: "command.generation-jump",
    message: `The offer is of generation ${offer.generation}, absurdly far above this host's ${fence.generation}.`,
    hint: "If the controller is right, root on the host runs `bedplate fence reset`.",
    details,
  };
}
