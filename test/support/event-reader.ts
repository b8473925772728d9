// Reads server-sent events of a controller, for tests.
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { tlsServerName } from "../../protocol/messages.ts";

export interface SentEvent {
  readonly id: string | undefined;
  readonly event: string | undefined;
  readonly data: unknown;
}

export class EventReader implements Disposable {
  readonly events: SentEvent[] = [];
  status = 0;
  body = "";
  ended = false;
  #comments = 0;
  #wake: () => void = () => {};
  #answer: IncomingMessage | undefined;
  readonly #close: () => void;

  constructor(
    to: { readonly url: string; readonly ca: string },
    path: string,
    headers: Record<string, string>,
  ) {
    const asked = request(
      new URL(path, to.url),
      { ca: to.ca, servername: tlsServerName, agent: false, headers },
      (answer) => {
        this.status = answer.statusCode!;
        this.#answer = answer;
        answer.setEncoding("utf8");
        let text = "";
        answer.on("data", (piece: string) => {
          this.body += piece;
          text += piece;
          for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
            this.#block(text.slice(0, end));
            text = text.slice(end + 2);
          }
          this.#wake();
        });
        answer.on("error", () => {});
        answer.on("close", () => {
          this.ended = true;
          this.#wake();
        });
        this.#wake();
      },
    );
    asked.on("error", () => {});
    asked.end();
    this.#close = () => asked.destroy();
  }

  /** Waits until `done` holds of what came. */
  async until(done: (reader: EventReader) => boolean, timeoutMs = 30_000): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!done(this)) {
      const leftMs = end - performance.now();
      if (leftMs <= 0)
        throw new Error(`not within ${timeoutMs} ms: ${done}; have ${JSON.stringify(this.events)}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  pause(): void {
    this.#answer?.pause();
  }

  resume(): void {
    this.#answer?.resume();
  }

  get comments(): number {
    return this.#comments;
  }

  [Symbol.dispose](): void {
    this.#close();
  }

  #block(text: string): void {
    if (text.startsWith(":")) {
      this.#comments += 1;
      return;
    }
    const field = (name: string) =>
      text
        .split("\n")
        .find((line) => line.startsWith(`${name}: `))
        ?.slice(name.length + 2);
    this.events.push({ id: field("id"), event: field("event"), data: JSON.parse(field("data") ?? "null") });
  }
}
