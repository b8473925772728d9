// /v1/status, /v1/ca, and the answer to those who ask for /v1/link without a WebSocket.
import { StatusView } from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { subprotocol } from "../../protocol/messages.ts";
import { version } from "../../protocol/version.ts";
import type { ApiParts, App } from "./app.ts";
import { answerOf, problemAnswers } from "./schemas.ts";

export function statusRoutes(app: App, { store, authority, auditKey, sessions, clock }: ApiParts): void {
  app.get(
    "/v1/status",
    { config: { access: "read" }, schema: { response: { 200: StatusView, ...problemAnswers } } },
    async () => ({
      version,
      epoch: await store.epoch(),
      at: clock.now(),
      hosts: { known: (await store.hosts.list()).length, online: sessions.count },
      auditKey: auditKey.line,
    }),
  );

  // Public, and believed only when its SHA-256 is the one in a join token.
  app.get(
    "/v1/ca",
    {
      config: { access: "anyone" },
      schema: {
        response: { 200: answerOf("The CA certificate, PEM.", "application/x-pem-file"), ...problemAnswers },
      },
    },
    async (_request, reply) => reply.header("content-type", "application/x-pem-file").send(authority.caPem),
  );

  app.get(
    "/v1/link",
    { config: { access: "anyone" }, schema: { response: { ...problemAnswers } } },
    async () => {
      throw new BedplateError("api.bad-request", "Agents connect here by WebSocket.", {
        hint: `Upgrade with Sec-WebSocket-Protocol: ${subprotocol}.`,
      });
    },
  );
}
