// `bedplate audit api`: who called what of the controller from where.
import type { Command } from "commander";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { countOption, example } from "../options.ts";
import { formatTime, table } from "../output.ts";

export function addAuditCommand(program: Command, perform: Performer): void {
  const noun = program.command("audit").description("what was done, by whom");
  const api = noun
    .command("api")
    .description("calls to the controller's API that changed something or were to, newest first")
    .option("--limit <n>", "at most so many, up to 1000", countOption, 50)
    .action(
      perform<{ limit: number }>(async ({ terminal, api }, { limit }) => {
        const entries = await (await api()).audit(limit);
        terminal.document({ entries });
        terminal.print(
          entries.length === 0
            ? "Nothing was changed yet."
            : table(entries, [
                { title: "TIME", of: (entry) => formatTime(entry.at) },
                { title: "TOKEN", of: (entry) => `${entry.token.name} (${entry.token.id})` },
                { title: "FROM", of: (entry) => entry.address },
                { title: "CALL", of: (entry) => `${entry.method} ${entry.route}` },
                { title: "OBJECT", of: (entry) => entry.object },
                {
                  title: "OUTCOME",
                  of: (entry) => (entry.code === null ? `${entry.status}` : `${entry.status} ${entry.code}`),
                },
              ]),
        );
        return exitCodes.ok;
      }),
    );
  example(api, "bedplate audit api --limit 20");
}
