// One WebSocket to an agent as checked messages: sizes bounded both ways, every refusal told with its documented code.
import type { TLSSocket } from "node:tls";
import type { WebSocket } from "ws";
import { type CloseName, closeCodes } from "../../protocol/codes.ts";
import { BedplateError, reportOf } from "../../protocol/errors.ts";
import { decodeFrame, encodeFrame } from "../../protocol/frames.ts";
import { limits } from "../../protocol/limits.ts";
import { type AgentMessage, type ControllerMessage, checkAgentMessage } from "../../protocol/messages.ts";
import type { Log } from "../machine/log.ts";
import type { Clock } from "../machine/system.ts";
import { FrameMeter } from "./frame-meter.ts";
import type { LinkMeters } from "./meters.ts";

export interface Received<M = AgentMessage> {
  readonly message: M;
  /** The frame's very bytes. */
  readonly bytes: Uint8Array;
}

/** After this a peer that does not answer our close is cut off. */
const closeGraceMs = 1000;
/** A peer's own words may be part of a reason. */
const reasonLengthMax = 1000;
/** What may wait to be sent at most: an offer to a peer that just stopped reading, and some. Beyond, it is cut off. */
const sendBufferBytesMax = 4 * limits.socketBufferBytesMax;

export class Channel {
  readonly address: string;
  readonly #webSocket: WebSocket;
  readonly #socket: TLSSocket;
  readonly #meter: FrameMeter;
  readonly #meters: LinkMeters;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #ended = Promise.withResolvers<void>();
  #receive: ((received: Received) => void) | undefined;
  #closing = false;
  #heardAtMs: number;

