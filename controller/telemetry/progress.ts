// The newest progress of every running command: in memory only, the next report replaces it.
import type { Progress } from "../../protocol/commands.ts";

/** Commands whose progress is kept; beyond, the oldest report goes. */
const commandsMax = 10_000;

/** What this version knows of a report. Other members would be kept for each command, and may be as large as a message. */
export function knownProgress({
  phase,
  done,
  total,
  unit,
  rate,
  secondsLeft,
  paused,
  at,
}: Progress): Progress {
  return {
    ...{ phase, done, total, unit, rate, secondsLeft },
    ...(paused === undefined ? {} : { paused }),
    ...(at === undefined ? {} : { at: { number: at.number, of: at.of, name: at.name } }),
  };
}

export class ProgressBoard {
  readonly #newest = new Map<string, Progress>();

  set(command: string, progress: Progress): void {
    this.#newest.delete(command);
    this.#newest.set(command, progress);
    if (this.#newest.size <= commandsMax) return;
    for (const oldest of this.#newest.keys()) {
      this.#newest.delete(oldest);
      break;
    }
  }

  get(command: string): Progress | null {
    return this.#newest.get(command) ?? null;
  }

  delete(command: string): void {
    this.#newest.delete(command);
  }
}
