// /v1/join-tokens: what an operator carries to a new host.
import { JoinTokenRequest, JoinTokenView } from "../../protocol/api.ts";
import { hex } from "../../protocol/bytes.ts";
import { formatJoinToken } from "../../protocol/join-token.ts";
import { hashOfSecret } from "../link/handshake.ts";
import type { ApiParts, App } from "./app.ts";
import { problemAnswers } from "./schemas.ts";

export function joinTokenRoutes(app: App, { store, authority, clock, random, log }: ApiParts): void {
  app.post(
    "/v1/join-tokens",
    {
      config: { access: "admin" },
      schema: { body: JoinTokenRequest, response: { 201: JoinTokenView, ...problemAnswers } },
    },
    async (request, reply) => {
      const { ttlSeconds = 3600, uses = 1 } = request.body;
      const id = hex(random.bytes(8));
      const secret = Buffer.from(random.bytes(32)).toString("base64url");
      const createdAt = clock.now();
      const expiresAt = createdAt + ttlSeconds * 1000;
      await store.tokens.createJoinToken({
        id,
        secretHash: hashOfSecret(secret),
        createdAt,
        expiresAt,
        uses,
      });
      log.info({ token: id, uses, ttlSeconds }, "a join token was made");
      return reply
        .code(201)
        .send({ id, token: formatJoinToken({ id, secret, caSha256: authority.caSha256 }), expiresAt, uses });
    },
  );
}
