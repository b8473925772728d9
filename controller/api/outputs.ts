// /v1/commands/{id}/output: what a program printed, from any offset that is kept; a reader may wait for more.
import Type from "typebox";
import { OutputView as OutputSchema, type OutputView } from "../../protocol/api.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { CommandId, Count } from "../../protocol/schema.ts";
import { unknownCommand } from "../commands/service.ts";
import type { ApiParts, App } from "./app.ts";
import { problemAnswers } from "./schemas.ts";

const Parameters = Type.Object({ id: CommandId });
const Query = Type.Object(
  {
    after: Type.Optional(Count),
    /** Wait so long for more, if there is none yet and the command has not ended. */
    waitSeconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 60 })),
  },
  { additionalProperties: false },
);
/** Whether a command has ended is looked at no more often, whatever happens to others. */
const endLookMs = 100;
/** In one answer, before base64. */
const answerBytesMax = 256 * 1024;

export function outputRoutes(app: App, parts: ApiParts): void {
  app.get(
    "/v1/commands/:id/output",
    {
      config: { access: "read" },
      schema: {
        params: Parameters,
        querystring: Query,
        response: { 200: OutputSchema, ...problemAnswers },
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      const { after = 0, waitSeconds = 0 } = request.query;
      const gone = new AbortController();
      reply.raw.once("close", () => gone.abort());
      const until = AbortSignal.any([gone.signal, parts.stopping]);
      return waitForOutput(parts, { id, after, waitMs: waitSeconds * 1000 }, until);
    },
  );
}

/** Answers with what there is when there is something, the command has ended, the time is over or `until` aborts. */
async function waitForOutput(
  { store, outputs, clock }: ApiParts,
  { id, after, waitMs }: { readonly id: string; readonly after: number; readonly waitMs: number },
  until: AbortSignal,
): Promise<OutputView> {
  let news = Promise.withResolvers<void>();
  let over = waitMs === 0;
  const end = (): void => {
    over = true;
    news.resolve();
  };
  // Followed before the first look, so that nothing falls between.
  using _output = outputs.follow(id, () => news.resolve());
  let look: Disposable | undefined;
  using _events = store.events.follow(() => {
    look ??= clock.after(endLookMs, () => {
      look = undefined;
      news.resolve();
    });
  });
  using _timer = clock.after(waitMs, end);
  until.addEventListener("abort", end, { once: true });
  try {
    for (;;) {
      news = Promise.withResolvers<void>();
      const view = await readOutput(store, id, after);
      if (over || until.aborted || view.ended || view.pieces.length > 0) return view;
      await news.promise;
    }
  } finally {
    until.removeEventListener("abort", end);
    look?.[Symbol.dispose]();
  }
}

async function readOutput(store: ApiParts["store"], id: string, after: number): Promise<OutputView> {
  // The state first: what is printed last comes before the end.
  const command = await store.commands.get(id);
  const page = await store.commands.output(id, after, answerBytesMax);
  if (command === undefined || page === undefined) throw unknownCommand(id);
  const [first, last] = [page.pieces[0], page.pieces.at(-1)];
  const to = last === undefined ? after : last.offset + last.data.length;
  return {
    from: first?.offset ?? after,
    to,
    ended: isTerminal(command.state) && to >= page.end,
    pieces: page.pieces.map(({ stream, offset, data }) => ({
      stream,
      offset,
      data: Buffer.from(data).toString("base64"),
    })),
  };
}
