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
import { BedplateError } from "../../protocol/errors.ts";
import { CommandId, Name } from "../../protocol/schema.ts";
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
  return {
    id: command.id,
    host: command.host,
    hostName: host?.name ?? command.host,
    kind: command.kind,
    mode: command.mode,
    state: command.state,
    reason: reasonOf(command, parts.sessions.get(command.host) !== undefined),
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

function reasonOf({ state, cancelRequestedAt }: StoredCommand, online: boolean): string | null {
  const away = online ? "" : " The host is not connected now; its answer follows when it is back.";
  const cancel =
    cancelRequestedAt === null ? "" : " Its cancellation was asked for; the host has not answered yet.";
  switch (state) {
    case "waiting":
      return online
        ? "It is about to be offered to the host."
        : "It waits for the host, which is not connected.";
    case "offered":
      return `It was sent to the host, whose agent has not confirmed it yet.${away}${cancel}`;
    case "received":
      return `The host's agent has it; the executor has not admitted it yet.${away}${cancel}`;
    case "accepted":
      return `The host's executor has admitted it and not begun yet.${away}${cancel}`;
    case "running":
      return away + cancel === "" ? null : `It runs.${away}${cancel}`;
    case "refused":
    case "succeeded":
    case "failed":
    case "cancelled":
    case "timed-out":
    case "indeterminate":
      return null;
  }
}
