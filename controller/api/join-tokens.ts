// /v1/join-tokens: what an operator carries to a new host.
import Type from "typebox";
import {
  JoinTokenList,
  JoinTokenRequest,
  type JoinTokenState,
  JoinTokenState as JoinTokenStateSchema,
  JoinTokenView,
} from "../../protocol/api.ts";
import { hex } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { formatJoinToken } from "../../protocol/join-token.ts";
import { hashOfSecret } from "../link/handshake.ts";
import { isCidr } from "../rules/cidr.ts";
import { revoked } from "../rules/standing.ts";
import type { NewJoinToken, StoredJoinToken } from "../store/token-store.ts";
import type { ApiParts, App } from "./app.ts";
import { findHost } from "./hosts.ts";
import { problemAnswers } from "./schemas.ts";

const Parameters = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) });

export function joinTokenRoutes(app: App, parts: ApiParts): void {
  const { store, authority, clock, random, log } = parts;
  app.post(
    "/v1/join-tokens",
    {
      config: { access: "admin" },
      schema: { body: JoinTokenRequest, response: { 201: JoinTokenView, ...problemAnswers } },
    },
    async (request, reply) => {
      const { ttlSeconds = 3600 } = request.body;
      const bound = await bindingsOf(parts, request.body);
      const id = hex(random.bytes(8));
      const secret = Buffer.from(random.bytes(32)).toString("base64url");
      const createdAt = clock.now();
      const token = { ...bound, id, createdAt, expiresAt: createdAt + ttlSeconds * 1000 };
      await store.tokens.createJoinToken({ ...token, secretHash: hashOfSecret(secret) });
      request.auditObject = id;
      log.info({ token: id, ttlSeconds, ...bound }, "a join token was made");
      return reply.code(201).send({
        ...joinTokenState({ ...token, used: 0, revokedAt: null }),
        token: formatJoinToken({ id, secret, caSha256: authority.current.caSha256 }),
      });
    },
  );

  app.get(
    "/v1/join-tokens",
    { config: { access: "admin" }, schema: { response: { 200: JoinTokenList, ...problemAnswers } } },
    async () => ({ joinTokens: (await store.tokens.joinTokens()).map(joinTokenState) }),
  );

  app.post(
    "/v1/join-tokens/:id/revoke",
    {
      config: { access: "admin" },
      schema: { params: Parameters, response: { 200: JoinTokenStateSchema, ...problemAnswers } },
    },
    async (request) => {
      const { id } = request.params;
      const token = await store.tokens.revokeJoinToken(id, clock.now());
      if (token === undefined) throw new BedplateError("api.not-found", `There is no join token ${id}.`);
      log.info({ token: id }, "a join token was revoked");
      return joinTokenState(token);
    },
  );
}

/** @throws `api.bad-request`, what findHost throws, `enrol.host-revoked` for a host that was replaced already */
async function bindingsOf(
  { store }: ApiParts,
  wanted: JoinTokenRequest,
): Promise<Pick<NewJoinToken, "uses" | "approve" | "forHost" | "cidr">> {
  const { uses = 1, approve = "auto", for: reference, cidr } = wanted;
  if (cidr !== undefined && !isCidr(cidr)) {
    throw new BedplateError("api.bad-request", `"${cidr}" is no network.`, {
      hint: 'Write it as an address and a prefix length, such as "10.1.0.0/16" or "fd00::/8".',
    });
  }
  if (reference === undefined) return { uses, approve, forHost: null, cidr: cidr ?? null };
  if (uses !== 1)
    throw new BedplateError("api.bad-request", "A token for one host's place can be used once only.");
  const host = await findHost(store, reference);
  if (host.replacedBy !== null) throw revoked(host);
  return { uses, approve, forHost: host.id, cidr: cidr ?? null };
}

function joinTokenState({ forHost, ...token }: StoredJoinToken): JoinTokenState {
  return { ...token, for: forHost };
}
