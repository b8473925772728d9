// Who follows a simulated operation: its events again from any number on, its output at the follower's pace, cancels.
import type { FollowerRequest } from "../../agent/door/contract.ts";
import { outputPieceBytesMax } from "../../protocol/commands.ts";
import type { JournalledEvent } from "./journal.ts";
import { abnormal, type End, type Path, Wire } from "./wire.ts";
import type { Process, World } from "./world.ts";

export interface CancelAnswer {
  readonly answer: "cancelling" | "too-late";
  readonly reason: string;
}

export interface FollowersParts {
  readonly world: World;
  readonly process: Process;
  events(): readonly JournalledEvent[];
  spool(): { readonly from: number; readonly bytes: number };
  cancel(reason: string): CancelAnswer;
  pause(paused: boolean): void;
}

interface Follower {
  readonly wire: Wire;
  attached: boolean;
  lastSeq: number;
  linkUp: boolean;
  /** Where it reads output next; undefined: it wants none. */
  output: number | undefined;
  /** The last event, until all output has gone before it. */
  held: JournalledEvent | undefined;
  gotAll: boolean;
  /** Pieces of output that it has not taken yet. */
  unread: number;
}

/** What the kernel keeps of one that does not read. */
const unreadMax = 3;

export class Followers {
  readonly #parts: FollowersParts;
  readonly #all = new Set<Follower>();
  /** Before, connections wait to be answered. */
  #serving = false;
  /** One that got everything has left. */
  toldAndGone = false;

  constructor(parts: FollowersParts) {
    this.#parts = parts;
  }

  get count(): number {
    return this.#all.size;
  }

  get linkUp(): boolean {
    return [...this.#all].some(({ attached, linkUp }) => attached && linkUp);
  }

  get reading(): boolean {
    return [...this.#all].some(({ held }) => held !== undefined);
  }

  accept(agent: End, path: Path): Wire {
    const follower: Follower = {
      ...{ attached: false, lastSeq: 0, linkUp: false, output: undefined, held: undefined },
      ...{ gotAll: false, unread: 0 },
      wire: new Wire(this.#parts.world, path, [
        agent,
        {
          process: this.#parts.process,
          onMessage: (message) => this.#asked(follower, message as FollowerRequest),
          onClose: () => {
            this.#all.delete(follower);
            this.toldAndGone ||= follower.gotAll;
          },
        },
      ]),
    };
    this.#all.add(follower);
    return follower.wire;
  }

  serve(): void {
    this.#serving = true;
    for (const follower of this.#all) this.#replay(follower);
  }

  publish(event: JournalledEvent): void {
    for (const follower of this.#all) if (follower.attached) this.#tell(follower, event);
  }

  outputGrew(): void {
    for (const follower of this.#all) this.#pump(follower);
  }

  drained(wire: Wire): void {
    for (const follower of this.#all) {
      if (follower.wire !== wire) continue;
      follower.unread = Math.max(0, follower.unread - 1);
      this.#parts.world.after(0, this.#parts.process, () => this.#pump(follower));
    }
  }

  closeAll(): void {
    for (const { wire } of this.#all) wire.close(1, abnormal);
  }

  #asked(follower: Follower, request: FollowerRequest): void {
    if ("attach" in request) {
      follower.attached = true;
      follower.lastSeq = request.attach.afterSeq;
      follower.output = request.attach.afterOutput;
      this.#replay(follower);
    } else if ("link" in request) {
      follower.linkUp = request.link === "up";
    } else if ("pause" in request) {
      this.#parts.pause(request.pause.paused);
    } else {
      follower.wire.send(1, { type: "cancel", ...this.#parts.cancel(request.cancel.reason) }, 100);
    }
  }

  #replay(follower: Follower): void {
    if (!this.#serving || !follower.attached) return;
    for (const event of this.#parts.events()) this.#tell(follower, event);
    this.#pump(follower);
  }

  #tell(follower: Follower, event: JournalledEvent): void {
    if (event.seq <= follower.lastSeq) return;
    follower.lastSeq = event.seq;
    const last = event.type === "result" || event.type === "refused";
    if (last && follower.output !== undefined) {
      follower.held = event;
      this.#pump(follower);
      return;
    }
    follower.wire.send(1, event, 200);
    follower.gotAll ||= last;
  }

  #pump(follower: Follower): void {
    if (!this.#serving) return;
    const spool = this.#parts.spool();
    while (follower.output !== undefined && follower.unread < unreadMax) {
      const offset = Math.max(follower.output, spool.from);
      const bytes = Math.min(outputPieceBytesMax, spool.bytes - offset);
      if (bytes <= 0) break;
      follower.wire.send(1, { type: "output", stream: "stdout", offset, data: zeroes(bytes) }, bytes);
      follower.output = offset + bytes;
      follower.unread += 1;
    }
    if (follower.held === undefined || (follower.output ?? spool.bytes) < spool.bytes) return;
    follower.wire.send(1, follower.held, 200);
    follower.held = undefined;
    follower.gotAll = true;
  }
}

/** So many bytes of nothing, as base64. */
function zeroes(bytes: number): string {
  const padding = (3 - (bytes % 3)) % 3;
  return "A".repeat(Math.ceil(bytes / 3) * 4 - padding) + "=".repeat(padding);
}
