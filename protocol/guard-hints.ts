// What to do about a guard's refusal, for whoever tells people of it: the executor at apply, the command line at the plan.
import type { Code } from "./codes.ts";
import { overridableGuards } from "./disks.ts";

const overrideHint = `If it is to be lost all the same: --override GUARD (${overridableGuards.join(", ")}), where the host's policy allows that.`;

const hints: { readonly [K in Code]?: string } = {
  "policy.missing": "The host's administrator writes it; see packaging/policy.toml for a commented one.",
  "disk.protected":
    "The host's administrator would take it off protectDisks in the policy file; no controller can.",
  "disk.not-allowed":
    "The host's administrator adds the disk to allowDisks in the policy file; no controller can.",
  "disk.mounted": "Unmount it first.",
  "disk.swap": "Run swapoff on it first.",
  "disk.held":
    "Take the layer above apart first (dmsetup, mdadm, lvchange, losetup), or end what holds it: see lsblk and `fuser -v`.",
  "disk.remote": overrideHint,
  "disk.member": overrideHint,
  "disk.shared-storage": overrideHint,
  "disk.table-damaged": `Repair the table (gdisk, sfdisk), or wipe what is left of it: wipefs --all. ${overrideHint}`,
  "disk.unreadable": `The disk, its cable or its controller may be failing. ${overrideHint}`,
  "disk.read-only": "Make it writable first: blockdev --setrw, or the switch on the device.",
  "policy.override-denied":
    "The host's administrator adds the guard to allowOverrides in the policy file; no controller can.",
  "disk.own-root": "Deploy to another disk, or boot the host from elsewhere.",
  "disk.too-small": "Choose a larger disk or a smaller image.",
  "disk.sector-size": "Use an image that is made for this sector size.",
};

export function hintOfGuard(code: string): string | undefined {
  return (hints as Readonly<Record<string, string>>)[code];
}
