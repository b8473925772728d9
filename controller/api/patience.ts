// Clients that ask and do not read: how many answers may wait for one of them, and for how long.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { App } from "./app.ts";

/** Requests that a connection may have unanswered. Clients ask one after the other; 16 KiB in a piece hold five hundred. */
const unansweredMax = 4;
/** A stranger's connection on which nothing moves is closed. */
const strangerIdleMs = 15_000;

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** Hands on what a connection may ask now; a connection that asks on without reading is closed. */
export function patient(handler: Handler): Handler {
  const unanswered = new WeakMap<Socket, number>();
  return (request, response) => {
    const { socket } = request;
    const count = unanswered.get(socket) ?? 0;
    if (count >= unansweredMax || socket.destroyed) {
      socket.destroy();
      return;
    }
    unanswered.set(socket, count + 1);
    response.once("close", () => unanswered.set(socket, unanswered.get(socket)! - 1));
    socket.setTimeout(strangerIdleMs);
    handler(request, response);
  };
}

/** A host that fetches an image takes some of it within this, however slowly it was told to go. */
const fetchIdleMs = 600_000;

/** Known clients may follow events for days, or send an image slowly; hosts may fetch one slowly. */
export function trustKnownClients(app: App): void {
  app.addHook("preParsing", async (request) => {
    if (request.apiToken !== undefined) request.raw.socket.setTimeout(0);
    else if (request.imageRoot !== undefined) request.raw.socket.setTimeout(fetchIdleMs);
  });
}
