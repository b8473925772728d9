// The process group of a program that was started for an operation: noted, so that it is found again when its executor died.
import type { Files } from "../host/files.ts";
import type { Host, Notes } from "./command.ts";
import { carries, cgroupNameOf, endFamily, familyOf, statOf, statsOf, textOf } from "./process-family.ts";

/** Numbers are used again: a group is known by its first process's start, in ticks since boot, and by the boot. */
export interface GroupMark {
  /** The program's process id, and its group's and session's. */
  readonly group: number;
  readonly startTicks: number;
  readonly bootId: string;
  /** The directory of the program's cgroup, where it has one: an executor that comes later may live in another. */
  readonly cgroup?: string;
}

/** What an executor that died left alive. */
export type Leftover =
  /** Nothing, or it is ended now. */
  | "gone"
  | "ended"
  /** There is such a group, but nothing shows that it is this operation's: it was left alone. */
  | "not-ours"
  /** It does not die: its processes wait in the kernel. */
  | "stuck";

const noteName = "process";

/** @returns undefined when it has ended already */
export function markOf(files: Files, group: number, bootId: string): GroupMark | undefined {
  const stat = statOf(files, group);
  return stat && { group, startTicks: stat.startTicks, bootId };
}

/** Durable when it returns: from then on the group can be found again. */
export function noteGroup(notes: Notes, mark: GroupMark): void {
  notes.set({ [noteName]: new TextEncoder().encode(JSON.stringify(mark)) });
}

/**
 * Sees that nothing of an earlier run lives on: by the operation's notes, by its cgroup, and by the operation's id in what
 * its program's children inherited, where the executor died before it had noted anything.
 */
export async function endLeftover(operation: string, notes: Notes, host: Host): Promise<Leftover> {
  const { files, processes } = host;
  const note = notes.get(noteName);
  const mark = note && (JSON.parse(new TextDecoder().decode(note)) as GroupMark);
  if (mark !== undefined && mark.bootId !== bootIdNow(files)) return "gone";
  const whose = mark === undefined ? "nobody's" : ownerOf(mark, operation, files);
  const cgroup = processes.cgroup(cgroupNameOf(operation), "existing", mark?.cgroup);
  const group = whose === "ours" ? mark?.group : undefined;
  const family = { operation, group, groupStartTicks: mark?.startTicks, cgroup };
  try {
    if (familyOf(files, family).length === 0) return whose === "another's" ? "not-ours" : "gone";
    return (await endFamily(family, host)) ? "ended" : "stuck";
  } finally {
    cgroup?.remove();
  }
}

// The number of a group that lives is given to nobody else: its first process may be gone while others carry on.
function ownerOf(
  { group, startTicks }: GroupMark,
  operation: string,
  files: Files,
): "ours" | "another's" | "nobody's" {
  const stats = statsOf(files);
  const members = [...stats].filter(([, stat]) => stat.group === group);
  if (members.length === 0) return "nobody's";
  const first = statOf(files, group);
  const ours =
    first === undefined
      ? members.some(([pid]) => carries(files, pid, operation))
      : first.startTicks === startTicks;
  return ours ? "ours" : "another's";
}

function bootIdNow(files: Files): string {
  return textOf(files, "/proc/sys/kernel/random/boot_id", 4096)?.trim() ?? "";
}
