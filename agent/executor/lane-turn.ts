// One operation's way to the lane: taken at once when it is free and nobody waits, waited for in the order of acceptance.
import type { Host } from "../commands/command.ts";
import { type ExecutorPaths, operationSocketPath } from "../door/contract.ts";
import type { LaneBusy } from "./admit.ts";
import { isListening } from "./followers.ts";
import type { Journal } from "./journal.ts";
import { takeLane } from "./lane.ts";
import { awaitLane, bootTimeOf } from "./lane-wait.ts";

export interface LaneTurn extends Disposable {
  /** How the lane stands for this operation now. */
  facts(): Promise<"taken" | "not-needed" | LaneBusy>;
  /** Resolves when the operation has what it needs of the lane. @throws `command.expired`; the signal's reason */
  ready(startWithinSeconds: number | undefined, signal: AbortSignal): Promise<void>;
  release(): void;
}

export interface LaneTurnOptions {
  readonly id: string;
  /** Reads need no lane. */
  readonly reads: boolean;
  /** Nothing will begin, so far as is known: the lane is left to others, and waited for should it be needed after all. */
  readonly idle: boolean;
  readonly journal: Journal;
  readonly paths: ExecutorPaths;
  readonly host: Host;
}

/** Takes the lane where it is free and needed. */
export function openLaneTurn({ id, reads, idle, journal, paths, host }: LaneTurnOptions): LaneTurn {
  const directory = paths.stateDirectory;
  let lane: Disposable | undefined;
  const tryLane = () => {
    if (reads || idle || lane !== undefined) return;
    const taken = takeLane(directory);
    if (taken !== "busy") lane = taken;
  };
  tryLane();
  const release = () => {
    lane?.[Symbol.dispose]();
    lane = undefined;
  };
  /** Operations accepted before this one that have not begun, and whose executors live. */
  const before = async () => {
    const waiting = journal.waiting();
    const known = journal.operation(id);
    const mine = waiting.indexOf(id);
    // One that has begun before goes first of all.
    const ahead = known === undefined ? waiting : mine < 0 ? [] : waiting.slice(0, mine);
    const living: string[] = [];
    for (const other of ahead)
      if (await isListening(operationSocketPath(paths.runDirectory, other))) living.push(other);
    return living;
  };
  return {
    async facts() {
      if (reads) return "not-needed";
      tryLane();
      const waiting = await before();
      if (lane !== undefined && waiting.length === 0) return "taken";
      return {
        busyWith: lane === undefined ? journal.otherRunning(id) : waiting[0],
        waiting: waiting.length,
      };
    },
    async ready(startWithinSeconds, signal) {
      if (reads || lane !== undefined) return;
      lane = await awaitLane(
        {
          directory,
          notes: journal.notes(id),
          startWithinSeconds,
          clock: host.clock,
          now: () => bootTimeOf(host.facts()),
          othersFirst: async () => (await before()).length > 0,
        },
        signal,
      );
    },
    release,
    [Symbol.dispose]: release,
  };
}
