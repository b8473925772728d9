// A thread that runs ranges of seeds for main.ts.
import { parentPort } from "node:worker_threads";
import type { BugName } from "./bugs.ts";
import { runSeeds } from "./seeds.ts";

export interface Job {
  readonly from: number;
  readonly to: number;
  readonly bug: BugName | undefined;
}

parentPort!.on("message", (job: Job) => parentPort!.postMessage(runSeeds(job)));
