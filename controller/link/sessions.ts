// Which session serves which host now: the newest, one at a time.
import type { Session } from "./session.ts";

export class Sessions {
  readonly #byHost = new Map<string, Session>();

  get count(): number {
    return this.#byHost.size;
  }

  get(host: string): Session | undefined {
    return this.#byHost.get(host);
  }

  all(): readonly Session[] {
    return [...this.#byHost.values()];
  }

  /** Makes `session` the one of its host; the one before is closed. */
  attach(session: Session): void {
    const before = this.#byHost.get(session.host);
    this.#byHost.set(session.host, session);
    before?.close("replaced", "a newer connection of this host took over");
  }

  /** Forgets a session that ended, unless a newer one took its place. */
  detach(session: Session): void {
    if (this.#byHost.get(session.host) === session) this.#byHost.delete(session.host);
  }
}
