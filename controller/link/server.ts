// Takes agents' connections at /v1/link: bounds how many there are, lets them prove themselves, runs their sessions.
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { type WebSocket, WebSocketServer } from "ws";
import { hex } from "../../protocol/bytes.ts";
import { assert, BedplateError, reportOf } from "../../protocol/errors.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import { limits } from "../../protocol/limits.ts";
import { subprotocol } from "../../protocol/messages.ts";
import type { AuditKey } from "../authority/audit-key.ts";
import type { Authority } from "../authority/authority.ts";
import type { Random } from "../machine/system.ts";
import { revoked } from "../rules/standing.ts";
import type { Connected, StoredHost } from "../store/host-store.ts";
import { Channel } from "./channel.ts";
import { Duplicates } from "./duplicates.ts";
import { Fleet } from "./fleet.ts";
import { type HandshakeParts, handshake, type Proven } from "./handshake.ts";
import { heartbeatMsFor, returnWindowMsFor } from "./scale.ts";
import { Session, type SessionParts, type WelcomeMessage } from "./session.ts";
import type { Sessions } from "./sessions.ts";
import { refusedProofCost, type Strangers } from "./strangers.ts";
import { AddressBuckets, bucketOf } from "./token-bucket.ts";

export interface LinkParts extends SessionParts, Omit<HandshakeParts, "trusted"> {
  readonly store: SessionParts["store"];
  readonly clock: SessionParts["clock"];
  readonly log: SessionParts["log"];
  readonly random: Random;
  readonly auditKey: AuditKey;
  readonly sessions: Sessions;
  readonly strangers: Strangers;
  /** As configured; longer for a large fleet. */
  readonly heartbeatMs: number;
  /** As it is now. */
  readonly trustedAuthority: () => Authority;
  /** Offers what waits for a host whose session has begun. */
  readonly offer: (session: Session) => void;
  /** The smallest window that agents are told to spread their return over. */
  readonly reconnectWindowMsMin: number;
  /** Where this controller listens, for agents that do not say how they reached it. */
  readonly authority: () => string;
}

/** Connections that have not proved themselves yet: in all, and from one address, as buckets tell them apart. */
const unproven = { max: 512, maxOfAddress: 256 } as const;
/** Links that one address may begin. As many as can return by `scale`. */
const linksOfAddress = { burst: 512, perSecond: 200 } as const;
/** After this a peer that was refused and does not close is cut off. */
const refusedGraceMs = 1000;
/** An agent that has not answered by then is noted as told when it does. */
const authorityPatienceMs = 2000;

