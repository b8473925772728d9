// The demo's processes as /proc shows them: who descends from whom, what they have written, and when they are gone.
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { monotonic, sleep } from "../clock.ts";

/** A process for as long as it lives: its id may be another's later, its id and start time not. */
export interface ProcessMark {
  readonly pid: number;
  /** Ticks since boot: field 22 of proc(5)'s stat. */
  readonly startTime: string;
  readonly parent: number;
  readonly command: string;
}

export function processMark(pid: number): ProcessMark | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name between the brackets may hold anything.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (fields[0] === "Z" || fields[0] === "X") return undefined;
    const command = readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ").trim();
    return { pid, startTime: fields[19] ?? "", parent: Number(fields[1]), command };
  } catch {
    return undefined;
  }
}

function allProcesses(): ProcessMark[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => processMark(Number(name)))
    .filter((mark) => mark !== undefined);
}

/** Children, their children and so on. */
export function descendantsOf(pid: number): ProcessMark[] {
  const all = allProcesses();
  const found: ProcessMark[] = [];
  const ancestors = new Set([pid]);
  for (let grown = true; grown; ) {
    grown = false;
    for (const mark of all) {
      if (ancestors.has(mark.pid) || !ancestors.has(mark.parent)) continue;
      ancestors.add(mark.pid);
      found.push(mark);
      grown = true;
    }
  }
  return found;
}

/** Whether it is an executor: the program, not someone who looks at its files. */
export function isExecutor(mark: ProcessMark): boolean {
  return /\/executor\.(ts|js)( |$)/.test(mark.command);
}

/** Executors outlive their agent, so they are known by the directory in their arguments or by their mounts. */
export function executorsOf(directory: string, mounts: string | undefined): ProcessMark[] {
  return allProcesses().filter(
    (mark) =>
      isExecutor(mark) &&
      (mark.command.includes(`${directory}/`) || (mounts !== undefined && mountsOf(mark.pid) === mounts)),
  );
}

/** Processes for which one of the targets is the source, by a mount that is not ours, too. */
export function processesThatSee(
  mounts: readonly { readonly source: string; readonly target: string }[],
): ProcessMark[] {
  const theirs = mounts.flatMap(({ source, target }) => {
    const file = fileAt(source);
    return file === undefined || file === fileAt(target) ? [] : [{ file, target }];
  });
  return allProcesses().filter(({ pid }) =>
    theirs.some(({ file, target }) => fileAt(`/proc/${pid}/root${target}`) === file),
  );
}

/** Which file it is, whatever its name. */
function fileAt(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev} ${ino}`;
  } catch {
    return undefined;
  }
}

/** The name of a process's mount namespace. */
export function mountsOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`);
  } catch {
    return undefined;
  }
}

/** Bytes that the process has passed to write calls so far, by the kernel's account. */
export function bytesWrittenBy(pid: number): number | undefined {
  try {
    return Number(/^wchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "latin1"))?.[1]);
  } catch {
    return undefined;
  }
}

/** Sends the signal if it still is that process. */
export function signalProcess(mark: ProcessMark, name: NodeJS.Signals): boolean {
  if (processMark(mark.pid)?.startTime !== mark.startTime) return false;
  try {
    return process.kill(mark.pid, name);
  } catch {
    return false;
  }
}

/** Kills them and waits until they are gone, at most `waitMs`. */
export async function killAll(marks: readonly ProcessMark[], waitMs: number): Promise<void> {
  for (const mark of marks) signalProcess(mark, "SIGKILL");
  const until = monotonic() + waitMs;
  const alive = () => marks.some((mark) => processMark(mark.pid)?.startTime === mark.startTime);
  while (alive() && monotonic() < until) await sleep(10, new AbortController().signal);
}
