// Kills the executor of the operation that runs now, with SIGKILL, once it has written a good part.
import { sleep } from "../clock.ts";
import { bytesWrittenBy, descendantsOf, isExecutor, processMark, signalProcess } from "./processes.ts";

export interface Killing {
  readonly pid: number;
  /** What it had written, by the kernel's account, when it was last looked at. */
  readonly bytesWritten: number;
}

/** Resolves with undefined when `signal` aborts first: it ended too fast. @param agentPid its executors' ancestor */
export async function killHalfWay(
  agentPid: number,
  atBytes: number,
  signal: AbortSignal,
): Promise<Killing | undefined> {
  while (!signal.aborted) {
    for (const mark of descendantsOf(agentPid).filter(isExecutor)) {
      // Look closely at one until it has written enough or is gone: listing all processes takes longer.
      for (;;) {
        const bytesWritten = bytesWrittenBy(mark.pid) ?? 0;
        if (bytesWritten >= atBytes && signalProcess(mark, "SIGKILL")) return { pid: mark.pid, bytesWritten };
        if (signal.aborted || processMark(mark.pid)?.startTime !== mark.startTime) break;
        await sleep(2, signal).catch(() => {});
      }
    }
    await sleep(5, signal).catch(() => {});
  }
  return undefined;
}
