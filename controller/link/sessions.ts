// Which session serves which host now: the newest, one at a time.
import type { Session } from "./session.ts";

/** Two copies of one agent may not take the host from each other faster than this. */
const takeoverIntervalMs = 30_000;

export class Sessions {
  readonly #byHost = new Map<string, Session>();
  readonly #takeovers = new Map<string, number>();

  get count(): number {
    return this.#byHost.size;
  }

  get(host: string): Session | undefined {
    return this.#byHost.get(host);
  }

  all(): readonly Session[] {
    return [...this.#byHost.values()];
  }

  /**
   * Makes `session` the one of its host; the one before is closed. `duplicate`: that one was another instance and alive,
   * so somebody copied the agent's state. `too-soon`: such a copy came again at once; the session there stays.
   */
  attach(session: Session, atMs: number): "attached" | "duplicate" | "too-soon" {
    const before = this.#byHost.get(session.host);
    const duplicate = before !== undefined && before.instance !== session.instance && before.alive;
    if (duplicate) {
      const last = this.#takeovers.get(session.host);
      if (last !== undefined && atMs - last < takeoverIntervalMs) return "too-soon";
      this.#takeovers.set(session.host, atMs);
    }
    this.#byHost.set(session.host, session);
    before?.close("replaced", "a newer connection of this host took over");
    return duplicate ? "duplicate" : "attached";
  }

  /** Forgets a session that ended, unless a newer one took its place. */
  detach(session: Session): void {
    if (this.#byHost.get(session.host) === session) this.#byHost.delete(session.host);
  }
}
