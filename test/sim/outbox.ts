// The agent's outbox without SQLite: the same rules over a simulated file. A property test holds it against the real one.
import type { KeptOperation, OutboxChange, OutboxNumbers } from "../../agent/link/outbox-rules.ts";
import { isTerminal } from "../../protocol/commands.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import type { Rules } from "./rules.ts";
import type { Store } from "./store.ts";
import type { Process } from "./world.ts";

export interface WaitingRecord {
  readonly seq: number;
  readonly at: number;
  readonly body: RecordBody;
  readonly bytes: number;
  /** Tells it from every other one, whatever its number. */
  readonly uid: number;
}

export interface OutboxState {
  readonly numbers: OutboxNumbers;
  readonly operations: ReadonlyMap<string, KeptOperation>;
  readonly records: readonly WaitingRecord[];
}

export function emptyOutbox(rules: Rules): OutboxState {
  return { numbers: rules.agent.outbox.firstNumbers, operations: new Map(), records: [] };
}

export interface OutboxParts {
  readonly owner: Process;
  readonly store: Store<OutboxState>;
  readonly rules: Rules;
  /** A new number for each record of the world. */
  uid(): number;
  onDurable(): void;
  onAcknowledged(): void;
  /** For the checker: the controller is believed to have these. */
  onForgotten(records: readonly WaitingRecord[]): void;
}

export class Outbox {
  readonly #parts: OutboxParts;
  #durableSeq: number;
  /** The commit before which nothing may be sent. */
  #telling = 0;
  #totals: { bytes: number; output: number };

  constructor(parts: OutboxParts) {
    this.#parts = parts;
    const { store, rules, owner } = parts;
    const before = store.state;
    const numbers = rules.agent.outbox.opened(before.numbers);
    // What a killed agent left was perhaps not synced.
    store.commitSynced(owner, { ...before, numbers });
    this.#durableSeq = numbers.highest;
    this.#totals = totalsOf(before.records);
  }

  get state(): OutboxState {
    return this.#parts.store.state;
  }

  get recordBytes(): number {
    return this.#totals.bytes;
  }

  get outputBytes(): number {
    return this.#totals.output;
  }

  operation(id: string): (KeptOperation & { readonly answered: boolean }) | undefined {
    const { operations, numbers } = this.state;
    const kept = operations.get(id);
    return kept && { ...kept, answered: this.#parts.rules.agent.outbox.isAnswered(kept, numbers) };
  }

  openOperations(): KeptOperation[] {
    return [...this.state.operations.values()].filter(({ state }) => !isTerminal(state));
  }

  commit(changes: readonly OutboxChange[], at: number): void {
    const { store, owner, rules } = this.#parts;
    const before = store.state;
    const after = rules.agent.outbox.committed(before.numbers, (id) => before.operations.get(id), changes);
    const added = after.records.map(({ seq, body }) => ({
      ...{ seq, at, body, bytes: sizeOf(body), uid: this.#parts.uid() },
    }));
    const operations = new Map(before.operations);
    for (const operation of after.operations.values()) operations.set(operation.id, operation);
    store.commit(owner, { numbers: after.numbers, operations, records: [...before.records, ...added] });
    const more = totalsOf(added);
    this.#totals = {
      bytes: this.#totals.bytes + more.bytes,
      output: this.#totals.output + more.output,
    };
    if (added.length > 0) this.#syncSoon();
  }

  after(seq: number, count: number): WaitingRecord[] {
    const { store, rules } = this.#parts;
    const waits = rules.shell.agentWaitsForSync;
    if (waits && store.commits.durable < this.#telling) return [];
    return this.state.records
      .filter((record) => record.seq > seq && (!waits || record.seq <= this.#durableSeq))
      .slice(0, count);
  }

  /** Waiting records that the controller says it has. */
  upTo(seq: number): WaitingRecord[] {
    return this.state.records.filter((record) => record.seq <= seq);
  }

  acknowledge(seq: number): void {
    const { store, owner, rules } = this.#parts;
    const before = store.state;
    const numbers = rules.agent.outbox.acknowledged(before.numbers, seq);
    if (numbers === before.numbers) return;
    const records = before.records.filter((record) => record.seq > numbers.acknowledged);
    this.#parts.onForgotten(before.records.filter((record) => record.seq <= numbers.acknowledged));
    store.commit(owner, { ...before, numbers, records });
    this.#totals = totalsOf(records);
    this.#parts.onAcknowledged();
  }

  resume(stored: number): void {
    const { store, owner, rules } = this.#parts;
    const before = store.state;
    const { numbers, forget, shift } = rules.agent.outbox.resumed(before.numbers, stored);
    const records = before.records
      .filter(({ seq }) => seq > forget)
      .map((record) => (shift === 0 ? record : { ...record, seq: record.seq + shift }));
    const operations =
      shift === 0
        ? before.operations
        : new Map(
            [...before.operations].map(([id, kept]) => [
              id,
              kept.endingSeq > before.numbers.acknowledged
                ? { ...kept, endingSeq: kept.endingSeq + shift }
                : kept,
            ]),
          );
    this.#parts.onForgotten(before.records.filter(({ seq }) => seq <= forget));
    store.commit(owner, { numbers, operations, records });
    const news = !before.numbers.linked || shift !== 0;
    if (news) this.#telling = store.commits.made;
    if (shift !== 0) this.#durableSeq = stored;
    this.#totals = totalsOf(records);
    if (news) this.#syncSoon();
    this.#parts.onAcknowledged();
  }

  synced(done: () => void): void {
    const { store, owner } = this.#parts;
    const upTo = { seq: this.state.numbers.highest, made: store.commits.made };
    store.sync(owner, () => {
      if (this.#telling <= upTo.made) this.#durableSeq = Math.max(this.#durableSeq, upTo.seq);
      this.#parts.onDurable();
      done();
    });
  }

  #syncSoon(): void {
    this.synced(() => {});
  }
}

function totalsOf(records: readonly WaitingRecord[]): { bytes: number; output: number } {
  let bytes = 0;
  let output = 0;
  for (const record of records) {
    bytes += record.bytes;
    if (record.body.type === "output") output += record.bytes;
  }
  return { bytes, output };
}

/** About what its JSON has; only what grows counts. */
function sizeOf(body: RecordBody): number {
  return 150 + (body.type === "output" ? body.data.length : 0);
}