  constructor(parts: {
    webSocket: WebSocket;
    socket: TLSSocket;
    clock: Clock;
    log: Log;
    meters: LinkMeters;
  }) {
    this.#webSocket = parts.webSocket;
    this.#socket = parts.socket;
    this.#clock = parts.clock;
    this.#log = parts.log;
    this.#meters = parts.meters;
    this.#heardAtMs = parts.clock.monotonicMs();
    this.address = parts.socket.remoteAddress ?? "";
    this.#meter = new FrameMeter(limits.frameBytesBeforeAuthMax, (bytes) => {
      const error = tooLarge(bytes, this.#meter.bytesMax);
      this.close("tooLarge", `${error.code} ${error.message}`);
    });
    // Before the library's own listener, which is there already.
    this.#socket.prependListener("data", (chunk: Buffer) => {
      this.#meters.receivedBytes += chunk.length;
      if (!this.#closing) this.#meter.push(chunk);
    });
    this.#webSocket.on("message", (data, isBinary) => this.#message(data as Buffer, isBinary));
    this.#webSocket.on("ping", (data) => {
      this.#heardAtMs = this.#clock.monotonicMs();
      // A peer that pings and never reads must not make us keep its pongs.
      if (this.bufferedBytes < limits.socketBufferBytesMax) this.#webSocket.pong(data);
    });
    this.#webSocket.on("pong", () => {
      this.#heardAtMs = this.#clock.monotonicMs();
    });
    // The library closes what breaks RFC 6455 itself, with the codes of that document.
    this.#webSocket.on("error", (error) =>
      this.#log.info({ address: this.address, reason: error.message }, "an agent's connection broke"),
    );
    this.#webSocket.on("close", () => {
      this.#closing = true;
      this.#ended.resolve();
    });
  }

  /** Resolves when the connection is gone. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  get closing(): boolean {
    return this.#closing;
  }

  /** Milliseconds since anything was heard. */
  get silentMs(): number {
    return this.#clock.monotonicMs() - this.#heardAtMs;
  }

  /** Bytes that wait to be sent. */
  get bufferedBytes(): number {
    return this.#webSocket.bufferedAmount;
  }

  /** 32 bytes of keying material of this very TLS connection. */
  exportKeyingMaterial(length: number, label: string): Uint8Array {
    return Uint8Array.from(this.#socket.exportKeyingMaterial(length, label, Buffer.alloc(0)));
  }

  /** From now on messages may have their full size. */
  trust(): void {
    this.#meter.bytesMax = limits.frameBytesMax;
  }

  /**
   * Waits for the one message that may come now; any other, or one more before the next call, ends the connection.
   * Rejects when the connection is closed.
   */
  expect<T extends AgentMessage["t"]>(type: T): Promise<Received<Extract<AgentMessage, { t: T }>>> {
    return new Promise((resolve, reject) => {
      void this.#ended.promise.then(() =>
        reject(new BedplateError("agent.offline", "The connection was closed.")),
      );
      this.#receive = (received) => {
        this.#receive = undefined;
        if (received.message.t !== type)
          throw new BedplateError(
            "message.unexpected",
            `A message "${received.message.t}" came where "${type}" must.`,
          );
        resolve(received as Received<Extract<AgentMessage, { t: T }>>);
      };
    });
  }

  /** Gives every message from now on to `receive`; what it throws closes the connection. */
  deliver(receive: (received: Received) => void): void {
    this.#receive = receive;
  }

  /** Stops reading until `resume`: what the peer sends waits in its own buffers. */
  pause(): void {
    this.#webSocket.pause();
  }

  resume(): void {
    this.#webSocket.resume();
  }

  /** @returns `closed` when the message went nowhere */
  send(message: ControllerMessage, sent?: () => void): "sent" | "closed" {
    if (this.#closing) return "closed";
    if (this.bufferedBytes > sendBufferBytesMax) {
      this.close("slowConsumer", "the peer does not read what it is sent");
      return "closed";
    }
    this.#write(message, sent);
    return "sent";
  }

  /** Ends the connection because of `error`, with the close code that fits it. */
  fail(error: unknown): void {
    this.#refuse(error);
  }

  /** Says why, closes, and cuts off a peer that does not answer. */
  close(name: CloseName, reason: string, reconnectWindowMs = 0): void {
    if (this.#closing) return;
    this.#closing = true;
    // Past the bound of the buffer: it is the last message, and says why.
    this.#write({ t: "goaway", reason: reason.slice(0, reasonLengthMax), reconnectWindowMs });
    this.#receive = undefined;
    const { code } = closeCodes[name];
    this.#meters.countClose(name);
    this.#log.info({ address: this.address, close: code, reason }, "closing an agent's connection");
    // What is too large is not read either. Else the peer's own close should be heard.
    if (name === "tooLarge") this.#webSocket.pause();
    else this.#webSocket.resume();
    this.#webSocket.close(code, shortened(reason));
    const cut = this.#clock.after(closeGraceMs, () => this.#webSocket.terminate());
    void this.#ended.promise.then(() => cut[Symbol.dispose]());
  }

  #write(message: ControllerMessage, sent?: () => void): void {
    const bytes = encodeFrame(message);
    this.#meters.sentBytes += bytes.length;
    this.#webSocket.send(bytes, () => sent?.());
  }

  #message(data: Buffer, isBinary: boolean): void {
    if (this.#closing) return;
    this.#heardAtMs = this.#clock.monotonicMs();
    this.#meters.messages += 1;
    try {
      if (!isBinary)
        throw new BedplateError("frame.malformed", "A text frame came; all messages are binary.");
      const message = checkAgentMessage(decodeFrame(data, this.#meter.bytesMax));
      if (this.#receive === undefined)
        throw new BedplateError("message.unexpected", `A message "${message.t}" came before its time.`);
      // A frame is a view on the library's buffer: what is kept of it must be a copy.
      this.#receive({ message, bytes: Uint8Array.from(data) });
    } catch (error) {
      this.#refuse(error);
    }
  }

  #refuse(error: unknown): void {
    if (this.#closing) return;
    const report = reportOf(error);
    if (report.code === "internal")
      this.#log.error({ address: this.address, err: error }, "a fault while serving an agent");
    else this.#log.warn({ address: this.address, code: report.code }, report.message);
    this.close(
      closeNameOf(report.code),
      report.code === "internal" ? "internal A fault of the controller." : `${report.code} ${report.message}`,
    );
  }
}

/** The close code that a refused message or proof gets. */
export function closeNameOf(code: string): CloseName {
  switch (code) {
    case "link.auth-failed":
    case "link.unknown-host":
      return "unknownHost";
    case "enrol.address-denied":
    case "enrol.host-revoked":
    case "enrol.token-expired":
    case "enrol.token-invalid":
    case "enrol.token-used":
      return "revoked";
    case "host.copy":
    case "host.quarantined":
      return "duplicate";
    case "link.version":
      return "version";
    case "internal":
      return "overloaded";
    default:
      return "protocol";
  }
}

function tooLarge(bytes: number, bytesMax: number): BedplateError {
  return new BedplateError(
    "frame.too-large",
    `A message of ${bytes} bytes or more was begun; at most ${bytesMax} are taken now.`,
  );
}

// RFC 6455, 5.5: a control frame holds 125 bytes, two of which are the code.
function shortened(reason: string): string {
  const bytes = Buffer.from(reason);
  if (bytes.length <= 123) return reason;
  const whole = new TextDecoder().decode(bytes.subarray(0, 120)).replace(/\uFFFD+$/, "");
  return `${whole}…`;
}
