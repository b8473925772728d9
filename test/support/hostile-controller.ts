// A controller for tests that has the true CA and key, and then does what a test wants: well or, mostly, badly.
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { type WebSocket, WebSocketServer } from "ws";
import { openAuthority } from "../../controller/authority/authority.ts";
import { decodeFrame, encodeFrame } from "../../protocol/frames.ts";
import { hostIdOf, linkProofBytes, verifyEd25519 } from "../../protocol/link-proof.ts";
import {
  type AgentMessage,
  type ControllerMessage,
  checkAgentMessage,
  exporter,
  subprotocol,
} from "../../protocol/messages.ts";
import type { Closed } from "./link-client.ts";

type Of<T extends AgentMessage["t"]> = Extract<AgentMessage, { t: T }>;
type Welcome = Extract<ControllerMessage, { t: "welcome" }>;

/** One agent's connection. */
export interface AgentPeer {
  /** The TLS connection beneath, for broken framing. */
  readonly tls: TLSSocket;
  readonly socket: WebSocket;
  readonly closed: Promise<Closed>;
  readonly open: boolean;
  /** What the agent sent though no agent may. */
  readonly violations: readonly Error[];
  /** Messages that came and were not taken; bounded, the oldest go. */
  readonly received: AgentMessage[];
  /** The next message of a type; undefined when the connection ends or time is up. */
  next<T extends AgentMessage["t"]>(type: T, timeoutMs?: number): Promise<Of<T> | undefined>;
  send(message: ControllerMessage): void;
  sendRaw(bytes: Uint8Array): void;
  /** Takes the hello and challenges; the host's id when its proof holds. */
  prove(epoch?: number): Promise<string | undefined>;
}

export interface HostileController extends AsyncDisposable {
  readonly url: string;
  readonly ca: string;
  /** For hosts that are to pin this CA. */
  readonly joinToken: string;
  /** What befalls each connection; the connection is cut when it returns. */
  serve(scene: (peer: AgentPeer) => Promise<void>): void;
  readonly connections: number;
}

const receivedMax = 10_000;

export async function openHostileController(): Promise<HostileController> {
  const directory = await mkdtemp(join(tmpdir(), "bedplate-hostile-"));
  const authority = await openAuthority(directory, [], {
    bytes: (count: number) => Uint8Array.from(randomBytes(count)),
  } as Parameters<typeof openAuthority>[2]);
  let scene: (peer: AgentPeer) => Promise<void> = async () => {};
  let connections = 0;
  const server = createServer(
    { cert: authority.certificatePem, key: authority.keyPem, minVersion: "TLSv1.3" },
    (request, response) => {
      response.statusCode = request.url === "/v1/ca" ? 200 : 404;
      response.end(request.url === "/v1/ca" ? authority.caPem : "");
    },
  );
  const webSockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    handleProtocols: () => subprotocol,
  });
  server.on("upgrade", (request, duplex, head) => {
    duplex.on("error", () => {});
    webSockets.handleUpgrade(request, duplex, head, (socket) => {
      connections += 1;
      const peer = peerOf(socket, duplex as TLSSocket);
      scene(peer)
        .catch((error: unknown) => console.error(error))
        .finally(() => socket.terminate());
    });
  });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ca: authority.caPem,
    joinToken: `bedplate-join.${randomBytes(8).toString("hex")}.${randomBytes(24).toString("base64url")}.${authority.caSha256}`,
    serve(next) {
      scene = next;
    },
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      for (const client of webSockets.clients) client.terminate();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** A right welcome, with members of a test's own. */
export function welcomeOf(host: string, more: Partial<Welcome> = {}): Welcome {
  return {
    ...{ t: "welcome", session: randomBytes(16).toString("hex"), host, name: "host", at: Date.now() },
    ...{ heartbeatMs: 10_000, reconnectWindowMs: 5000, records: 0, samples: 0 },
    ...more,
  };
}

function peerOf(socket: WebSocket, tls: TLSSocket): AgentPeer {
  const received: AgentMessage[] = [];
  const frames: Uint8Array[] = [];
  const violations: Error[] = [];
  let wake = () => {};
  socket.on("message", (data) => {
    const bytes = Uint8Array.from(data as Buffer);
    let message: AgentMessage;
    try {
      message = checkAgentMessage(decodeFrame(bytes));
    } catch (error) {
      violations.push(error as Error);
      return;
    }
    if (message.t === "hello") frames.push(bytes);
    received.push(message);
    if (received.length > receivedMax) received.shift();
    wake();
  });
  socket.on("error", () => {});
  const closed = new Promise<Closed>((resolve) =>
    socket.on("close", (code, reason) => {
      wake();
      resolve({ code, reason: reason.toString() });
    }),
  );
  const peer: AgentPeer = {
    tls,
    socket,
    closed,
    received,
    violations,
    get open() {
      return socket.readyState === socket.OPEN;
    },
    async next(type, timeoutMs = 30_000) {
      const until = performance.now() + timeoutMs;
      for (;;) {
        const index = received.findIndex(({ t }) => t === type);
        if (index >= 0) return received.splice(index, 1)[0] as never;
        const leftMs = until - performance.now();
        if (leftMs <= 0 || socket.readyState === socket.CLOSED) return undefined;
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, leftMs);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
    },
    send: (message) => peer.sendRaw(encodeFrame(message)),
    sendRaw: (bytes) => {
      if (peer.open) socket.send(bytes);
    },
    async prove(epoch = 1) {
      const hello = await peer.next("hello");
      if (hello === undefined) return undefined;
      const nonce = Uint8Array.from(randomBytes(32));
      peer.send({ t: "challenge", nonce, version: 1, epoch, at: Date.now() });
      const auth = await peer.next("auth");
      if (auth === undefined) return undefined;
      const exported = tls.exportKeyingMaterial(exporter.bytes, exporter.label, Buffer.alloc(0));
      const proof = await linkProofBytes({
        ...{ agentNonce: hello.nonce, controllerNonce: nonce },
        ...{ exported: Uint8Array.from(exported), hello: frames.at(-1)! },
      });
      return (await verifyEd25519(hello.linkKey, auth.signature, proof))
        ? await hostIdOf(hello.linkKey)
        : undefined;
    },
  };
  return peer;
}
