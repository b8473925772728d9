// /v1/commands: submit, list, show, cancel.
import Type from "typebox";
import {
  CommandList,
  CommandRequest,
  CommandView as CommandSchema,
  type CommandView,
  State,
} from "../../protocol/api.ts";
import { textOf } from "../../protocol/bytes.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { assert, BedplateError } from "../../protocol/errors.ts";
import { CommandId, Name } from "../../protocol/schema.ts";
import { explainCommand, sinceOf } from "../commands/explain.ts";
import type { StoredCommand } from "../store/store.ts";
import type { ApiParts, App } from "./app.ts";
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
const listedByDefault = 100;

export function commandRoutes(app: App, parts: ApiParts): void {
  const { store, commands } = parts;
  app.post(
    "/v1/commands",
    {
      config: { access: "operate" },
      bodyLimit: 1 << 20,
      schema: {
        body: CommandRequest,
        response: { 200: CommandSchema, 201: CommandSchema, ...problemAnswers },
      },
    },
    async (request, reply) => {
      const { status, command } = await commands.submit(request.body.document, request.body.signatures);
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
      });
      return { commands: await Promise.all(found.map((command) => commandView(parts, command))) };
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
      if (command === undefined)
        throw new BedplateError("api.not-found", `There is no command ${request.params.id}.`);
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
}

async function commandView(parts: ApiParts, command: StoredCommand): Promise<CommandView> {
  const { arguments: args } = JSON.parse(textOf(command.document)) as { arguments: Record<string, unknown> };
  const host = await parts.store.hosts.get(command.host);
  assert(host !== undefined, "a command's host is known");
  const online = parts.sessions.get(command.host) !== undefined;
  return {
    id: command.id,
    host: command.host,
    hostName: host.name,
    kind: command.kind,
    mode: command.mode,
    state: command.state,
    since: sinceOf(command),
    ...explainCommand(command, host, online, parts.clock.now()),
    createdAt: command.createdAt,
    updatedAt: command.updatedAt,
    cancelRequestedAt: command.cancelRequestedAt,
    runs: command.runs,
    arguments: args,
    progress: isTerminal(command.state) ? null : parts.progress.get(command.id),
    result: command.result,
    history: [...command.history],
  };
}
