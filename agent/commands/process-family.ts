// What a program of an operation has started: who belongs to it, by what the kernel tells, and how all of it is ended.
import type { Cgroup } from "../host/cgroup.ts";
import type { Files } from "../host/files.ts";
import type { Host } from "./command.ts";

export interface Family {
  readonly operation: string;
  /** The program's process group; undefined where it is not known, or has been given to somebody else. */
  readonly group: number | undefined;
  /** When the group's first process began, where that is known: another one's number is another one's group. */
  readonly groupStartTicks?: number | undefined;
  /** Where there is one, nothing of the program is outside but what moved itself. */
  readonly cgroup: Cgroup | undefined;
}

export interface ProcessStat {
  readonly state: string;
  readonly parent: number;
  readonly group: number;
  readonly startTicks: number;
}

/** Numbers are used again: a process is known by its start too. */
interface Member {
  readonly pid: number;
  readonly group: number;
  readonly startTicks: number;
}

/** Every program of an operation, and what it starts in turn, has this variable with the operation's id. */
export const operationVariable = "BEDPLATE_OPERATION";
export const familyEndMs = { term: 5000, kill: 5000, poll: 50 } as const;

const statBytesMax = 4096;
const environmentBytesMax = 1 << 20;

/** Of the cgroup that an operation's program runs in. */
export function cgroupNameOf(operation: string): string {
  return `bedplate-exec-${operation}`;
}

/** Fields 3, 4, 5 and 22 of /proc/PID/stat (proc_pid_stat(5)); the name before them may hold anything. */
export function parseStat(text: string): ProcessStat | undefined {
  const fields = text
    .slice(text.lastIndexOf(")") + 1)
    .trim()
    .split(/\s+/);
  const [state, parent, group] = fields;
  const startTicks = Number(fields[19]);
  if (state === undefined || !/^\d+$/.test(parent ?? "") || !/^\d+$/.test(group ?? "")) return undefined;
  if (!Number.isSafeInteger(startTicks)) return undefined;
  return { state, parent: Number(parent), group: Number(group), startTicks };
}

/**
 * Those that live: of its group and its cgroup, or else those that carry the operation's variable; and the children of all
 * of them. Never this process, or those that it is a child of.
 */
export function familyOf(
  files: Files,
  { operation, group, groupStartTicks, cgroup }: Family,
): readonly Member[] {
  const stats = statsOf(files);
  const first = group === undefined ? undefined : stats.get(group);
  const isOurs = first === undefined || first.startTicks === (groupStartTicks ?? first.startTicks);
  const confined = new Set(cgroup?.members() ?? []);
  const members = new Set<number>();
  for (const [pid, stat] of stats) {
    const known = confined.has(pid) || (isOurs && group !== undefined && stat.group === group);
    if (known || (cgroup === undefined && carries(files, pid, operation))) members.add(pid);
  }
  for (let before = -1; before < members.size; ) {
    before = members.size;
    for (const [pid, { parent }] of stats) if (members.has(parent)) members.add(pid);
  }
  const spared = ownLine(files, stats);
  return [...members].filter((pid) => !spared(pid)).map((pid) => ({ ...stats.get(pid)!, pid }));
}

/** TERM, and after a while KILL for what is left. False when even that did not end it. */
export async function endFamily(family: Family, host: Host): Promise<boolean> {
  const { clock, files, processes } = host;
  const never = new AbortController().signal;
  for (const [signal, ms] of [
    ["SIGTERM", familyEndMs.term],
    ["SIGKILL", familyEndMs.kill],
  ] as const) {
    const told = new Set<number>();
    for (const began = clock.monotonic(); ; ) {
      const living = familyOf(files, family);
      if (living.length === 0) return true;
      if (clock.monotonic() - began >= ms) break;
      if (signal === "SIGKILL") family.cgroup?.kill();
      const { group } = family;
      // All of a group at once: one that forks must not outrun its signals.
      if (told.size === 0 && group !== undefined && living.some((member) => member.group === group)) {
        processes.signal(-group, signal);
        for (const member of living) if (member.group === group) told.add(member.pid);
      }
      for (const member of living) {
        if (told.has(member.pid) || !isSame(files, member)) continue;
        processes.signal(member.pid, signal);
        told.add(member.pid);
      }
      // Looking at all processes costs much on a large host: meanwhile only these are looked at.
      do await clock.sleep(familyEndMs.poll, never);
      while (clock.monotonic() - began < ms && living.some((member) => isSame(files, member)));
    }
  }
  return false;
}

/** Undefined when there is no such process, or it goes just now. */
export function statOf(files: Files, pid: number): ProcessStat | undefined {
  const text = textOf(files, `/proc/${pid}/stat`, statBytesMax);
  return text === undefined ? undefined : parseStat(text);
}

/** Of all that live: a dead process that nobody has asked for is in its group still. */
export function statsOf(files: Files): ReadonlyMap<number, ProcessStat> {
  const stats = new Map<number, ProcessStat>();
  for (const name of files.list("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const stat = statOf(files, Number(name));
    if (stat !== undefined && !isDead(stat)) stats.set(Number(name), stat);
  }
  return stats;
}

/** Whether a process has the operation's variable. It cannot be asked of another user's. */
export function carries(files: Files, pid: number, operation: string): boolean {
  const environment = textOf(files, `/proc/${pid}/environ`, environmentBytesMax);
  return environment?.split("\0").includes(`${operationVariable}=${operation}`) ?? false;
}

export function textOf(files: Files, path: string, bytesMax: number): string | undefined {
  try {
    return new TextDecoder().decode(files.readBytes(path, bytesMax));
  } catch {
    return undefined;
  }
}

function isSame(files: Files, { pid, startTicks }: Member): boolean {
  const stat = statOf(files, pid);
  return stat !== undefined && !isDead(stat) && stat.startTicks === startTicks;
}

export function isDead({ state }: ProcessStat): boolean {
  return state === "Z" || state === "X";
}

// Somebody whom the program started may have started this executor's agent.
function ownLine(files: Files, stats: ReadonlyMap<number, ProcessStat>): (pid: number) => boolean {
  const text = textOf(files, "/proc/self/stat", statBytesMax) ?? "";
  const self = parseStat(text);
  const line = new Set<number>([1]);
  for (let pid = Number.parseInt(text, 10); pid > 1 && !line.has(pid); pid = stats.get(pid)?.parent ?? 0)
    line.add(pid);
  return (pid) => line.has(pid) || (self !== undefined && stats.get(pid)?.group === self.group);
}
