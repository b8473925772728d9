// Brings commands to their hosts: sends each session what the rules say is due, in the order in which the store marked it.
import Type from "typebox";
import { Check } from "typebox/value";
import { textOf } from "../../protocol/bytes.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import { Digest } from "../../protocol/schema.ts";
import type { ImageBearers } from "../images/image-bearers.ts";
import type { ImageMirrors } from "../images/image-mirrors.ts";
import type { Session } from "../link/session.ts";
import type { Sessions } from "../link/sessions.ts";
import type { Log } from "../machine/log.ts";
import type { Clock } from "../machine/system.ts";
import { waitedOutBefore } from "../rules/retention.ts";
import type {
  CommandStore,
  DueOffers,
  NewCommand,
  SessionNow,
  StoredCommand,
} from "../store/command-store.ts";
import type { Store } from "../store/store.ts";

export interface DispatchParts {
  readonly store: Pick<Store, "commands" | "events">;
  readonly sessions: Sessions;
  readonly bearers: ImageBearers;
  readonly mirrors: Pick<ImageMirrors, "sourcesOf">;
  readonly clock: Clock;
  readonly log: Log;
  /** By which time a command has waited too long to be sent; absent: by the clock. */
  readonly agesBy?: () => number;
}

/** Checked when it was taken; what another version took is offered all the same, and its host says what is wrong with it. */
const ImageDocument = Type.Object({
  arguments: Type.Object({ image: Type.Object({ root: Digest }) }),
});

/** A session that waits for room is looked at again so long after something happened, and at the latest each `retryMs`. */
const nudgeMs = 20;
const retryMs = 1000;

export class Dispatcher implements Disposable {
  readonly #parts: DispatchParts;
  /** Sessions being served, one round at a time, so that what is marked first is sent first; true: something new came. */
  readonly #serving = new Map<Session, boolean>();
  /** Sessions that were not sent everything: their socket is full, or their agent has not confirmed what it was offered. */
  readonly #waiting = new Set<Session>();
  readonly #following: Disposable;
  readonly #retrying: Disposable;
  #nudge: Disposable | undefined;

  constructor(parts: DispatchParts) {
    this.#parts = parts;
    this.#following = parts.store.events.follow(() => this.#nudgeSoon());
    this.#retrying = parts.clock.every(retryMs, () => this.#serveWaiting());
  }

  [Symbol.dispose](): void {
    this.#following[Symbol.dispose]();
    this.#retrying[Symbol.dispose]();
    this.#nudge?.[Symbol.dispose]();
    this.#waiting.clear();
  }

  /** Sends the host what is new for it, if it is connected. */
  wake(host: string): void {
    const session = this.#parts.sessions.get(host);
    if (session !== undefined) this.serve(session);
  }

  /** Sends the session all it was not sent yet: after its welcome, after each change, and when there is room again. */
  serve(session: Session): void {
    if (this.#serving.has(session)) {
      this.#serving.set(session, true);
      return;
    }
    void this.#serve(session);
  }

  /**
   * Takes a command. Where its host is connected and nothing is on its way to it, it is offered in the same transaction,
   * which saves the command a wait for the disk.
   */
  async create(command: NewCommand): ReturnType<CommandStore["create"]> {
    const { store, sessions } = this.#parts;
    const session = sessions.get(command.host);
    if (session === undefined || this.#serving.has(session) || !session.writable) {
      const answer = await store.commands.create(command);
      if (answer.status === "created") this.wake(command.host);
      return answer;
    }
    this.#serving.set(session, false);
    let more = false;
    try {
      const answer = await store.commands.create(command, this.#now(session));
      if (answer.status === "created") more = this.#send(session, answer.due) === "more";
      return answer;
    } finally {
      more ||= this.#serving.get(session) === true;
      this.#serving.delete(session);
      if (more) this.serve(session);
    }
  }

  // Never rejects. The agent and its executor know a command by its id: what they have already they answer with its state.
  async #serve(session: Session): Promise<void> {
    const { store, clock, log } = this.#parts;
    this.#waiting.delete(session);
    try {
      for (let more = true; more && !session.closing; ) {
        if (!session.writable) {
          this.#waiting.add(session);
          return;
        }
        this.#serving.set(session, false);
        const due = await store.commands.offerDue(session.host, this.#now(session), clock.now());
        more = this.#send(session, due) === "more" || this.#serving.get(session) === true;
      }
    } catch (error) {
      log.error({ err: error, host: session.host }, "commands could not be offered");
      session.close("overloaded", "internal Commands could not be offered.", 5000);
    } finally {
      this.#serving.delete(session);
    }
  }

  /** What is due is marked as sent already. Never throws: a session that cannot be sent it is closed, and comes again. */
  #send(session: Session, due: DueOffers): "all" | "more" {
    const { clock, log } = this.#parts;
    try {
      for (const step of due.steps) {
        if (step.step === "offer") {
          session.offered.set(step.command.id, clock.monotonicMs());
          this.#offer(session, step.command, due.epoch);
        } else if (step.step === "pause" || step.step === "resume") {
          const paused = step.step === "pause";
          session.paused.set(step.id, paused);
          session.send({ t: "pause", command: step.id, paused });
        } else {
          session.cancelled.add(step.id);
          const ifKnown = step.step === "cancel-known" ? ({ ifKnown: true } as const) : {};
          session.send({ t: "cancel", command: step.id, ...ifKnown });
        }
      }
    } catch (error) {
      log.error({ err: error, host: session.host }, "commands could not be offered");
      session.close("overloaded", "internal Commands could not be offered.", 5000);
    }
    if (due.rest === "in-flight" && !session.closing) this.#waiting.add(session);
    return due.rest === "next-round" && !session.closing ? "more" : "all";
  }

  #offer(session: Session, command: StoredCommand, epoch: number): void {
    session.send(
      {
        t: "offer",
        document: command.document,
        signatures: command.signatures.map(({ text }) => text),
        generation: command.generation ?? 0,
        epoch,
        sources: this.#sources(session, command),
      },
      () => {
        if (this.#waiting.has(session)) this.#nudgeSoon();
      },
    );
  }

  #sources(session: Session, command: StoredCommand): ImageSource[] {
    const document: unknown = JSON.parse(textOf(command.document));
    if (!Check(ImageDocument, document)) return [];
    const { root } = document.arguments.image;
    return this.#parts.mirrors.sourcesOf(root, {
      url: `https://${session.authority}/v1/images/${root}`,
      bearer: this.#parts.bearers.issue({ host: session.host, root, command: command.id }),
    });
  }

  #now(session: Session): SessionNow {
    const { offered, cancelled, paused } = session;
    const { clock, agesBy = () => clock.now() } = this.#parts;
    const takenBefore = waitedOutBefore(agesBy());
    return { offered, cancelled, paused, nowMs: clock.monotonicMs(), takenBefore };
  }

  #nudgeSoon(): void {
    if (this.#waiting.size === 0) return;
    this.#nudge ??= this.#parts.clock.after(nudgeMs, () => {
      this.#nudge = undefined;
      this.#serveWaiting();
    });
  }

  #serveWaiting(): void {
    for (const session of [...this.#waiting]) {
      if (session.closing) this.#waiting.delete(session);
      else this.serve(session);
    }
  }
}
