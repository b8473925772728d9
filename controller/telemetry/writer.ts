// Gathers what may be written late (batches, when hosts were seen, progress) and writes it once a second, in one transaction.
import type { Log } from "../machine/log.ts";
import type { Clock } from "../machine/system.ts";
import type { Store } from "../store/store.ts";
import { minuteOf, type Sighting, type StoredBatch } from "../store/telemetry-store.ts";

/** Written early beyond this, and whoever adds waits for it. */
const pendingBytesMax = 8 << 20;
const intervalMs = 1000;
const pruneIntervalMs = 60_000;
/** Events kept for followers that were away. */
const eventsKept = 100_000;

/** Of calls to the API that changed something. */
const auditDaysKept = 400;
const auditEntriesKept = 100_000;

export class LateWriter implements AsyncDisposable {
  readonly #parts: {
    readonly store: Store;
    readonly clock: Clock;
    readonly log: Log;
    readonly telemetryHours: number;
    readonly agesBy: () => number;
  };
  readonly #timers: Disposable[];
  #batches: { readonly batch: StoredBatch; readonly stored: (error?: unknown) => void }[] = [];
  #pendingBytes = 0;
  readonly #seen = new Map<string, Sighting>();
  readonly #progressed = new Set<string>();
  #writing: Promise<void> = Promise.resolve();

  /** @param parts `agesBy`: by which time what operators did is old enough to be forgotten */
  constructor(parts: {
    store: Store;
    clock: Clock;
    log: Log;
    telemetryHours: number;
    agesBy: () => number;
  }) {
    this.#parts = parts;
    this.#timers = [
      parts.clock.every(intervalMs, () => void this.flush()),
      parts.clock.every(pruneIntervalMs, () => void this.#prune()),
    ];
  }

  /** Takes a batch; `stored` is called when it is durable, or could not be made so. Resolves when more may be added. */
  async add(batch: StoredBatch, stored: (error?: unknown) => void): Promise<void> {
    this.#batches.push({ batch, stored });
    this.#pendingBytes += batch.frame.length;
    if (this.#pendingBytes > pendingBytesMax) await this.flush();
  }

  seen(sighting: Sighting): void {
    // Only heartbeats tell of the clock: what came between two writes does not take that back.
    const clockOffsetMs = sighting.clockOffsetMs ?? this.#seen.get(sighting.host)?.clockOffsetMs ?? null;
    this.#seen.set(sighting.host, { ...sighting, clockOffsetMs });
  }

  progressed(command: string): void {
    this.#progressed.add(command);
  }

  /** Resolves when no batch of the host waits to be written. */
  settled(host: string): Promise<void> {
    return this.#batches.some(({ batch }) => batch.host === host) ? this.flush() : this.#writing;
  }

  /** Writes what there is. Never rejects: whoever added is told. */
  flush(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#timers) timer[Symbol.dispose]();
    await this.flush();
  }

  async #write(): Promise<void> {
    const entries = this.#batches;
    const seen = [...this.#seen.values()];
    const progressed = [...this.#progressed];
    if (entries.length + seen.length + progressed.length === 0) return;
    this.#batches = [];
    this.#pendingBytes = 0;
    this.#seen.clear();
    this.#progressed.clear();
    try {
      await this.#parts.store.telemetry.append({
        batches: entries.map(({ batch }) => batch),
        seen,
        progressed,
        at: this.#parts.clock.now(),
      });
      for (const { stored } of entries) stored();
    } catch (error) {
      this.#parts.log.error({ err: error, batches: entries.length }, "telemetry could not be stored");
      for (const { stored } of entries) stored(error);
    }
  }

  async #prune(): Promise<void> {
    const { store, clock, log, telemetryHours, agesBy } = this.#parts;
    try {
      await store.telemetry.prune(minuteOf(clock.now()) - telemetryHours * 60);
      await store.events.prune(eventsKept);
      await store.audit.prune(agesBy() - auditDaysKept * 86_400_000, auditEntriesKept);
    } catch (error) {
      log.error({ err: error }, "old telemetry and events could not be pruned");
    }
  }
}
