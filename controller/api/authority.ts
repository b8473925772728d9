// /v1/ca and /v1/authority: what hosts pin, and changing it with an overlap.
import { RotationView } from "../../protocol/api.ts";
import type { ApiParts, App } from "./app.ts";
import { answerOf, problemAnswers } from "./schemas.ts";

export function authorityRoutes(app: App, { authority }: ApiParts): void {
  // Public, and believed only when the SHA-256 of one of them is the one in a join token.
  app.get(
    "/v1/ca",
    {
      config: { access: "anyone" },
      schema: {
        response: {
          200: answerOf(
            "The CA certificates, PEM, newest first: two while one takes over from the other.",
            "application/x-pem-file",
          ),
          ...problemAnswers,
        },
      },
    },
    async (_request, reply) =>
      reply.header("content-type", "application/x-pem-file").send(authority.current.trustedPem),
  );

  const answers = { 200: RotationView, ...problemAnswers };
  app.get("/v1/authority", { config: { access: "read" }, schema: { response: answers } }, () =>
    authority.view(),
  );
  for (const step of ["rotate", "finish"] as const) {
    app.post(
      `/v1/authority/${step}`,
      { config: { access: "admin" }, schema: { response: answers } },
      async (request) => {
        const view = await authority[step]();
        request.auditObject = view.authorities[0]!;
        return view;
      },
    );
  }
}
