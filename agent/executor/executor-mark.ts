// Which process runs an operation: a socket can be taken away from one that lives, its pid and start time cannot.
import type { Host, Notes } from "../commands/command.ts";
import { isDead, statOf } from "../commands/process-family.ts";
import { bootIdOf } from "../devices/system.ts";

interface ExecutorMark {
  readonly pid: number;
  readonly startTicks: number;
  readonly bootId: string;
}

const noteName = "executor";
const statBytesMax = 4096;

/** In the transaction that lets this process run the operation; where there is no /proc, its socket alone tells. */
export function noteExecutor(notes: Notes, host: Host): void {
  const pid = ownPid(host);
  const mark = pid === undefined ? undefined : markFor(pid, host);
  if (mark !== undefined) notes.set({ [noteName]: new TextEncoder().encode(JSON.stringify(mark)) });
}

/** Whether the process that was let run it lives. */
export function executorLives(notes: Notes, host: Host): boolean {
  const note = notes.get(noteName);
  if (note === undefined) return false;
  const noted = JSON.parse(new TextDecoder().decode(note)) as ExecutorMark;
  const found = markFor(noted.pid, host);
  return found !== undefined && found.startTicks === noted.startTicks && found.bootId === noted.bootId;
}

/** Undefined of one that is dead, though perhaps nobody has asked for it yet: in a container, nobody may ever. */
function markFor(pid: number, host: Host): ExecutorMark | undefined {
  const stat = statOf(host.files, pid);
  if (stat === undefined || isDead(stat)) return undefined;
  return { pid, startTicks: stat.startTicks, bootId: bootIdOf(host.facts()) };
}

/** As the mounted /proc counts, which need not be this process's own namespace. */
function ownPid({ files }: Host): number | undefined {
  try {
    const pid = Number.parseInt(
      new TextDecoder().decode(files.readBytes("/proc/self/stat", statBytesMax)),
      10,
    );
    return Number.isSafeInteger(pid) ? pid : undefined;
  } catch {
    return undefined;
  }
}
