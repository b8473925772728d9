// Tells of new output: whoever waits for a command's at once, the API's events at most four times a second a command.
import type { Log } from "../machine/log.ts";
import type { Clock } from "../machine/system.ts";
import type { Store } from "../store/store.ts";

export interface OutputNewsParts {
  readonly store: Pick<Store, "events" | "records">;
  readonly clock: Clock;
  readonly log: Log;
}

const intervalMs = 250;

export class OutputNews implements Disposable {
  readonly #parts: OutputNewsParts;
  readonly #following: Disposable;
  readonly #readers = new Map<string, Set<() => void>>();
  /** Commands told of within the last interval; `more`: there was output since. */
  readonly #recent = new Map<string, { more: boolean; readonly timer: Disposable }>();

  constructor(parts: OutputNewsParts) {
    this.#parts = parts;
    this.#following = parts.store.records.followOutput((command) => this.#came(command));
  }

  [Symbol.dispose](): void {
    this.#following[Symbol.dispose]();
    for (const { timer } of this.#recent.values()) timer[Symbol.dispose]();
    this.#recent.clear();
  }

  /** Calls `listener` whenever output of the command is durable. */
  follow(command: string, listener: () => void): Disposable {
    const readers = this.#readers.get(command) ?? new Set();
    const own = (): void => listener();
    this.#readers.set(command, readers.add(own));
    return {
      [Symbol.dispose]: () => {
        readers.delete(own);
        if (readers.size === 0 && this.#readers.get(command) === readers) this.#readers.delete(command);
      },
    };
  }

  #came(command: string): void {
    for (const reader of this.#readers.get(command) ?? []) reader();
    const recent = this.#recent.get(command);
    if (recent === undefined) this.#tell(command);
    else recent.more = true;
  }

  #tell(command: string): void {
    const { store, clock, log } = this.#parts;
    const timer = clock.after(intervalMs, () => {
      const more = this.#recent.get(command)?.more === true;
      this.#recent.delete(command);
      if (more) this.#tell(command);
    });
    this.#recent.set(command, { more: false, timer });
    store.events
      .append({ topic: "command", id: command, event: "output" }, clock.now())
      .catch((error: unknown) => log.error({ err: error, command }, "new output could not be told of"));
  }
}
