// Connections as TCP gives them: what arrives is in order and without a hole, late by any amount, and the end may be cut
// off; a peer that vanished is not noticed by the other.
import type { Random } from "./random.ts";
import type { Process, World } from "./world.ts";

export interface End {
  readonly process: Process;
  onMessage(message: unknown): void;
  /** The other side closed, or the connection broke. */
  onClose(code: number): void;
}

/** Whether what is sent arrives now. */
export interface Path {
  open(): boolean;
  latencyMs(): number;
}

type Side = 0 | 1;
type Parcel =
  | { readonly message: unknown; readonly bytes: number }
  | { readonly close: number; readonly bytes: 0 };

/** Broken off without a close frame. */
export const abnormal = 1006;

export class Wire {
  readonly #world: World;
  readonly #path: Path;
  readonly #ends: readonly [End, End];
  readonly #closed: [boolean, boolean] = [false, false];
  readonly #lastAt: [number, number] = [0, 0];
  /** What is on its way, in order, whatever each single piece of it meets. */
  readonly #queue: readonly [Parcel[], Parcel[]] = [[], []];
  /** Arrivals that found the path closed. */
  readonly #owed: [number, number] = [0, 0];
  readonly #bytes: [number, number] = [0, 0];

  constructor(world: World, path: Path, ends: readonly [End, End]) {
    this.#world = world;
    this.#path = path;
    this.#ends = ends;
  }

  /** Bytes that this side sent and that have not arrived. */
  buffered(side: Side): number {
    return this.#bytes[side];
  }

  isClosed(side: Side): boolean {
    return this.#closed[side];
  }

  send(side: Side, message: unknown, bytes: number): void {
    if (!this.#closed[side]) this.#dispatch(side, { message, bytes });
  }

  /** Ends the connection for this side; the other hears of it after all that was sent. */
  close(side: Side, code: number): void {
    if (this.#closed[side]) return;
    this.#closed[side] = true;
    this.#dispatch(side, { close: code, bytes: 0 });
  }

  /** This side's machine or route is gone: nobody is told. */
  vanish(side: Side): void {
    this.#closed[side] = true;
  }

  /** Both sides hear of a reset, as far as they can be reached; what is on its way is lost. */
  reset(): void {
    for (const side of [0, 1] as const)
      this.#world.after(0, undefined, () => this.#deliverClose(side, abnormal));
  }

  /** The path is open again: what was held back goes on. */
  heal(): void {
    for (const side of [0, 1] as const) {
      for (; this.#owed[side] > 0; this.#owed[side]--) this.#planArrival(side);
    }
  }

  #dispatch(side: Side, parcel: Parcel): void {
    this.#bytes[side] += parcel.bytes;
    this.#queue[side].push(parcel);
    this.#planArrival(side);
  }

  #planArrival(side: Side): void {
    const at = Math.max(this.#world.now + this.#path.latencyMs(), this.#lastAt[side]);
    this.#lastAt[side] = at;
    this.#world.after(at - this.#world.now, undefined, () => this.#arrive(side));
  }

  #arrive(side: Side): void {
    if (!this.#path.open()) {
      this.#owed[side] += 1;
      return;
    }
    const parcel = this.#queue[side].shift()!;
    this.#bytes[side] -= parcel.bytes;
    const other = (1 - side) as Side;
    if (this.#closed[other]) return;
    const end = this.#ends[other];
    if (!end.process.alive) return;
    if ("close" in parcel) this.#deliverClose(other, parcel.close);
    else end.onMessage(parcel.message);
  }

  #deliverClose(side: Side, code: number): void {
    if (this.#closed[side]) return;
    this.#closed[side] = true;
    const end = this.#ends[side];
    if (end.process.alive) end.onClose(code);
  }
}

export function steadyPath(random: Random, lowMs: number, highMs: number): Path {
  return { open: () => true, latencyMs: () => random.between(lowMs, highMs) };
}
