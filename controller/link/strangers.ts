// Who has not said who it is: how often one address may connect and ask, and how many connections are held open for it.
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { AddressBuckets, bucketOf } from "./token-bucket.ts";

/** What one address may begin, before TLS is spoken. As many agents as can return by `scale` may be behind one. */
const connectionsOfAddress = { burst: 1024, perSecond: 400 } as const;
/** What one address may ask without a token. Agents that join ask for /v1/ca, each once. */
const requestsOfAddress = { burst: 512, perSecond: 100 } as const;
/** A refused proof costs as much as so many, and so does a copy of a host's key, for which others are asked. */
export const refusedProofCost = 16;
/** Connections that have shown neither a token nor that they are a link: in all, and from one address. */
const openMax = 2048;
const openOfAddressMax = 512;

interface Stranger {
  readonly socket: Socket;
  readonly network: string;
}

/** Addresses are told apart as buckets tell them apart: those of version 6 by their network of 64 bits. */
export class Strangers {
  readonly #monotonicMs: () => number;
  readonly #knocks = new AddressBuckets(connectionsOfAddress);
  readonly #requests = new AddressBuckets(requestsOfAddress);
  /** By the peer's address and port: what TLS makes of a socket is another object. In order of arrival. */
  readonly #open = new Map<string, Stranger>();
  readonly #ofNetwork = new Map<string, Set<string>>();

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs;
  }

  /** Connections that are open and whose peer is not known. */
  get size(): number {
    return this.#open.size;
  }

  /**
   * For the server's `connection` event, which comes before TLS. Who connects too often costs no handshake. Where too many
   * are open, the oldest makes room, which has had the most time: who holds on to its connections keeps nobody else out.
   */
  arrive(socket: Duplex): "taken" | "refused" {
    const address = socket instanceof Socket ? socket.remoteAddress : undefined;
    if (address === undefined || this.#knocks.take(address, this.#monotonicMs()) > 0) {
      socket.destroy();
      return "refused";
    }
    const [key, network] = [keyOf(socket as Socket), bucketOf(address)];
    const stranger = { socket: socket as Socket, network };
    this.#forget(key);
    const others = this.#ofNetwork.get(network) ?? new Set();
    if (others.size >= openOfAddressMax) this.#evict(others.values().next().value!);
    if (this.#open.size >= openMax) this.#evict(this.#open.keys().next().value!);
    this.#open.set(key, stranger);
    this.#ofNetwork.set(network, others.add(key));
    socket.once("close", () => {
      if (this.#open.get(key) === stranger) this.#forget(key);
    });
    return "taken";
  }

  /** The peer has said who it is, or is a link, which has bounds of its own. */
  known(socket: Socket): void {
    this.#forget(keyOf(socket));
  }

  /** @returns 0, or how many milliseconds to wait before such a request is looked at */
  ask(address: string, cost = 1): number {
    return this.#requests.take(address, this.#monotonicMs(), cost);
  }

  #evict(key: string): void {
    const { socket } = this.#open.get(key)!;
    this.#forget(key);
    socket.destroy();
  }

  #forget(key: string): void {
    const stranger = this.#open.get(key);
    if (stranger === undefined) return;
    this.#open.delete(key);
    const others = this.#ofNetwork.get(stranger.network)!;
    others.delete(key);
    if (others.size === 0) this.#ofNetwork.delete(stranger.network);
  }
}

function keyOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
