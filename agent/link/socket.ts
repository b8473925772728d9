// One WebSocket as a stream of checked messages: dialled with the pinned authority, every frame scanned before it is read.
import type { ConnectionOptions, TLSSocket } from "node:tls";
import { type ClientOptions, WebSocket } from "ws";
import { type CloseName, closeCodes } from "../../protocol/codes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { decodeFrame, encodeFrame } from "../../protocol/frames.ts";
import { limits } from "../../protocol/limits.ts";
import {
  type AgentMessage,
  type ControllerMessage,
  checkControllerMessage,
  exporter,
  subprotocol,
  tlsServerName,
} from "../../protocol/messages.ts";

/** Why a connection ended. */
export interface Closed {
  readonly code: number;
  readonly reason: string;
  /** It was this end that ended it. */
  readonly ours: boolean;
}

export interface LinkSocket {
  /** Keying material of this very TLS connection. */
  readonly exported: Uint8Array;
  /** Bytes written that the kernel has not yet taken. */
  readonly bufferedBytes: number;
  send(message: AgentMessage): void;
  sendBytes(frame: Uint8Array): void;
  /** The next message; undefined when the connection has ended. */
  next(): Promise<ControllerMessage | undefined>;
  /** Resolves when the connection has ended, however. */
  readonly closed: Promise<Closed>;
  close(name: CloseName, reason: string): void;
  /** Ends the connection at once, without a goodbye. */
  terminate(): void;
}

const handshakeMs = 15_000;
/** What a server that has no room may ask us to wait. */
const retryAfterSecondsMax = 600;
/** Messages that wait to be handled; the controller sends few, so more means that it misbehaves. */
const inboxMax = 4096;

/** @throws `controller.unreachable`, `controller.untrusted` */
export async function openSocket(controller: URL, ca: string, signal: AbortSignal): Promise<LinkSocket> {
  signal.throwIfAborted();
  const url = new URL("/v1/link", controller);
  url.protocol = "wss:";
  const options: ClientOptions & ConnectionOptions = {
    ca,
    servername: tlsServerName,
    minVersion: "TLSv1.3",
    rejectUnauthorized: true,
    perMessageDeflate: false,
    maxPayload: limits.frameBytesMax,
    handshakeTimeout: handshakeMs,
    followRedirects: false,
  };
  const socket = new WebSocket(url, subprotocol, options);
  socket.binaryType = "nodebuffer";
  const inbox = createInbox();
  const closed = Promise.withResolvers<Closed>();
  let failure: Error | undefined;
  let tls: TLSSocket | undefined;
  let ours = false;
  let retryAfterMs = 0;
  const end = (close: () => void) => {
    ours ||= socket.readyState === WebSocket.OPEN;
    close();
  };
  const abort = () => end(() => socket.terminate());
  signal.addEventListener("abort", abort, { once: true });

  socket.on("unexpected-response", (_request, response) => {
    failure = new Error(`it answered with status ${response.statusCode}`);
    retryAfterMs = 1000 * Math.min(retryAfterSecondsMax, Number(response.headers["retry-after"] ?? 0) || 0);
    socket.terminate();
  });
  socket.on("upgrade", (response) => {
    tls = response.socket as TLSSocket;
  });
  socket.on("error", (error) => {
    failure ??= error;
  });
  socket.on("close", (code, reason) => {
    signal.removeEventListener("abort", abort);
    inbox.end();
    closed.resolve({ code, reason: reason.toString("utf8") || (failure?.message ?? ""), ours });
  });
  socket.on("message", (data: Buffer, isBinary) => {
    try {
      if (!isBinary) throw new BedplateError("message.invalid", "The controller sent a text frame.");
      if (inbox.size >= inboxMax)
        throw new BedplateError("message.unexpected", `More than ${inboxMax} messages wait.`);
      inbox.add(checkControllerMessage(decodeFrame(data)));
    } catch (error) {
      const code = error instanceof BedplateError ? error.code : "message.invalid";
      failure = error as Error;
      end(() => socket.close(closeCodes.protocol.code, code));
    }
  });

  await new Promise<void>((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("close", () => reject(dialError(controller, failure, retryAfterMs)));
  });
  if (tls === undefined) {
    socket.terminate();
    throw new BedplateError("controller.untrusted", `The connection to ${controller.host} is not TLS.`);
  }
  return {
    exported: new Uint8Array(tls.exportKeyingMaterial(exporter.bytes, exporter.label, Buffer.alloc(0))),
    get bufferedBytes() {
      return socket.bufferedAmount;
    },
    send: (message) => socket.send(encodeFrame(message)),
    sendBytes: (frame) => socket.send(frame),
    next: () => inbox.next(),
    closed: closed.promise,
    terminate: () => end(() => socket.terminate()),
    // ws ends the connection itself when the peer does not answer the close within 30 s.
    close: (name, reason) => end(() => socket.close(closeCodes[name].code, reason.slice(0, 120))),
  };
}

function dialError(controller: URL, failure: Error | undefined, retryAfterMs: number): BedplateError {
  const code = failure !== undefined && "code" in failure ? String(failure.code) : "";
  if (/CERT|SELF_SIGNED|UNABLE_TO|ERR_TLS/.test(code)) {
    return new BedplateError(
      "controller.untrusted",
      `The server at ${controller.host} is not the controller that this host trusts: ${failure?.message}.`,
      {
        hint: "If the controller's authority was changed while this host was away, or it was set up anew: make a token there with `bedplate join-token create`, and start the agent once with `--join TOKEN` (or with joinToken in its configuration). The host keeps its key, and so its name and history.",
        cause: failure,
      },
    );
  }
  return new BedplateError(
    "controller.unreachable",
    `The controller at ${controller.host} does not answer: ${failure?.message ?? "the connection ended"}.`,
    {
      cause: failure,
      ...(retryAfterMs === 0 ? {} : { details: { retryAfterMs } }),
    },
  );
}

interface Inbox {
  readonly size: number;
  add(message: ControllerMessage): void;
  end(): void;
  next(): Promise<ControllerMessage | undefined>;
}

function createInbox(): Inbox {
  const waiting: ControllerMessage[] = [];
  let ended = false;
  let wake: (() => void) | undefined;
  return {
    get size() {
      return waiting.length;
    },
    add(message) {
      waiting.push(message);
      wake?.();
    },
    end() {
      ended = true;
      wake?.();
    },
    async next() {
      while (waiting.length === 0 && !ended) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return waiting.shift();
    },
  };
}
