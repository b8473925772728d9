// /v1/backups: a backup made beside the state it is of. Its bytes, with the keys in them, never go over the API.
import { BackupView } from "../../protocol/api.ts";
import type { ApiParts, App } from "./app.ts";
import { problemAnswers } from "./schemas.ts";

export function backupRoutes(app: App, { backups }: ApiParts): void {
  app.post(
    "/v1/backups",
    { config: { access: "admin" }, schema: { response: { 201: BackupView, ...problemAnswers } } },
    async (request, reply) => {
      const made = await backups.make();
      request.auditObject = made.file;
      return reply.code(201).send(made);
    },
  );
}
