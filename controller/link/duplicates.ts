// Two connections with one host's key: asks both who they are, and tells everyone who is concerned when they are two machines.
import { BedplateError } from "../../protocol/errors.ts";
import type { Log } from "../machine/log.ts";
import type { Clock } from "../machine/system.ts";
import type { HostStore, StoredHost } from "../store/host-store.ts";
import { contest, verdictOf } from "./contest.ts";
import type { Session } from "./session.ts";
import type { Sessions } from "./sessions.ts";

export interface DuplicatesParts {
  readonly hosts: Pick<HostStore, "quarantine">;
  readonly sessions: Sessions;
  readonly clock: Clock;
  readonly log: Log;
}

/** Connections of one host that wait for their turn to be judged. */
const waitingMax = 4;

export class Duplicates {
  readonly #parts: DuplicatesParts;
  readonly #turns = new Map<string, { waiting: number; last: Promise<unknown> }>();

  constructor(parts: DuplicatesParts) {
    this.#parts = parts;
  }

  /**
   * Attaches the session as its host's, once that is settled with the one that is there: at most some seconds.
   * Nothing is attached when the session ended meanwhile.
   * @throws `host.quarantined` when both are alive
   */
  async admit(session: Session, host: StoredHost, previousSession: string | undefined): Promise<void> {
    const turn = this.#turns.get(session.host) ?? { waiting: 0, last: Promise.resolve() };
    if (turn.waiting >= waitingMax) {
      session.close("overloaded", "other connections with this host's key come first", 30_000);
      return;
    }
    turn.waiting += 1;
    this.#turns.set(session.host, turn);
    const mine = turn.last.then(() => this.#judge(session, host, previousSession));
    turn.last = mine.catch(() => undefined);
    try {
      await mine;
    } finally {
      turn.waiting -= 1;
      if (turn.waiting === 0) this.#turns.delete(session.host);
    }
  }

  async #judge(session: Session, host: StoredHost, previousSession: string | undefined): Promise<void> {
    const { sessions } = this.#parts;
    const present = sessions.get(session.host);
    if (
      present === undefined ||
      contest({ ...present.contender, alive: present.alive }, { ...session.contender, previousSession }) ===
        "supersede"
    ) {
      if (!session.closing) sessions.attach(session);
      return;
    }
    // Who is asked first must not be the one who is heard first: both at once.
    const [presentAnswered, newcomerAnswered] = await Promise.all([present.probe(), session.probe()]);
    switch (verdictOf({ present: presentAnswered, newcomer: newcomerAnswered })) {
      case "newcomer":
        if (!session.closing) sessions.attach(session);
        return;
      case "present":
        session.close("silent", "asked for a proof that it has the key, it did not answer");
        return;
      case "both":
        return this.#quarantine(present, session, host);
    }
  }

  async #quarantine(present: Session, session: Session, { name }: StoredHost): Promise<never> {
    const { hosts, clock, log } = this.#parts;
    const machines = [present, session].map(({ contender, address }) => ({
      instance: contender.instance,
      bootId: contender.bootId,
      address,
    }));
    const { standing } = await hosts.quarantine(session.host, machines, clock.now());
    log.error(
      { host: session.host, name, code: "host.quarantined", machines },
      "two machines answer with the key of one host: one is a copy",
    );
    if (standing === "quarantined") present.changed({ standing });
    throw new BedplateError(
      "host.quarantined",
      "Two machines answer with this host's key, and the other was there first. If this one is a copy, remove its state directory and join it anew with a token of its own.",
    );
  }
}
