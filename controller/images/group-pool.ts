// Worker threads for groups, and the bounded window of shared memory through which groups pass in order.
import { Piscina } from "piscina";
import { entryUrl } from "../../assembly/built.ts";
import { coresAllowed, createTurns } from "../../assembly/index.ts";
import { assert, BedplateError, errorOf } from "../../protocol/errors.ts";
import type { GroupTasks, SlotBytes, TaskAnswer, TaskKind } from "./group-tasks.ts";
import { imageLimits } from "./limits.ts";

export interface GroupPool extends AsyncDisposable {
  readonly threads: number;
  /** @throws what the worker found wrong; `worker.died` */
  run<K extends TaskKind>(kind: K, task: GroupTasks[K]["task"]): Promise<GroupTasks[K]["result"]>;
}

/** Threads start with the first task and end when idle for two seconds. */
export function createGroupPool(threads = Math.min(8, coresAllowed())): GroupPool {
  const pool = new Piscina({
    filename: entryUrl("controller/images/import-worker.ts").href,
    minThreads: 0,
    maxThreads: threads,
    idleTimeout: 2000,
    // A task takes milliseconds: a worker that blocks waiting for the next one would gain nothing.
    atomics: "disabled",
  });
  // No task waits in piscina's own queue for a busy worker: when that one died, piscina would start no other for it.
  const turns = createTurns(threads);
  return {
    threads,
    async run<K extends TaskKind>(kind: K, task: GroupTasks[K]["task"]) {
      let answer: TaskAnswer;
      await turns.take();
      try {
        answer = await pool.run({ kind, ...task });
      } catch (cause) {
        throw new BedplateError("worker.died", "A worker thread that handled an image died.", { cause });
      } finally {
        turns.give();
      }
      if ("error" in answer) throw errorOf(answer.error);
      return answer.value as GroupTasks[K]["result"];
    },
    async [Symbol.asyncDispose]() {
      await pool.destroy();
    },
  };
}

export interface GroupWindow<T> extends AsyncDisposable {
  /** A slot that nothing uses; when there is none, first settles the oldest task. */
  slot(): Promise<SlotBytes>;
  /** Takes the slot back when the task is settled. */
  start(slot: SlotBytes, task: Promise<T>): void;
  /** Settles all tasks. */
  finish(): Promise<void>;
}

/**
 * A window of `pool.threads * slotsPerThread` groups. `settle` gets the results in the order of `start`, one at a time;
 * what it or a task throws comes out of `slot` or `finish`. Disposing waits until no task runs any more.
 */
export function createGroupWindow<T>(
  { threads }: GroupPool,
  settle: (result: T, slot: SlotBytes) => Promise<void>,
): GroupWindow<T> {
  const slotsMax = threads * imageLimits.slotsPerThread + 1;
  const free: SlotBytes[] = [];
  const running: { slot: SlotBytes; task: Promise<T> }[] = [];
  let made = 0;
  const settleOldest = async () => {
    const oldest = running[0];
    assert(oldest !== undefined, "a task runs while no slot is free");
    const result = await oldest.task;
    running.shift();
    await settle(result, oldest.slot);
    free.push(oldest.slot);
  };
  return {
    async slot() {
      if (free.length === 0 && made < slotsMax) {
        made++;
        return new Uint8Array(new SharedArrayBuffer(imageLimits.frameBytesMax));
      }
      if (free.length === 0) await settleOldest();
      return free.pop()!;
    },
    start(slot, task) {
      // Awaited in its turn; until then a failure is not unhandled.
      task.catch(() => {});
      running.push({ slot, task });
    },
    async finish() {
      while (running.length > 0) await settleOldest();
    },
    async [Symbol.asyncDispose]() {
      await Promise.allSettled(running.map(({ task }) => task));
    },
  };
}
