// What an executor process works with: given at its start, and its journal once that is open.
import type { Host } from "../commands/command.ts";
import type { ExecutorPaths } from "../door/contract.ts";
import type { Journal } from "./journal.ts";

export interface ExecutorOptions {
  readonly paths: ExecutorPaths;
  /** The effective user. */
  readonly user: number;
  /** Whether systemd started this process as root: only then it has rights that its agent has not. */
  readonly separated: boolean;
  readonly host: Host;
  readonly stopping: AbortSignal;
  readonly log: (text: string) => void;
}

export interface Executor extends ExecutorOptions {
  readonly journal: Journal;
  /** Of the run directory: who may connect. */
  readonly gid: number;
}
