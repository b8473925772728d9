// How much of the processor this process asks for beside others.
import { writeFileSync } from "node:fs";
import { getPriority, setPriority } from "node:os";

/**
 * Makes this process, with the threads it starts from now on, give way to others. A detached process is a session of its
 * own, and where the kernel groups by session (sched_autogroup) its share is the group's, whatever its own niceness.
 */
export function giveWay(niceness: number): void {
  const attempts = [
    () => {
      if (getPriority() < niceness) setPriority(niceness);
    },
    () => writeFileSync("/proc/self/autogroup", String(niceness)),
  ];
  for (const attempt of attempts) {
    try {
      attempt();
    } catch {
      // Not allowed in this sandbox, or not in this kernel: it runs as it is.
    }
  }
}
