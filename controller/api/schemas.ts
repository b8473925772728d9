// Requests and answers checked against protocol/api.ts, and the pieces of schema that routes share.
import Type, { type TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { Convert } from "typebox/value";
import { Problem } from "../../protocol/api.ts";
import { assert, type BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import { checker } from "../../protocol/schema.ts";
import type { App } from "./app.ts";
import { problemType } from "./problems.ts";

/** What a host is called in a path: its id, a prefix of 6 digits or more, or its name. */
export const HostParameters = Type.Object({
  host: Type.String({ minLength: 1, maxLength: limits.nameLengthMax }),
});
/** An image's root, a prefix of 8 digits or more, or its name. */
export const ImageParameters = Type.Object({
  root: Type.String({ minLength: 1, maxLength: limits.nameLengthMax }),
});

/** The answer of every route when it is not the one asked for. */
export const problemAnswers = {
  default: { description: "A problem (RFC 9457).", content: { [problemType]: { schema: Problem } } },
};

export const octets = "application/octet-stream";
/** A body that is a stream: documented, and left to its route unread. */
export const Octets = Type.String({ format: "binary" });

/** Answers that are not JSON: text, octets, events. */
export function answerOf(description: string, contentType: string): Record<string, unknown> {
  return {
    description,
    content: { [contentType]: { schema: contentType === octets ? Octets : Type.String() } },
  };
}

/** Makes Fastify check by our schemas what comes in, and what goes out. */
export function checkBySchemas(app: App): void {
  app.setValidatorCompiler(({ schema, httpPart }) => {
    if ((schema as { format?: string }).format === "binary") return (value: unknown) => ({ value });
    const what =
      httpPart === "body"
        ? "request's body"
        : httpPart === "querystring"
          ? "request's query"
          : httpPart === "headers"
            ? "request's headers"
            : "request's path";
    const check = checker(schema as TSchema, "api.bad-request", what);
    return (value: unknown) => {
      try {
        // Only what came as text is converted: `limit=5`. A body says its types itself.
        return { value: check(httpPart === "body" ? value : Convert(schema as TSchema, value)) };
      } catch (error) {
        return { error: error as BedplateError };
      }
    };
  });
  app.setSerializerCompiler(({ schema, url }) => {
    const compiled = Compile(schema as TSchema);
    return (value: unknown) => {
      assert(typeof value === "string" || compiled.Check(value), `an answer of ${url} matches its schema`);
      return typeof value === "string" ? value : JSON.stringify(value);
    };
  });
}
