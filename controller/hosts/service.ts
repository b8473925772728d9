// What the API asks of hosts: approve, reject, revoke, rename; the connections follow what the store has decided.
import { BedplateError } from "../../protocol/errors.ts";
import type { Sessions } from "../link/sessions.ts";
import type { Log } from "../machine/log.ts";
import type { Clock } from "../machine/system.ts";
import type { StandingEvent } from "../rules/standing.ts";
import type { StoredHost } from "../store/host-store.ts";
import type { Store } from "../store/store.ts";

export interface HostServiceParts {
  readonly store: Pick<Store, "hosts">;
  readonly sessions: Sessions;
  /** Brings commands to a host that may be sent more now. */
  readonly dispatcher: { wake(host: string): void };
  readonly clock: Clock;
  readonly log: Log;
}

export class HostService {
  readonly #parts: HostServiceParts;

  constructor(parts: HostServiceParts) {
    this.#parts = parts;
  }

  /** @throws what reduceStanding throws; `host.unknown`, `enrol.token-used` */
  async setStanding(id: string, event: StandingEvent): Promise<StoredHost> {
    const { store, sessions, dispatcher, clock, log } = this.#parts;
    const answer = await store.hosts.setStanding(id, event, clock.now());
    if (answer === undefined) throw new BedplateError("host.unknown", `There is no host ${id}.`);
    const { host, replaced } = answer;
    log.info({ host: id, name: host.name, standing: host.standing, replaced }, `host: ${event.type}`);
    if (host.standing === "revoked") shutOut(sessions, id);
    if (replaced !== null) shutOut(sessions, replaced);
    if (host.standing === "approved") {
      sessions.get(id)?.changed({ standing: "approved" });
      dispatcher.wake(id);
    }
    return host;
  }

  /**
   * Of the machines that have the host's key the named one is the true one; a connection of another is closed.
   * @throws `host.unknown`, what `HostStore.release` throws
   */
  async release(id: string, named: string): Promise<StoredHost> {
    const { store, sessions, dispatcher, clock, log } = this.#parts;
    const answer = await store.hosts.release(id, named, clock.now());
    if (answer === undefined) throw new BedplateError("host.unknown", `There is no host ${id}.`);
    const { host, chosen } = answer;
    log.info({ host: id, name: host.name, ...chosen }, "a host was released from its quarantine");
    const session = sessions.get(id);
    if (session === undefined) return host;
    if (await store.hosts.isCopy(id, session.contender)) {
      session.close(
        "duplicate",
        "host.copy A person has said that another machine with this key is the host.",
      );
      return host;
    }
    if (host.standing !== "revoked") session.changed({ standing: host.standing });
    dispatcher.wake(id);
    return host;
  }

  /** @throws `host.name-taken` */
  async rename(id: string, name: string): Promise<StoredHost> {
    const { store, clock, log } = this.#parts;
    if ((await store.hosts.rename(id, name, clock.now())) === "taken")
      throw new BedplateError("host.name-taken", `Another host is called ${name}.`);
    log.info({ host: id, name }, "a host was renamed");
    return (await store.hosts.get(id))!;
  }
}

/** Ends the connection of a host whose key is revoked. Others are not touched. */
export function shutOut(sessions: Sessions, host: string): void {
  sessions.get(host)?.close("revoked", "enrol.host-revoked The key of this host was revoked.");
}
