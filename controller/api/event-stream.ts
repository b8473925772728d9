// Server-sent events (WHATWG HTML, section 9.2) to one reader: with a heartbeat, no more waiting than a bound, and only as
// long as the reader's token is in force.
import type { FastifyReply } from "fastify";
import { limits } from "../../protocol/limits.ts";
import { isInForce } from "./api-tokens.ts";
import type { ApiParts } from "./app.ts";

export interface EventStream {
  /** Whether the reader keeps up. */
  readonly writable: boolean;
  /** Resolves when the reader is gone, its token is revoked or has expired, or the controller stops. */
  readonly ended: Promise<void>;
  send(event: { readonly id?: number; readonly event?: string; readonly data: unknown }): void;
  /** Ends it from this side. */
  end(): void;
  /** Resolves when the reader has taken most of what was sent, or is gone. */
  drained(): Promise<void>;
}

const heartbeatMs = 15_000;
/** How long a stream may outlive its token. */
const tokenIntervalMs = 1000;
/** A reader that takes nothing for so long is not there. */
const stuckMs = 30_000;
/** Above this nothing that can be left out is sent; at the other the stream is ended. */
const bufferedBytesSoft = 64 * 1024;
const bufferedBytesMax = 4 * limits.socketBufferBytesMax;

/** Turns the reply into a stream of events, which ends when `serve` does. Never rejects. */
export async function streamEvents(
  reply: FastifyReply,
  parts: Pick<ApiParts, "clock" | "stopping" | "log" | "store">,
  serve: (stream: EventStream) => Promise<void>,
): Promise<void> {
  const stream = openEventStream(reply, parts);
  const token = reply.request.apiToken;
  // A stream goes on while its reader is there: the token is looked at again and again, not once.
  const endWithToken = async (): Promise<void> => {
    try {
      const now = token === undefined ? undefined : await parts.store.tokens.apiToken(token.id);
      if (now === undefined || !isInForce(now, parts.clock.now())) stream.end();
    } catch (error) {
      parts.log.error({ err: error }, "a stream's token could not be looked at");
      stream.end();
    }
  };
  using _watch = parts.clock.every(tokenIntervalMs, () => void endWithToken());
  try {
    await serve(stream);
  } catch (error) {
    parts.log.error({ err: error }, "a fault while sending events");
  } finally {
    reply.raw.destroy();
    await stream.ended;
  }
}

function openEventStream(
  reply: FastifyReply,
  { clock, stopping }: Pick<ApiParts, "clock" | "stopping">,
): EventStream {
  const response = reply.raw;
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  reply.hijack();
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  response.flushHeaders();
  let stuckSinceMs: number | undefined;
  const end = (): void => {
    timer[Symbol.dispose]();
    stopping.removeEventListener("abort", end);
    response.destroy();
    resolve();
  };
  const timer = clock.every(heartbeatMs, () => {
    const nowMs = clock.monotonicMs();
    if (response.writableLength <= bufferedBytesSoft) {
      stuckSinceMs = undefined;
      response.write(":\n\n");
    } else {
      stuckSinceMs ??= nowMs;
      if (nowMs - stuckSinceMs >= stuckMs) end();
    }
  });
  response.on("close", end);
  response.on("error", end);
  stopping.addEventListener("abort", end, { once: true });
  if (stopping.aborted) end();
  return {
    ended,
    end,
    get writable() {
      return !response.destroyed && response.writableLength <= bufferedBytesSoft;
    },
    send({ id, event, data }) {
      if (response.destroyed) return;
      // JSON has no line breaks of its own, so each event is one data line.
      response.write(
        `${id === undefined ? "" : `id: ${id}\n`}${event === undefined ? "" : `event: ${event}\n`}data: ${JSON.stringify(data)}\n\n`,
      );
      if (response.writableLength > bufferedBytesMax) end();
    },
    async drained() {
      if (response.destroyed || response.writableLength <= bufferedBytesSoft) return;
      await Promise.race([new Promise<void>((go) => response.once("drain", () => go())), ended]);
    },
  };
}
