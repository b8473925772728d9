// /v1/commands: submit, list, show, sign, cancel, pause, resume.
import Type from "typebox";
import {
  CommandList,
  CommandRequest,
  CommandView as CommandSchema,
  type CommandView,
  SignatureRequest,
  State,
} from "../../protocol/api.ts";
import { CommandId, Name } from "../../protocol/schema.ts";
import { unknownCommand } from "../commands/service.ts";
import type { ApiParts, App } from "./app.ts";
import { commandView } from "./command-view.ts";
import { findHost } from "./hosts.ts";
import { problemAnswers } from "./schemas.ts";

const Parameters = Type.Object({ id: CommandId });
const Query = Type.Object(
  {
    host: Type.Optional(Name),
    state: Type.Optional(State),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
  },
  { additionalProperties: false },
);
const Headers = Type.Object({
  "idempotency-key": Type.Optional(
    Type.String({
      maxLength: 64,
      description:
        "The document's id, bare or in double quotes: the id is what makes a repeated request the same command. Another value is refused.",
    }),
  ),
});
const listedByDefault = 100;
/** A list ends early rather than grow beyond this: documents and results can be large. */
const listBytesMax = 32 << 20;

export function commandRoutes(app: App, parts: ApiParts): void {
  const { store, commands } = parts;
  app.post(
    "/v1/commands",
    {
      config: { access: "operate" },
      bodyLimit: 1 << 20,
      schema: {
        body: CommandRequest,
        headers: Headers,
        response: { 200: CommandSchema, 201: CommandSchema, ...problemAnswers },
      },
    },
    async (request, reply) => {
      const { document, signatures, signaturesWanted = 0 } = request.body;
      const { status, command } = await commands.submit(
        { document, signatures, signaturesWanted },
        keyOf(request.headers["idempotency-key"]),
      );
      request.auditObject = command.id;
      return reply.code(status === "created" ? 201 : 200).send(await commandView(parts, command));
    },
  );

  app.get(
    "/v1/commands",
    {
      config: { access: "read" },
      schema: { querystring: Query, response: { 200: CommandList, ...problemAnswers } },
    },
    async (request) => {
      const { host, state, limit = listedByDefault } = request.query;
      const found = await store.commands.list({
        host: host === undefined ? undefined : (await findHost(store, host)).id,
        state,
        limit,
        bytesMax: listBytesMax,
      });
      const views: CommandView[] = [];
      let planBytes = 0;
      for (const command of found) {
        const view = await commandView(parts, command);
        // Many may quote one plan, and each is shown with it.
        planBytes += view.plan?.text.length ?? 0;
        if (planBytes > listBytesMax) break;
        views.push(view);
      }
      return { commands: views };
    },
  );

  app.get(
    "/v1/commands/:id",
    {
      config: { access: "read" },
      schema: { params: Parameters, response: { 200: CommandSchema, ...problemAnswers } },
    },
    async (request) => {
      const command = await store.commands.get(request.params.id);
      if (command === undefined) throw unknownCommand(request.params.id);
      return commandView(parts, command);
    },
  );

  app.post(
    "/v1/commands/:id/signatures",
    {
      config: { access: "operate" },
      schema: {
        params: Parameters,
        body: SignatureRequest,
        response: { 200: CommandSchema, ...problemAnswers },
      },
    },
    async (request) => {
      const { command, fingerprint } = await commands.sign(request.params.id, request.body.signature);
      // Who brought it is the token's; whose it is, the key's.
      request.auditObject = `${command.id} ${fingerprint}`;
      return commandView(parts, command);
    },
  );

  app.post(
    "/v1/commands/:id/cancel",
    {
      config: { access: "operate" },
      schema: { params: Parameters, response: { 202: CommandSchema, ...problemAnswers } },
    },
    async (request, reply) =>
      reply.code(202).send(await commandView(parts, await commands.cancel(request.params.id))),
  );

  for (const [verb, paused] of [
    ["pause", true],
    ["resume", false],
  ] as const) {
    app.post(
      `/v1/commands/:id/${verb}`,
      {
        config: { access: "operate" },
        schema: { params: Parameters, response: { 202: CommandSchema, ...problemAnswers } },
      },
      async (request, reply) =>
        reply.code(202).send(await commandView(parts, await commands.pause(request.params.id, paused))),
    );
  }
}

// The header's value is a string of RFC 9651, in quotes; many clients send it bare.
function keyOf(header: string | string[] | undefined): string | undefined {
  return typeof header === "string" ? header.trim().replace(/^"(.*)"$/, "$1") : undefined;
}
