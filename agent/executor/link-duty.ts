// What a lost link means for an operation that has not passed its point of no return. Pure.
import type { CommandLimits } from "../../protocol/commands.ts";

/** How long nobody may say that the link is up until it counts as lost. */
export const linkLostMs = 30_000;

/** What an operation before its point of no return does about its link. */
export function linkDuty(
  onLinkLost: CommandLimits["onLinkLost"],
  { nowMs, upAtMs }: { readonly nowMs: number; readonly upAtMs: number },
): "go-on" | "pause" | "abort" {
  if (onLinkLost === undefined || onLinkLost === "continue") return "go-on";
  return nowMs - upAtMs > linkLostMs ? onLinkLost : "go-on";
}
