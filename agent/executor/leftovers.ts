// What executors that died left alive of operations that must not be repeated: seen gone before anything is concluded
// of them, and before another operation changes the host.
import type { Host } from "../commands/command.ts";
import { endLeftover, type Leftover } from "../commands/process-group.ts";
import { type ExecutorPaths, operationSocketPath } from "../door/contract.ts";
import type { Admission } from "./admit.ts";
import { executorLives } from "./executor-mark.ts";
import { isListening } from "./followers.ts";
import type { Journal } from "./journal.ts";

export interface LeftoverOptions {
  readonly journal: Journal;
  readonly paths: ExecutorPaths;
  readonly host: Host;
  readonly log: (text: string) => void;
}

/** Undefined where there can be none, or its executor lives. */
export async function endLeftoverOf(
  id: string,
  { journal, paths, host, log }: LeftoverOptions,
): Promise<Leftover | undefined> {
  const known = journal.operation(id);
  // One that has not begun is begun by another executor perhaps at this moment: there is nothing to end.
  if (known?.effect !== "once" || known.state !== "running") return undefined;
  if (known.server === "run" && (await isListening(operationSocketPath(paths.runDirectory, id))))
    return undefined;
  if (executorLives(journal.notes(id), host)) return undefined;
  const leftover = await endLeftover(id, journal.notes(id), host);
  if (leftover !== "gone") log(`${id}: left by an executor that died: ${leftover}`);
  return leftover;
}

/** For an operation that has the lane: the executors of all others that were running are dead. */
export async function endOtherLeftovers(id: string, options: LeftoverOptions): Promise<void> {
  for (const other of options.journal.runningOnce()) if (other !== id) await endLeftoverOf(other, options);
}

const sentences = {
  gone: "Nothing of it runs any more.",
  ended: "What still ran of it was ended.",
  "not-ours":
    "A process group with its number lives, of which nothing shows that it is its own: it was left alone.",
  stuck: "Processes of it do not end, even by KILL.",
} as const satisfies Record<Leftover, string>;

/** The conclusion says what became of it. */
export function withLeftover(admission: Admission, leftover: Leftover | undefined): Admission {
  if (admission.do !== "conclude" || leftover === undefined) return admission;
  const { error } = admission;
  return {
    ...admission,
    error: {
      ...error,
      message: `${error.message} ${sentences[leftover]}`,
      details: { ...error.details, leftover },
    },
  };
}
