// Errors as RFC 9457 problems: the status that fits a code, and the one place where answers of 400 and above are made.
import type { FastifyReply, FastifyRequest } from "fastify";
import type { Problem } from "../../protocol/api.ts";
import { type Code, codes } from "../../protocol/codes.ts";
import { BedplateError, reportOf } from "../../protocol/errors.ts";
import type { Log } from "../machine/log.ts";
import type { App } from "./app.ts";

export const problemType = "application/problem+json";

/** Error answers, and one for paths that do not exist. */
export function answerProblems(app: App, log: Log): void {
  app.setErrorHandler((error, request, reply) => {
    const known = knownError(error);
    if (known === undefined || known.code === "state.unwritable")
      log.error(
        { err: error, method: request.method, path: request.routeOptions.url },
        "a fault while answering a request",
      );
    return sendProblem(
      reply,
      known ?? new BedplateError("internal", "The controller failed; its log has more."),
    );
  });
  app.setNotFoundHandler((request, reply) => sendProblem(reply, notFound(request.method)));
}

/** For what is refused before any route is looked for, such as a path that cannot be decoded. */
export function answerUnreadable(_error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  // No hook sees these, so nobody knows whose it was: one a connection.
  void reply.header("connection", "close");
  void sendProblem(
    reply,
    new BedplateError("api.bad-request", `The path of this ${request.method} cannot be read.`, {
      hint: "After a % two hexadecimal digits follow, and what they say is UTF-8.",
    }),
  );
}

export function notFound(method: string): BedplateError {
  return new BedplateError("api.not-found", `There is nothing to ${method} at this path.`, {
    hint: "GET /openapi.json lists all paths, for who has a token.",
  });
}

function sendProblem(reply: FastifyReply, error: BedplateError): FastifyReply {
  const problem = problemOf(error);
  reply.request.problemCode = problem.code;
  if (problem.status === 401) void reply.header("www-authenticate", 'Bearer realm="bedplate"');
  if (problem.status === 429 && !reply.hasHeader("retry-after")) void reply.header("retry-after", "60");
  return reply
    .code(problem.status)
    .header("content-type", problemType)
    .serializer((payload: unknown) => JSON.stringify(payload))
    .send(problem);
}

export function problemOf(error: BedplateError): Problem {
  const report = reportOf(error);
  return {
    type: `urn:bedplate:problem:${report.code}`,
    title: codes[report.code],
    status: statusOf(report.code),
    code: report.code,
    detail: report.message,
    ...(report.hint === undefined ? {} : { hint: report.hint }),
    ...(report.details === undefined ? {} : { details: { ...report.details } }),
  };
}

function statusOf(code: Code): number {
  switch (code) {
    case "api.unauthorized":
      return 401;
    case "api.forbidden":
      return 403;
    case "api.not-found":
    case "host.unknown":
    case "image.unknown":
      return 404;
    case "authority.not-overlapping":
    case "authority.overlapping":
    case "enrol.fingerprint-mismatch":
    case "enrol.host-revoked":
    case "enrol.token-used":
    case "host.name-taken":
    case "host.not-pending":
    case "host.not-quarantined":
    case "host.quarantined":
    case "command.already-offered":
    case "command.id-conflict":
    case "command.not-cancellable":
    case "command.not-pausable":
    case "host.ambiguous":
    case "image.exists":
    case "image.in-use":
    case "image.incomplete":
    case "image.too-many":
      return 409;
    case "api.gone":
      return 410;
    case "api.too-large":
    case "frame.too-large":
      return 413;
    case "image.bad-manifest":
    case "image.corrupt":
    case "image.digest-mismatch":
    case "image.truncated":
      return 422;
    case "api.rate-limited":
      return 429;
    case "image.aborted":
    case "state.unwritable":
      return 503;
    case "image.store-failed":
    case "internal":
    case "worker.died":
      return 500;
    default:
      return 400;
  }
}

/** What the store says when the disk takes no more; @see https://sqlite.org/rescode.html: SQLITE_FULL, SQLITE_IOERR */
export function unwritable(error: unknown): BedplateError {
  const why = error instanceof Error ? error.message : String(error);
  return new BedplateError("state.unwritable", `The controller's state cannot be written: ${why}.`, {
    hint: "Make room on the disk of its state directory; what was answered before is safe.",
    cause: error,
  });
}

function isUnwritable(error: unknown): boolean {
  const code = error instanceof Error && "errcode" in error ? Number(error.errcode) & 0xff : undefined;
  return code === 13 || code === 10;
}

// Fastify's own errors have an HTTP status of theirs; what has neither that nor a code of ours is a fault.
function knownError(error: unknown): BedplateError | undefined {
  if (error instanceof BedplateError) return error.code === "internal" ? undefined : error;
  if (isUnwritable(error)) return unwritable(error);
  const status = error instanceof Error && "statusCode" in error ? Number(error.statusCode) : 500;
  const message = error instanceof Error ? error.message : String(error);
  if (status === 413)
    return new BedplateError("api.too-large", "The request's body is larger than is taken here.");
  if (status >= 400 && status < 500) return new BedplateError("api.bad-request", message);
  return undefined;
}
