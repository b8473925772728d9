// The newest inventory among a host's commands: one that was sent whole, and what later ones said of it being unchanged.
import type { CommandView } from "../protocol/api.ts";
import { Inventory, InventoryUnchanged } from "../protocol/inventory.ts";
import { checker } from "../protocol/schema.ts";

export interface KnownInventory {
  readonly inventory: Inventory;
  /** When it was taken, or last found unchanged; by the host's clock. */
  readonly takenAt: number | null;
}

const checkWhole = checker(Inventory, "message.invalid", "inventory");
const checkUnchanged = checker(InventoryUnchanged, "message.invalid", "inventory");

/** Of commands in any state, newest first. Null when none has an inventory. */
export function newestInventory(commands: readonly CommandView[]): KnownInventory | null {
  const later: { readonly unchanged: InventoryUnchanged; readonly at: number }[] = [];
  for (const { kind, state, result } of commands) {
    if (kind !== "host.inventory" || state !== "succeeded" || result == null) continue;
    const answer = answerOf(result.output);
    if (answer === null) continue;
    if ("unchanged" in answer) {
      later.push({ unchanged: answer, at: result.endedAt });
      continue;
    }
    const confirmed = later.find(({ unchanged }) => unchanged.contentHash === answer.contentHash);
    if (confirmed === undefined) return { inventory: answer, takenAt: result.endedAt };
    return { inventory: { ...answer, moment: confirmed.unchanged.moment }, takenAt: confirmed.at };
  }
  return null;
}

/** Null for what is neither: a newer agent may answer otherwise. */
export function answerOf(output: unknown): Inventory | InventoryUnchanged | null {
  for (const check of [checkWhole, checkUnchanged]) {
    try {
      return check(output);
    } catch {
      // The other one, then.
    }
  }
  return null;
}
