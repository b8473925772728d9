// The newest progress of every running command: in memory only, the next report replaces it.
import type { Progress } from "../../protocol/commands.ts";

/** Commands whose progress is kept; beyond, the oldest report goes. */
const commandsMax = 10_000;

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
