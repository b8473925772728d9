// Takes agents' connections at /v1/link: bounds how many there are, lets them prove themselves, runs their sessions.
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { type WebSocket, WebSocketServer } from "ws";
import { hex } from "../../protocol/bytes.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import { limits } from "../../protocol/limits.ts";
import { subprotocol } from "../../protocol/messages.ts";
import { revoked } from "../hosts/standing.ts";
import type { Random } from "../system.ts";
import { Channel } from "./channel.ts";
import { type HandshakeParts, handshake, type Proven } from "./handshake.ts";
import { Session, type SessionParts } from "./session.ts";
import type { Sessions } from "./sessions.ts";

export interface LinkParts extends SessionParts, HandshakeParts {
  readonly store: SessionParts["store"];
  readonly clock: SessionParts["clock"];
  readonly log: SessionParts["log"];
  readonly random: Random;
  readonly sessions: Sessions;
  /** Offers what waits for a host whose session has begun. */
  readonly offer: (session: Session) => void;
  /** The smallest window that agents are told to spread their return over. */
  readonly reconnectWindowMsMin: number;
  /** Where this controller listens, for agents that do not say how they reached it. */
  readonly authority: () => string;
}

/** Connections that have not proved themselves yet: in all, and from one address. */
const unproven = { max: 512, maxOfAddress: 256 } as const;
/** Agents that may return in a second, by the cost of a handshake on one core. */
const agentsPerSecond = 200;

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
  #serving: Set<Promise<void>> = new Set();
  #draining = false;

  constructor(parts: LinkParts) {
    this.#parts = parts;
  }

  /** For the HTTP server's `upgrade` event. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => socket.destroy());
    const refusal = this.#refusal(request, socket);
    if (refusal !== undefined) {
      socket.end(`HTTP/1.1 ${refusal}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
      return;
    }
    this.#webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      const serving = this.#serve(webSocket, socket as TLSSocket, request.headers.host).finally(() =>
        this.#serving.delete(serving),
      );
      this.#serving.add(serving);
    });
  }

  /** The window in which this many agents can come back without queueing. */
  get reconnectWindowMs(): number {
    return Math.max(
      this.#parts.reconnectWindowMsMin,
      Math.ceil((1000 * this.#parts.sessions.count) / agentsPerSecond),
    );
  }

  /** Tells every agent to come back within the window, and waits for them to go. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#draining = true;
    const window = this.reconnectWindowMs;
    for (const channel of this.#channels) channel.close("drain", "the controller stops or restarts", window);
    // A peer that does not answer is cut off after the channel's own grace.
    await Promise.all(this.#serving);
  }

  #refusal(request: IncomingMessage, socket: Duplex): string | undefined {
    if (request.url !== "/v1/link") return "404 Not Found";
    const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",").map((name) => name.trim());
    if (!offered.includes(subprotocol)) return "400 Bad Request";
    if (!(socket instanceof TLSSocket)) return "400 Bad Request";
    const ofAddress = this.#unproven.get(socket.remoteAddress ?? "") ?? 0;
    const all = this.#unproven.values().reduce((sum, count) => sum + count, 0);
    if (this.#draining || all >= unproven.max || ofAddress >= unproven.maxOfAddress) {
      this.#parts.meters.refused += 1;
      return "503 Service Unavailable\r\nretry-after: 5";
    }
    return undefined;
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
      channel.fail(error);
      await channel.ended;
    } finally {
      this.#channels.delete(channel);
    }
  }

  async #prove(channel: Channel): Promise<Proven> {
    const address = channel.address;
    this.#unproven.set(address, (this.#unproven.get(address) ?? 0) + 1);
    using _timeout = this.#parts.clock.after(limits.authSecondsMax * 1000, () =>
      channel.close("authTimeout", "no proof of identity in time"),
    );
    try {
      return await handshake(channel, this.#parts);
    } finally {
      const left = this.#unproven.get(address)! - 1;
      if (left === 0) this.#unproven.delete(address);
      else this.#unproven.set(address, left);
    }
  }

  async #session(channel: Channel, { host, facts }: Proven, authority: string): Promise<void> {
    const { store, sessions, clock, log } = this.#parts;
    const id = hex(this.#parts.random.bytes(16));
    if (channel.closing) return;
    const session = new Session(
      channel,
      { id, host: host.id, instance: facts.instance, authority },
      this.#parts,
    );
    const attached = sessions.attach(session, clock.monotonicMs());
    if (attached !== "attached") {
      log.warn(
        { host: host.id, instance: facts.instance, address: channel.address },
        "two agents with the same key and different state are connected: one is a copy",
      );
      await store.events.append({ topic: "host", id: host.id, event: "duplicate" }, clock.now());
    }
    if (attached === "too-soon") {
      channel.close("overloaded", "another copy of this agent is connected", 30_000);
      return channel.ended;
    }
    try {
      // The session before may have handed over batches that are not stored yet: this one would take their numbers again.
      await this.#parts.writer.settled(host.id);
      // Revoked since its proof was checked: the transaction that says so is the one that counts.
      const { standing, ...marks } = await store.hosts.connected(host.id, id, facts, clock.now());
      if (standing === "revoked") throw revoked(host);
      session.welcome({
        t: "welcome",
        session: id,
        host: host.id,
        name: host.name,
        at: clock.now(),
        heartbeatMs: this.#parts.heartbeatMs,
        reconnectWindowMs: this.reconnectWindowMs,
        ...marks,
        standing,
      });
      log.info(
        {
          ...{ host: host.id, name: host.name, session: id, standing, address: channel.address },
          fingerprint: fingerprintOf(host.id),
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
}
