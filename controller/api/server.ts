// The HTTPS server: Fastify with our checks, our problems, OpenAPI, and one file of routes a resource.
import { createServer, type ServerOptions } from "node:https";
import swagger from "@fastify/swagger";
import Fastify from "fastify";
import { limits } from "../../protocol/limits.ts";
import { version } from "../../protocol/version.ts";
import type { Authority } from "../authority/authority.ts";
import { guardRoutes } from "./access.ts";
import type { ApiParts, App } from "./app.ts";
import { auditCalls, auditRoutes } from "./audit.ts";
import { authorityRoutes } from "./authority.ts";
import { backupRoutes } from "./backups.ts";
import { commandRoutes } from "./commands.ts";
import { eventRoutes } from "./events.ts";
import { auditHeadRoutes, hostChangeRoutes, hostRoutes } from "./hosts.ts";
import { imageMirrorRoutes } from "./image-mirrors.ts";
import { imageRoomRoutes } from "./image-room.ts";
import { imageSignatureRoutes } from "./image-signatures.ts";
import { imageRoutes } from "./images.ts";
import { joinTokenRoutes } from "./join-tokens.ts";
import { metricsRoutes } from "./metrics.ts";
import { outputRoutes } from "./outputs.ts";
import { patient, trustKnownClients } from "./patience.ts";
import { answerProblems, answerUnreadable } from "./problems.ts";
import { checkBySchemas } from "./schemas.ts";
import { statusRoutes } from "./status.ts";
import { telemetryRoutes } from "./telemetry.ts";
import { tokenRoutes } from "./tokens.ts";

/** The longest query, of 4 KiB, and the rest of a request's head. Of one that does not end Node keeps up to eight times as much. */
const headBytesMax = 6 * 1024;

/** What the server shows, and how: also when its authority changes while it runs. */
export function tlsOf({ keyPem, certificatePem }: Authority) {
  return { key: keyPem, cert: certificatePem, minVersion: "TLSv1.3" } as const;
}

function serverOptions(parts: ApiParts): ServerOptions {
  return {
    ...tlsOf(parts.authority.current),
    // Whoever connects says who it is within `authSecondsMax`, or at least what it wants.
    handshakeTimeout: limits.authSecondsMax * 1000,
    maxHeaderSize: headBytesMax,
    // An image may take hours; only its head must come soon. Bodies of strangers are not read at all.
    headersTimeout: limits.authSecondsMax * 1000,
    requestTimeout: 0,
    // How often Node looks for those that are late: at its default of 30 s a limit of 5 s would be one of 35.
    connectionsCheckingInterval: 1000,
  };
}

/** Not for strangers: unread, so large an answer is kept for whoever asked. */
function documentRoutes(app: App): void {
  let text: string | undefined;
  app.get("/openapi.json", { config: { access: "read" }, schema: { hide: true } }, async (_, reply) => {
    text ??= JSON.stringify(app.swagger());
    return reply.header("content-type", "application/json; charset=utf-8").send(text);
  });
}

export async function createApi(parts: ApiParts): Promise<App> {
  const app = Fastify({
    serverFactory: (handler) => {
      const asked = patient(handler);
      // What Node would answer by itself passes our bounds too; what is expected of us but to go on, nobody is bound to know.
      return createServer(serverOptions(parts), asked).on("checkExpectation", asked);
    },
    requestTimeout: 0,
    bodyLimit: 64 * 1024,
    exposeHeadRoutes: false,
    forceCloseConnections: true,
    logger: false,
    frameworkErrors: answerUnreadable,
  }) as unknown as App;
  app.server.maxConnections = 50_000;
  checkBySchemas(app);
  answerProblems(app, parts.log);
  guardRoutes(app, parts);
  trustKnownClients(app);
  auditCalls(app, parts);
  app.addHook("onResponse", async (request, reply) => {
    parts.log.debug(
      {
        method: request.method,
        path: request.routeOptions.url,
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime),
      },
      "answered",
    );
  });
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "Bedplate controller",
        version,
        license: { name: "Apache-2.0", identifier: "Apache-2.0" },
      },
      components: { securitySchemes: { token: { type: "http", scheme: "bearer" } } },
      security: [{ token: [] }],
    },
  });
  statusRoutes(app, parts);
  authorityRoutes(app, parts);
  hostRoutes(app, parts);
  hostChangeRoutes(app, parts);
  telemetryRoutes(app, parts);
  auditHeadRoutes(app, parts);
  commandRoutes(app, parts);
  outputRoutes(app, parts);
  imageRoutes(app, parts);
  imageSignatureRoutes(app, parts);
  imageMirrorRoutes(app, parts);
  imageRoomRoutes(app, parts);
  joinTokenRoutes(app, parts);
  tokenRoutes(app, parts);
  auditRoutes(app, parts);
  backupRoutes(app, parts);
  eventRoutes(app, parts);
  metricsRoutes(app, parts);
  documentRoutes(app);
  await app.ready();
  return app;
}
