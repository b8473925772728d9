// The authority while the controller runs: changed with an overlap, one step at a time, and told to all who must know.
import type { RotationView } from "../../protocol/api.ts";
import type { Log } from "../machine/log.ts";
import type { Clock, Random } from "../machine/system.ts";
import type { Store } from "../store/store.ts";
import { type Authority, beginRotation, finishRotation, openAuthority } from "./authority.ts";

export interface AuthorityKeeperParts {
  readonly directory: string;
  /** Names that the server's certificate is for. */
  readonly names: readonly string[];
  readonly store: Pick<Store, "hosts" | "events">;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export class AuthorityKeeper {
  readonly #parts: AuthorityKeeperParts;
  readonly #followers = new Set<(authority: Authority) => Promise<void>>();
  #current: Authority;
  #changing: Promise<unknown> = Promise.resolve();

  private constructor(parts: AuthorityKeeperParts, current: Authority) {
    this.#parts = parts;
    this.#current = current;
  }

  /** @throws `state.unsafe` */
  static async open(parts: AuthorityKeeperParts): Promise<AuthorityKeeper> {
    return new AuthorityKeeper(parts, await openAuthority(parts.directory, parts.names, parts.random));
  }

  get current(): Authority {
    return this.#current;
  }

  /** Calls `follower` after each change, and waits for it. */
  follow(follower: (authority: Authority) => Promise<void>): void {
    this.#followers.add(follower);
  }

  /** @throws `authority.overlapping` */
  rotate(): Promise<RotationView> {
    const { directory, random, clock } = this.#parts;
    return this.#change("begun", () => beginRotation(directory, random, clock.now()));
  }

  /** @throws `authority.not-overlapping` */
  finish(): Promise<RotationView> {
    return this.#change("finished", () => finishRotation(this.#parts.directory));
  }

  async view(): Promise<RotationView> {
    const { rotation, trusted, caSha256 } = this.#current;
    const hosts = rotation.state === "none" ? [] : await this.#parts.store.hosts.list();
    return {
      state: rotation.state,
      startedAt: rotation.startedAt,
      authorities: [...trusted],
      waiting: hosts
        .filter(({ standing, authority }) => standing !== "revoked" && authority !== caSha256)
        .map(({ id, name, lastSeenAt }) => ({ id, name, lastSeenAt })),
    };
  }

  #change(what: "begun" | "finished", step: () => Promise<void>): Promise<RotationView> {
    const changed = this.#changing.then(async () => {
      const { directory, names, random, store, clock, log } = this.#parts;
      await step();
      this.#current = await openAuthority(directory, names, random);
      const { caSha256 } = this.#current;
      await store.events.append(
        { topic: "controller", id: caSha256.slice(0, 16), event: "authority" },
        clock.now(),
      );
      log.info({ caSha256, trusted: this.#current.trusted }, `a change of the authority was ${what}`);
      for (const follower of this.#followers) await follower(this.#current);
      return this.view();
    });
    this.#changing = changed.catch(() => undefined);
    return changed;
  }
}
