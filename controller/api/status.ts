// /v1/status, and the answer to those who ask for /v1/link without a WebSocket.
import { StatusView } from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { subprotocol } from "../../protocol/messages.ts";
import { version } from "../../protocol/version.ts";
import type { ApiParts, App } from "./app.ts";
import { problemAnswers } from "./schemas.ts";

export function statusRoutes(app: App, { store, auditKey, sessions, clock }: ApiParts): void {
  app.get(
    "/v1/status",
    { config: { access: "read" }, schema: { response: { 200: StatusView, ...problemAnswers } } },
    async (request) => ({
      version,
      scope: request.apiToken!.scope,
      epoch: await store.epoch(),
      at: clock.now(),
      hosts: { known: await store.hosts.count(), online: sessions.count },
      auditKey: auditKey.line,
    }),
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
