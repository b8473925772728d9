// The process group of a program that was started for an operation: who is in it, whose it is, and how it is ended whole.
import { assert } from "../../protocol/errors.ts";
import type { Files } from "../host/files.ts";
import type { Host, Notes } from "./command.ts";

/** Numbers are used again: a group is known by its first process's start, in ticks since boot, and by the boot. */
export interface GroupMark {
  /** The program's process id, and its group's and session's. */
  readonly group: number;
  readonly startTicks: number;
  readonly bootId: string;
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

/** Every program of an operation, and what it starts in turn, has this variable with the operation's id. */
export const operationVariable = "BEDPLATE_OPERATION";

export const groupEndMs = { term: 5000, kill: 5000, poll: 50 } as const;

const noteName = "process";
const statBytesMax = 4096;
const environmentBytesMax = 1 << 20;

interface ProcessStat {
  readonly state: string;
  readonly group: number;
  readonly startTicks: number;
}

/** Fields 3, 5 and 22 of /proc/PID/stat (proc_pid_stat(5)); the name before them may hold anything. */
export function parseStat(text: string): ProcessStat | undefined {
  const fields = text
    .slice(text.lastIndexOf(")") + 1)
    .trim()
    .split(/\s+/);
  const [state, , group] = fields;
  const startTicks = Number(fields[19]);
  if (state === undefined || !/^\d+$/.test(group ?? "") || !Number.isSafeInteger(startTicks))
    return undefined;
  return { state, group: Number(group), startTicks };
}

/** @returns undefined when it has ended already */
export function markOf(files: Files, group: number, bootId: string): GroupMark | undefined {
  const stat = statOf(files, group);
  return stat && { group, startTicks: stat.startTicks, bootId };
}

/** Durable when it returns: from then on the group can be found again. */
export function noteGroup(notes: Notes, mark: GroupMark): void {
  notes.set({ [noteName]: new TextEncoder().encode(JSON.stringify(mark)) });
}

/** TERM, and after a while KILL for what is left. False when even that did not end it. */
export async function endGroup(group: number, host: Host): Promise<boolean> {
  const { clock, processes } = host;
  const never = new AbortController().signal;
  for (const [signal, ms] of [
    ["SIGTERM", groupEndMs.term],
    ["SIGKILL", groupEndMs.kill],
  ] as const) {
    if (processes.signalGroup(group, 0) === "gone" || membersOf(host.files, group).length === 0) return true;
    processes.signalGroup(group, signal);
    for (const began = clock.monotonic(); clock.monotonic() - began < ms; ) {
      await clock.sleep(groupEndMs.poll, never);
      if (processes.signalGroup(group, 0) === "gone" || membersOf(host.files, group).length === 0)
        return true;
    }
  }
  return false;
}

/** Sees that nothing of an earlier run lives on, by the operation's notes. */
export async function endLeftover(operation: string, notes: Notes, host: Host): Promise<Leftover> {
  const note = notes.get(noteName);
  if (note === undefined) return endUnnoted(operation, host);
  const mark = JSON.parse(new TextDecoder().decode(note)) as GroupMark;
  if (mark.bootId !== bootIdNow(host)) return "gone";
  const { group, startTicks } = mark;
  const members = membersOf(host.files, group);
  if (members.length === 0) return "gone";
  // The number of a group that lives is given to nobody else: its first process may be gone while others carry on.
  const first = statOf(host.files, group);
  const ours =
    first === undefined
      ? members.some((pid) => carries(host.files, pid, operation))
      : first.startTicks === startTicks;
  if (!ours) return "not-ours";
  return (await endGroup(group, host)) ? "ended" : "stuck";
}

/** The executor died after it started the program and before it had noted that. */
async function endUnnoted(operation: string, host: Host): Promise<Leftover> {
  const { files } = host;
  const groups = new Set<number>();
  for (const pid of processIds(files)) {
    if (!carries(files, pid, operation)) continue;
    const stat = statOf(files, pid);
    if (stat !== undefined && stat.group > 1 && !isDead(stat)) groups.add(stat.group);
  }
  const own = parseStat(textOf(files, "/proc/self/stat", statBytesMax) ?? "");
  if (own !== undefined) groups.delete(own.group);
  if (groups.size === 0) return "gone";
  const ended = await Promise.all([...groups].map((group) => endGroup(group, host)));
  return ended.every(Boolean) ? "ended" : "stuck";
}

/** Those that live: a dead process that nobody has asked for is in its group still. */
export function membersOf(files: Files, group: number): readonly number[] {
  assert(group > 1, "a group of a started program");
  return processIds(files).filter((pid) => {
    const stat = statOf(files, pid);
    return stat !== undefined && stat.group === group && !isDead(stat);
  });
}

function isDead({ state }: ProcessStat): boolean {
  return state === "Z" || state === "X";
}

function processIds(files: Files): readonly number[] {
  return files
    .list("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Undefined when there is no such process, or it goes just now. */
function statOf(files: Files, pid: number): ProcessStat | undefined {
  const text = textOf(files, `/proc/${pid}/stat`, statBytesMax);
  return text === undefined ? undefined : parseStat(text);
}

/** Whether a process has the operation's variable. It cannot be asked of another user's. */
function carries(files: Files, pid: number, operation: string): boolean {
  const environment = textOf(files, `/proc/${pid}/environ`, environmentBytesMax);
  return environment?.split("\0").includes(`${operationVariable}=${operation}`) ?? false;
}

function bootIdNow(host: Host): string {
  return textOf(host.files, "/proc/sys/kernel/random/boot_id", statBytesMax)?.trim() ?? "";
}

function textOf(files: Files, path: string, bytesMax: number): string | undefined {
  try {
    return new TextDecoder().decode(files.readBytes(path, bytesMax));
  } catch {
    return undefined;
  }
}
