// An agent for tests: speaks the link protocol by protocol/ alone, well or, where a test wants it, badly.
import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import type { ConnectionOptions, TLSSocket } from "node:tls";
import { type ClientOptions, WebSocket } from "ws";
import { decodeFrame, encodeFrame } from "../../protocol/frames.ts";
import { hostIdOf, linkProofBytes, probeBytes } from "../../protocol/link-proof.ts";
import {
  type AgentMessage,
  type ControllerMessage,
  checkControllerMessage,
  exporter,
  subprotocol,
  tlsServerName,
} from "../../protocol/messages.ts";

export interface LinkKey {
  readonly publicKey: Uint8Array;
  sign(data: Uint8Array): Uint8Array;
}

export function newLinkKey(): LinkKey {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const key: KeyObject = createPrivateKey(privateKey.export({ type: "pkcs8", format: "pem" }));
  const spki = publicKey.export({ type: "spki", format: "der" });
  return {
    publicKey: Uint8Array.from(spki.subarray(-32)),
    sign: (data) => Uint8Array.from(sign(null, data, key)),
  };
}

export interface LinkAddress {
  /** https://HOST:PORT */
  readonly url: string;
  /** The pinned CA, PEM. */
  readonly ca: string;
}

export interface Closed {
  readonly code: number;
  readonly reason: string;
}

type Of<T extends ControllerMessage["t"]> = Extract<ControllerMessage, { t: T }>;

export class LinkClient implements Disposable {
  readonly socket: WebSocket;
  readonly closed: Promise<Closed>;
  /** What came and was not taken yet. */
  readonly received: ControllerMessage[] = [];
  /** Asked for a proof of its key within the connection, the client gives one by it; undefined: it is silent. */
  answersWith: LinkKey | undefined;
  #wake: () => void = () => {};
  #ended = false;

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on("message", (data) => {
      const message = checkControllerMessage(decodeFrame(Uint8Array.from(data as Buffer)));
      this.received.push(message);
      if (message.t === "probe" && this.answersWith !== undefined)
        void this.#answer(message.nonce, this.answersWith);
      this.#wake();
    });
    this.closed = new Promise((resolve) =>
      socket.on("close", (code, reason) => {
        this.#ended = true;
        this.#wake();
        resolve({ code, reason: reason.toString() });
      }),
    );
    socket.on("error", () => {});
  }

  /** 32 bytes of this TLS connection. */
  exported(): Uint8Array {
    const tls = (this.socket as unknown as { _socket: TLSSocket })._socket;
    return Uint8Array.from(tls.exportKeyingMaterial(exporter.bytes, exporter.label, Buffer.alloc(0)));
  }

  send(message: AgentMessage): void {
    this.sendRaw(encodeFrame(message));
  }

  sendRaw(data: Uint8Array | string): void {
    this.socket.send(data);
  }

  /** The next message of a type; others before it stay in `received`. Fails when the connection ends or time is up. */
  async next<T extends ControllerMessage["t"]>(type: T, timeoutMs = 30_000): Promise<Of<T>> {
    const until = performance.now() + timeoutMs;
    for (;;) {
      const index = this.received.findIndex((message) => message.t === type);
      if (index >= 0) return this.received.splice(index, 1)[0] as Of<T>;
      const leftMs = until - performance.now();
      if (this.#ended)
        throw new Error(
          `closed while waiting for "${type}"; have ${this.received.map((m) => (m.t === "goaway" ? m.reason : m.t)).join(", ")}`,
        );
      if (leftMs <= 0)
        throw new Error(
          `no "${type}" within ${timeoutMs} ms; have ${this.received.map((m) => (m.t === "goaway" ? m.reason : m.t)).join(", ")}`,
        );
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async #answer(nonce: Uint8Array, key: LinkKey): Promise<void> {
    const signature = key.sign(await probeBytes(nonce, this.exported()));
    if (this.socket.readyState === this.socket.OPEN) this.send({ t: "proof", nonce, signature });
  }

  [Symbol.dispose](): void {
    this.socket.terminate();
  }
}

/** Connects, with the subprotocol, and pins the CA as an agent does. */
export async function openLink(
  address: LinkAddress,
  options: { readonly protocols?: string[] } = {},
): Promise<LinkClient> {
  const tls: ConnectionOptions = { ca: address.ca, servername: tlsServerName, minVersion: "TLSv1.3" };
  // ws hands these on to tls.connect, which its typings do not know.
  const settings: ClientOptions = { ...(tls as object), perMessageDeflate: false, handshakeTimeout: 60_000 };
  const url = `${address.url.replace(/^https/, "wss")}/v1/link`;
  const socket = new WebSocket(url, options.protocols ?? [subprotocol], settings);
  const client = new LinkClient(socket);
  await new Promise<void>((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("error", reject);
  });
  return client;
}

export interface Identity {
  readonly key: LinkKey;
  readonly instance?: string;
  readonly hostname?: string;
  readonly name?: string;
  readonly joinToken?: string;
  readonly bootId?: string;
  readonly previousSession?: string;
  readonly epochSeen?: number;
  /** It does not answer when asked for a proof, like the far end of a connection that is half-open. */
  readonly silent?: boolean;
}

export function helloOf(identity: Identity, nonce: Uint8Array): Extract<AgentMessage, { t: "hello" }> {
  return {
    t: "hello",
    versions: { min: 1, max: 1 },
    agentVersion: "0.0.0-test",
    linkKey: identity.key.publicKey,
    nonce,
    instance: identity.instance ?? "instance-1",
    bootId: identity.bootId ?? "boot-1",
    hostname: identity.hostname ?? "test-host",
    ...(identity.previousSession === undefined ? {} : { previousSession: identity.previousSession }),
    ...(identity.epochSeen === undefined ? {} : { epochSeen: identity.epochSeen }),
  };
}

export interface Joined {
  readonly client: LinkClient;
  readonly welcome: Of<"welcome">;
  readonly host: string;
}

/** Sends hello and a right proof; the caller waits for the welcome or the end. */
export async function prove(client: LinkClient, identity: Identity): Promise<void> {
  client.answersWith = identity.silent === true ? undefined : identity.key;
  const nonce = Uint8Array.from(randomBytes(32));
  const hello = encodeFrame(helloOf(identity, nonce));
  client.sendRaw(hello);
  const challenge = await client.next("challenge");
  const proof = await linkProofBytes({
    agentNonce: nonce,
    controllerNonce: challenge.nonce,
    exported: client.exported(),
    hello,
  });
  client.send({
    t: "auth",
    signature: identity.key.sign(proof),
    ...(identity.joinToken === undefined ? {} : { joinToken: identity.joinToken }),
    ...(identity.name === undefined ? {} : { name: identity.name }),
  });
}

/** Connects and goes through the whole handshake. */
export async function joinLink(address: LinkAddress, identity: Identity): Promise<Joined> {
  const client = await openLink(address);
  await prove(client, identity);
  const welcome = await client.next("welcome");
  return { client, welcome, host: await hostIdOf(identity.key.publicKey) };
}
