// Who may do what: bearer tokens with scopes, the short-lived bearers of images, and little for who has neither.
import { type Scope, scopes } from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { ImageClaim } from "../images/image-bearers.ts";
import { refusedProofCost } from "../link/strangers.ts";
import { findApiToken } from "./api-tokens.ts";
import type { ApiParts, App } from "./app.ts";
import { notFound } from "./problems.ts";
import { Transfers } from "./transfers.ts";

/** When a token was last used is kept no finer than this: a write each. */
const lastUsedStepMs = 60_000;

export function guardRoutes(app: App, parts: ApiParts): void {
  app.decorateRequest("callerAddress", "");
  // Before anything is waited for: of a socket that is closed nobody can say where it came from.
  app.addHook("onRequest", (request, _reply, next) => {
    request.callerAddress = request.raw.socket.remoteAddress ?? "";
    next();
  });
  // A stranger has one answer a connection, so that how often it may connect bounds what it may ask. Nor is its body waited
  // for, however slowly it comes.
  app.addHook("onSend", async (request, reply) => {
    if (request.apiToken === undefined && request.imageRoot === undefined)
      void reply.header("connection", "close");
  });
  const transfers = new Transfers();
  app.decorateRequest("imageRoot", undefined);
  app.decorateRequest("apiToken", undefined);
  app.addHook("onRequest", async (request, reply) => {
    const access = request.routeOptions.config.access;
    const askAsStranger = (cost?: number): void => {
      const waitMs = parts.strangers.ask(request.callerAddress, cost);
      if (waitMs === 0) return;
      void reply.header("retry-after", Math.ceil(waitMs / 1000));
      throw new BedplateError(
        "api.rate-limited",
        "Too many requests without a valid token came from this address.",
      );
    };
    if (access === "anyone" || request.is404) {
      askAsStranger();
      // A path that does not exist has no access of its own; its answer tells nothing, and waits for no body.
      if (request.is404) throw notFound(request.method);
      return;
    }
    const text = /^Bearer ([\x21-\x7e]{1,1024})$/i.exec(request.headers.authorization ?? "")?.[1];
    const claim = text === undefined ? undefined : parts.bearers.read(text);
    if (claim !== undefined && access === "image" && (await holdsNow(claim, parts))) {
      const end = transfers.begin(claim.host);
      if (end === undefined)
        throw new BedplateError("api.rate-limited", "This host fetches too much at once already.");
      reply.raw.once("close", end);
      request.imageRoot = claim.root;
      parts.strangers.known(request.raw.socket);
      return;
    }
    const token =
      text === undefined ? undefined : await findApiToken(parts.store.tokens, text, parts.clock.now());
    if (token === undefined) {
      // A right token always passes, so nobody locks out a neighbour behind the same address.
      askAsStranger(text === undefined ? 1 : refusedProofCost);
      throw new BedplateError(
        "api.unauthorized",
        text === undefined
          ? "The request has no bearer token."
          : "The bearer token is not known here or has expired.",
        {
          hint: "The controller's first token is in client.json in its state directory, which the CLI reads by itself.",
        },
      );
    }
    request.apiToken = token;
    parts.strangers.known(request.raw.socket);
    const at = parts.clock.now();
    if (token.lastUsedAt === null || at - token.lastUsedAt >= lastUsedStepMs)
      await parts.store.tokens.useApiToken(token.id, at);
    const needed: Scope = access === undefined ? "admin" : access === "image" ? "read" : access;
    if (scopes.indexOf(token.scope) < scopes.indexOf(needed)) {
      throw new BedplateError(
        "api.forbidden",
        `The token's scope is "${token.scope}"; this needs "${needed}".`,
        {
          hint: `An admin makes one with \`bedplate token create --scope ${needed}\`.`,
          details: { scope: token.scope, needed },
        },
      );
    }
  });
}

/** An image's bearer ends with its command, and with its host's key. */
async function holdsNow(claim: ImageClaim, { store, bearers }: ApiParts): Promise<boolean> {
  if ((await store.hosts.get(claim.host))?.standing !== "approved") return false;
  return bearers.holds(claim, await store.commands.standing(claim.command));
}
