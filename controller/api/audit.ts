// Who called what from where: an entry for each call that changes something, before its answer; GET /v1/audit, and whether
// its chain holds.
import Type from "typebox";
import { AuditChainView, AuditList } from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { Count, Digest } from "../../protocol/schema.ts";
import { verifyAudit } from "../store/audit-chain.ts";
import type { ApiParts, App } from "./app.ts";
import { problemOf, problemType, unwritable } from "./problems.ts";
import { problemAnswers } from "./schemas.ts";

const Query = Type.Object(
  { limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })) },
  { additionalProperties: false },
);
const HeadQuery = Type.Object(
  { seq: Type.Optional(Count), hash: Type.Optional(Digest) },
  { additionalProperties: false },
);
const listedByDefault = 100;

/** Calls without a valid token leave no entry: strangers must not push out what is kept. They are counted and slowed. */
export function auditCalls(app: App, { store, clock, log }: ApiParts): void {
  app.decorateRequest("auditObject", undefined);
  app.decorateRequest("problemCode", undefined);
  app.addHook("onSend", async (request, reply, payload) => {
    const token = request.apiToken;
    if (token === undefined || request.method === "GET" || request.is404) return payload;
    try {
      await store.audit.append({
        at: clock.now(),
        token: { id: token.id, name: token.label },
        address: request.callerAddress,
        method: request.method,
        route: request.routeOptions.url ?? request.url,
        object: request.auditObject ?? objectOf(request.params),
        status: reply.statusCode,
        code: request.problemCode ?? null,
      });
      return payload;
    } catch (error) {
      log.error({ err: error, method: request.method }, "a call could not be written into the audit");
      if (reply.statusCode >= 400) return payload;
      // It was done. But nobody is told "done" of what no audit has.
      const problem = problemOf(unwritable(error));
      void reply.code(problem.status).header("content-type", problemType).removeHeader("content-length");
      return JSON.stringify(problem);
    }
  });
}

export function auditRoutes(app: App, { store, clock }: ApiParts): void {
  app.get(
    "/v1/audit",
    {
      config: { access: "admin" },
      schema: { querystring: Query, response: { 200: AuditList, ...problemAnswers } },
    },
    async (request) => ({ entries: [...(await store.audit.list(request.query.limit ?? listedByDefault))] }),
  );

  app.get(
    "/v1/audit/verify",
    {
      config: { access: "admin" },
      schema: { querystring: HeadQuery, response: { 200: AuditChainView, ...problemAnswers } },
    },
    async (request) => {
      const { seq, hash } = request.query;
      if ((seq === undefined) !== (hash === undefined))
        throw new BedplateError("api.bad-request", "A head is its seq and its hash, both.");
      const head = seq === undefined || hash === undefined ? undefined : { seq, hash };
      return verifyAudit(
        store.audit,
        head,
        () => new Promise<void>((resolve) => void clock.after(0, resolve)),
      );
    },
  );
}

function objectOf(parameters: unknown): string | null {
  const { host, id, root } = (parameters ?? {}) as Record<string, unknown>;
  const named = host ?? id ?? root;
  return typeof named === "string" ? named : null;
}
