// A cgroup (version 2) for what a program starts: whatever group, session or parent it takes, it stays in there.
import { mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from "node:fs";

export interface Cgroup {
  readonly directory: string;
  /** The processes in it. */
  members(): readonly number[];
  /** What `work` starts is in it from its first instruction on. */
  enter<T>(work: () => T): T;
  /** Ends all of it at once, also what is just being started. "unsupported": before Linux 5.14. */
  kill(): "sent" | "unsupported";
  /** Once nothing is in it any more; else it stays. */
  remove(): void;
}

/**
 * Beside this process's own. Undefined where there is none, or where this process may not make one.
 * @param known where an existing one was made, perhaps by a process that lived in another
 */
export function openCgroup(name: string, mode: "make" | "existing", known?: string): Cgroup | undefined {
  const own = ownDirectory();
  if (own === undefined) return undefined;
  const directory = known ?? `${own}/${name}`;
  const move = (to: string) => writeFileSync(`${to}/cgroup.procs`, "0");
  try {
    if (mode === "existing") statSync(directory);
    else mkdirSync(directory);
  } catch {
    return undefined;
  }
  const enter = <T>(work: () => T): T => {
    move(directory);
    try {
      return work();
    } finally {
      move(own);
    }
  };
  const remove = () => {
    try {
      rmdirSync(directory);
    } catch {
      // Something is in it, or it is gone.
    }
  };
  try {
    if (mode === "make") enter(() => {});
  } catch {
    remove();
    return undefined;
  }
  return {
    directory,
    members() {
      try {
        return readFileSync(`${directory}/cgroup.procs`, "utf8").split("\n").filter(Boolean).map(Number);
      } catch {
        return [];
      }
    },
    enter,
    kill() {
      try {
        writeFileSync(`${directory}/cgroup.kill`, "1", { flag: "r+" });
        return "sent";
      } catch {
        return "unsupported";
      }
    },
    remove,
  };
}

function ownDirectory(): string | undefined {
  try {
    const path = /^0::(\/.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1];
    const mount = /^\S+ (\S+) cgroup2 /m.exec(readFileSync("/proc/self/mounts", "utf8"))?.[1];
    // Outside of what this process's namespace shows.
    if (path === undefined || mount === undefined || path.startsWith("/..")) return undefined;
    return path === "/" ? mount : `${mount}${path}`;
  } catch {
    return undefined;
  }
}
