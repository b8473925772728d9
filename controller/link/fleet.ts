// How many agents there are to reckon with: those that are connected, or were lately and may come back at any moment.

import type { Clock } from "../machine/system.ts";
import type { HostStore } from "../store/host-store.ts";
import type { Sessions } from "./sessions.ts";

const seenWithinMs = 86_400_000;
/** How old the count may be. */
const freshMs = 10_000;

export class Fleet {
  readonly #parts: {
    readonly hosts: Pick<HostStore, "countSeen">;
    readonly sessions: Sessions;
    readonly clock: Clock;
  };
  #counted: { readonly size: number; readonly atMs: number } | undefined;

  constructor(parts: { hosts: Pick<HostStore, "countSeen">; sessions: Sessions; clock: Clock }) {
    this.#parts = parts;
  }

  /** As last counted. */
  get size(): number {
    return Math.max(this.#counted?.size ?? 0, this.#parts.sessions.count);
  }

  /** Counts again where the count is old: a controller that just started knows how many will come. */
  async count(): Promise<number> {
    const { hosts, clock } = this.#parts;
    const atMs = clock.monotonicMs();
    if (this.#counted === undefined || atMs - this.#counted.atMs >= freshMs)
      this.#counted = { size: await hosts.countSeen(clock.now() - seenWithinMs), atMs };
    return this.size;
  }
}
