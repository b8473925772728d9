// /v1/events: what happened, by index, from any index that is still kept.
import Type from "typebox";
import { BedplateError } from "../../protocol/errors.ts";
import { Count } from "../../protocol/schema.ts";
import type { ApiParts, App } from "./app.ts";
import { streamEvents } from "./event-stream.ts";
import { answerOf, problemAnswers } from "./schemas.ts";

const Query = Type.Object({ since: Type.Optional(Count) }, { additionalProperties: false });
const eventsAtOnce = 256;

export function eventRoutes(app: App, parts: ApiParts): void {
  app.get(
    "/v1/events",
    {
      config: { access: "read" },
      schema: {
        querystring: Query,
        response: {
          200: answerOf(
            "Events after `since` (or the header Last-Event-ID), and then each new one. Without either: from now on.",
            "text/event-stream",
          ),
          ...problemAnswers,
        },
      },
    },
    async (request, reply) => {
      const { events } = parts.store;
      const lastId = request.headers["last-event-id"];
      const header = typeof lastId === "string" && /^\d{1,15}$/.test(lastId) ? Number(lastId) : undefined;
      let index = header ?? request.query.since ?? (await events.newest());
      if ((await events.after(index, 1)) === "gone") throw gone(index);
      await streamEvents(reply, parts, async (stream) => {
        // The reader pulls by its own index: what it has not taken waits in the store, not in memory.
        let news = Promise.withResolvers<void>();
        using _following = events.follow(() => news.resolve());
        let ended = false;
        void stream.ended.then(() => {
          ended = true;
          news.resolve();
        });
        while (!ended) {
          news = Promise.withResolvers<void>();
          const batch = await events.after(index, eventsAtOnce);
          // Pruned under a slow reader: it comes back with its index and is told.
          if (batch === "gone") return;
          for (const event of batch) stream.send({ id: event.index, data: event });
          index = batch.at(-1)?.index ?? index;
          await stream.drained();
          if (batch.length < eventsAtOnce && !ended) await news.promise;
        }
      });
    },
  );
}

function gone(index: number): BedplateError {
  return new BedplateError("api.gone", `Events after ${index} are not, or no longer, kept.`, {
    hint: "List what you follow, then follow from now on: GET /v1/events without since.",
  });
}
