// Brings commands to their hosts: what is open is offered once in each session, in order of creation, and so are cancels.
import { decodeCommand } from "../../protocol/commands.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import type { ImageBearers } from "../image-bearers.ts";
import type { Session } from "../link/session.ts";
import type { Sessions } from "../link/sessions.ts";
import type { Log } from "../log.ts";
import type { Store, StoredCommand } from "../store/store.ts";
import type { Clock } from "../system.ts";

export interface DispatchParts {
  readonly store: Pick<Store, "commands" | "epoch">;
  readonly sessions: Sessions;
  readonly bearers: ImageBearers;
  readonly clock: Clock;
  readonly log: Log;
}

export class Dispatcher {
  readonly #parts: DispatchParts;
  /** Sessions being served; true when something new came meanwhile. */
  readonly #serving = new Map<Session, boolean>();
  /** Sessions whose socket was full when there was more to send. */
  readonly #blocked = new WeakSet<Session>();

  constructor(parts: DispatchParts) {
    this.#parts = parts;
  }

  /** Sends the host what is new for it, if it is connected. */
  wake(host: string): void {
    const session = this.#parts.sessions.get(host);
    if (session !== undefined) this.serve(session);
  }

  /** Sends the session all it was not sent yet: after its welcome, after each change, and when its socket has room again. */
  serve(session: Session): void {
    if (this.#serving.has(session)) {
      this.#serving.set(session, true);
      return;
    }
    this.#serving.set(session, false);
    void this.#serve(session);
  }

  // Never rejects. The agent and its executor know a command by its id: what they have already they answer with its state.
  async #serve(session: Session): Promise<void> {
    try {
      do {
        this.#serving.set(session, false);
        for (const open of await this.#parts.store.commands.open(session.host)) {
          if (!session.writable) {
            this.#blocked.add(session);
            break;
          }
          if (!session.offered.has(open.id)) await this.#offer(session, open.id);
          if (
            open.cancelRequestedAt !== null &&
            session.offered.has(open.id) &&
            !session.cancelled.has(open.id)
          ) {
            session.cancelled.add(open.id);
            session.send({ t: "cancel", command: open.id });
          }
        }
      } while (this.#serving.get(session) === true);
    } catch (error) {
      this.#parts.log.error({ err: error, host: session.host }, "commands could not be offered");
      session.close("overloaded", "internal Commands could not be offered.", 5000);
    } finally {
      this.#serving.delete(session);
    }
  }

  async #offer(session: Session, id: string): Promise<void> {
    const { store, clock } = this.#parts;
    const epoch = await store.epoch();
    const command = await store.commands.offer(id, clock.now());
    if (command === undefined) return;
    session.offered.set(id, clock.monotonicMs());
    session.send(
      {
        t: "offer",
        document: command.document,
        signatures: [...command.signatures],
        generation: command.generation ?? 0,
        epoch,
        sources: this.#sources(session, command),
      },
      () => {
        if (this.#blocked.delete(session)) this.serve(session);
      },
    );
  }

  #sources(session: Session, command: StoredCommand): ImageSource[] {
    const decoded = decodeCommand(command.document);
    if (!("image" in decoded.arguments)) return [];
    const root = decoded.arguments.image.root;
    return [
      {
        url: `https://${session.authority}/v1/images/${root}`,
        bearer: this.#parts.bearers.issue(session.host, root),
      },
    ];
  }
}
