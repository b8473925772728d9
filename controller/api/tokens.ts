// /v1/tokens: who may use this API, for what and how long.
import Type from "typebox";
import {
  TokenList,
  TokenRequest,
  type TokenState,
  TokenState as TokenStateSchema,
  TokenView,
} from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { StoredToken } from "../store/token-store.ts";
import { createApiToken } from "./api-tokens.ts";
import type { ApiParts, App } from "./app.ts";
import { problemAnswers } from "./schemas.ts";

const Parameters = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) });

export function tokenRoutes(app: App, { store, clock, random, log }: ApiParts): void {
  app.post(
    "/v1/tokens",
    {
      config: { access: "admin" },
      schema: { body: TokenRequest, response: { 201: TokenView, ...problemAnswers } },
    },
    async (request, reply) => {
      const { scope, ttlSeconds = 90 * 86_400, name } = request.body;
      const createdAt = clock.now();
      const { id, text } = await createApiToken(store.tokens, random, {
        label: name ?? scope,
        scope,
        createdAt,
        expiresAt: createdAt + ttlSeconds * 1000,
      });
      request.auditObject = id;
      log.info({ token: id, scope, name, ttlSeconds }, "an API token was made");
      return reply.code(201).send({ ...tokenState((await store.tokens.apiToken(id))!), token: text });
    },
  );

  app.get(
    "/v1/tokens",
    { config: { access: "admin" }, schema: { response: { 200: TokenList, ...problemAnswers } } },
    async () => ({ tokens: (await store.tokens.apiTokens()).map(tokenState) }),
  );

  app.post(
    "/v1/tokens/:id/revoke",
    {
      config: { access: "admin" },
      schema: { params: Parameters, response: { 200: TokenStateSchema, ...problemAnswers } },
    },
    async (request) => {
      const { id } = request.params;
      const token = await store.tokens.revokeApiToken(id, clock.now());
      if (token === undefined) throw new BedplateError("api.not-found", `There is no API token ${id}.`);
      log.info({ token: id }, "an API token was revoked");
      return tokenState(token);
    },
  );
}

function tokenState(token: StoredToken): TokenState {
  const { hash: _, label, ...rest } = token;
  return { ...rest, name: label };
}