export class LinkServer implements AsyncDisposable {
  readonly #parts: LinkParts;
  readonly #webSockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    clientTracking: false,
    autoPong: false,
    // The frame meter closes before this is reached, with our own code.
    maxPayload: limits.frameBytesMax,
    maxFragments: 128,
    maxBufferedChunks: 8192,
    handleProtocols: (offered) => (offered.has(subprotocol) ? subprotocol : false),
  });
  readonly #unproven = new Map<string, number>();
  readonly #channels = new Set<Channel>();
  readonly #links = new AddressBuckets(linksOfAddress);
  readonly #fleet: Fleet;
  readonly #duplicates: Duplicates;
  #serving: Set<Promise<void>> = new Set();
  #draining = false;

  constructor(parts: LinkParts) {
    this.#parts = parts;
    const { sessions, clock, log } = parts;
    this.#fleet = new Fleet({ hosts: parts.store.hosts, sessions, clock });
    this.#duplicates = new Duplicates({ hosts: parts.store.hosts, sessions, clock, log });
  }

  /** For the server's `connection` event. */
  connection(socket: Duplex): void {
    if (this.#parts.strangers.arrive(socket) === "refused") this.#parts.meters.refused += 1;
  }

  /** For the HTTP server's `upgrade` event. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => socket.destroy());
    const refusal = this.#refusal(request, socket);
    if (refusal !== undefined) {
      this.#turnAway(socket, refusal);
      return;
    }
    this.#parts.strangers.known(socket as TLSSocket);
    this.#webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      const serving = this.#serve(webSocket, socket as TLSSocket, request.headers.host).finally(() =>
        this.#serving.delete(serving),
      );
      this.#serving.add(serving);
    });
  }

  /** The window in which this many agents can come back without queueing. */
  get reconnectWindowMs(): number {
    return returnWindowMsFor(this.#fleet.size, this.#parts.reconnectWindowMsMin);
  }

  /** Tells every agent to come back within the window, and waits for them to go. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#draining = true;
    const window = this.reconnectWindowMs;
    for (const channel of this.#channels) channel.close("drain", "the controller stops or restarts", window);
    // A peer that does not answer is cut off after the channel's own grace.
    await Promise.all(this.#serving);
  }

  /** Tells every agent which authorities to trust from now on; resolves when those that answer have got it. */
  async tellAuthority(): Promise<void> {
    const { sessions, clock, trustedAuthority, log } = this.#parts;
    const { promise: late, resolve } = Promise.withResolvers<void>();
    using _patience = clock.after(authorityPatienceMs, resolve);
    const told = sessions.all().map((session) => session.tellAuthority(trustedAuthority()));
    for (const each of await Promise.race([Promise.allSettled(told), late.then(() => [])]))
      if (each.status === "rejected") log.error({ err: each.reason }, "not noted that a host knows");
  }

  // The HTTP server has let go of the socket: nobody else would ever end one whose peer does not.
  #turnAway(socket: Duplex, refusal: string): void {
    const cut = this.#parts.clock.after(refusedGraceMs, () => socket.destroy());
    socket.once("close", () => cut[Symbol.dispose]());
    // Read, so that the peer's own end is seen.
    socket.resume();
    socket.end(`HTTP/1.1 ${refusal}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
  }

  #refusal(request: IncomingMessage, socket: Duplex): string | undefined {
    if (request.url !== "/v1/link") return "404 Not Found";
    const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",").map((name) => name.trim());
    if (!offered.includes(subprotocol)) return "400 Bad Request";
    if (!(socket instanceof TLSSocket)) return "400 Bad Request";
    const address = socket.remoteAddress ?? "";
    const ofAddress = this.#unproven.get(bucketOf(address)) ?? 0;
    const all = this.#unproven.values().reduce((sum, count) => sum + count, 0);
    const waitMs =
      this.#draining || all >= unproven.max || ofAddress >= unproven.maxOfAddress
        ? limits.authSecondsMax * 1000
        : this.#links.take(address, this.#parts.clock.monotonicMs());
    if (waitMs === 0) return undefined;
    this.#parts.meters.refused += 1;
    return `503 Service Unavailable\r\nretry-after: ${Math.ceil(waitMs / 1000)}`;
  }

  async #serve(webSocket: WebSocket, socket: TLSSocket, hostHeader: string | undefined): Promise<void> {
    const { clock, log, meters } = this.#parts;
    const channel = new Channel({ webSocket, socket, clock, log, meters });
    this.#channels.add(channel);
    try {
      const proven = await this.#prove(channel);
      const authority =
        hostHeader !== undefined && /^[A-Za-z0-9.:[\]-]{1,261}$/.test(hostHeader)
          ? hostHeader
          : this.#parts.authority();
      await this.#session(channel, proven, authority);
    } catch (error) {
      const { code } = reportOf(error);
      if (code === "host.quarantined" || code === "host.copy")
        this.#links.charge(channel.address, clock.monotonicMs(), refusedProofCost);
      channel.fail(error);
      await channel.ended;
    } finally {
      this.#channels.delete(channel);
    }
  }

  async #prove(channel: Channel): Promise<Proven> {
    const address = channel.address;
    const network = bucketOf(address);
    this.#unproven.set(network, (this.#unproven.get(network) ?? 0) + 1);
    using _timeout = this.#parts.clock.after(limits.authSecondsMax * 1000, () =>
      channel.close("authTimeout", "no proof of identity in time"),
    );
    try {
      return await handshake(channel, {
        ...this.#parts,
        trusted: () => this.#parts.trustedAuthority().trusted,
      });
    } catch (error) {
      if (reportOf(error).code !== "agent.offline")
        this.#links.charge(address, this.#parts.clock.monotonicMs(), refusedProofCost);
      throw error;
    } finally {
      const left = this.#unproven.get(network)! - 1;
      if (left === 0) this.#unproven.delete(network);
      else this.#unproven.set(network, left);
    }
  }

  async #session(
    channel: Channel,
    { host, facts, previousSession }: Proven,
    authority: string,
  ): Promise<void> {
    const { store, sessions, clock, log } = this.#parts;
    const id = hex(this.#parts.random.bytes(16));
    const fleet = await this.#fleet.count();
    if (channel.closing) return;
    const { instance, bootId } = facts;
    const heartbeatMs = heartbeatMsFor(fleet, this.#parts.heartbeatMs);
    const session = new Session(channel, { id, host, instance, bootId, authority, heartbeatMs }, this.#parts);
    try {
      if (await store.hosts.isCopy(host.id, facts)) throw copied(host);
      await this.#duplicates.admit(session, host, previousSession);
    } catch (error) {
      // It may be the one that runs what is to be cancelled: to stop is never a danger, and it is heard of no other way.
      for (const command of await store.commands.cancelling(host.id))
        session.send({ t: "cancel", command, ifKnown: true });
      throw error;
    }
    if (sessions.get(host.id) !== session) return channel.ended;
    try {
      // The session before may have handed over batches that are not stored yet: this one would take their numbers again.
      await this.#parts.writer.settled(host.id);
      // Revoked, or called a copy, since its proof was checked: the transaction that says so is the one that counts.
      const connected = await store.hosts.connected(host.id, id, facts, clock.now());
      if (connected.standing === "revoked") throw revoked(host);
      if (connected.copy) throw copied(host);
      this.#welcome(session, host, connected);
      log.info(
        {
          ...{ host: host.id, name: host.name, session: id, standing: connected.standing },
          ...{ address: channel.address, fingerprint: fingerprintOf(host.id) },
        },
        "an agent connected",
      );
      this.#parts.offer(session);
      await session.run();
    } finally {
      sessions.detach(session);
      await store.hosts.disconnected(host.id, id, clock.now());
      log.info({ host: host.id, session: id }, "an agent's connection ended");
    }
  }

  #welcome(session: Session, host: StoredHost, connected: Connected): void {
    const { auditKey, clock, trustedAuthority, log } = this.#parts;
    const { standing, records, samples, identity, newestHead } = connected;
    assert(standing !== "revoked", "a revoked host is not welcome");
    const message: WelcomeMessage = {
      ...{ t: "welcome", session: session.id, host: host.id, name: host.name, at: clock.now() },
      ...{ heartbeatMs: session.heartbeatMs, reconnectWindowMs: this.reconnectWindowMs },
      ...{ records, samples, standing, creditBytes: limits.creditBytes, auditKey: auditKey.line },
      ...(identity === null ? {} : { identity: identity.digest }),
    };
    session.welcome(message, identity?.identity.attestationKey);
    if (newestHead !== undefined)
      session.send({
        ...{ t: "audit-head", seq: newestHead.seq, hash: newestHead.hash },
        signature: newestHead.countersignature,
      });
    const authority = trustedAuthority();
    // Who was away when the authority changed hears of it now.
    if (authority.rotation.state !== "none") {
      session
        .tellAuthority(authority)
        .catch((error: unknown) => log.error({ err: error, host: host.id }, "not noted that a host knows"));
    }
  }
}

function copied({ name }: Pick<StoredHost, "name">): BedplateError {
  return new BedplateError(
    "host.copy",
    `A person has said that another machine with this key is ${name}, and this one a copy. Remove its state directory, and join it anew with a token of its own.`,
  );
}
