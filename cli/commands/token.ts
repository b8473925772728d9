// `bedplate token create|list|revoke`: who may use the controller's API, for what and how long.
import type { Command } from "commander";
import type { Scope } from "../../protocol/api.ts";
import { now } from "../clock.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { durationUpTo, example, nameOption, scopeOption } from "../options.ts";
import { formatAge, formatTime, table } from "../output.ts";

interface Options {
  readonly scope: Scope;
  readonly ttl: number;
  readonly name?: string;
}

const ttlSeconds = 90 * 86_400;

export function addTokenCommands(program: Command, perform: Performer): void {
  const noun = program.command("token").description("tokens that open the controller's API");
  const create = noun
    .command("create")
    .description("make an API token; it is shown this once")
    .requiredOption(
      "--scope <scope>",
      "read (look), operate (and command hosts, add images), admin (and hosts, tokens, backups)",
      scopeOption,
    )
    .option(
      "--ttl <duration>",
      "how long it can be used, at most 366d (90d)",
      durationUpTo(366 * 86_400),
      ttlSeconds,
    )
    .option("--name <name>", "what it is called in lists and in the audit", nameOption)
    .action(
      perform<Options>(async ({ terminal, api }, { scope, ttl, name }) => {
        const made = await (await api()).createToken({
          scope,
          ttlSeconds: ttl,
          ...(name === undefined ? {} : { name }),
        });
        terminal.document(made);
        terminal.note(
          `"${made.name}" may ${made.scope}, until ${made.expiresAt === null ? "revoked" : formatTime(made.expiresAt)}; to end it: bedplate token revoke ${made.id}`,
        );
        terminal.print(made.token);
        return exitCodes.ok;
      }),
    );
  example(create, "bedplate token create --scope read --ttl 30d --name grafana");

  const list = noun
    .command("list")
    .description("list the API tokens, without their secrets")
    .action(
      perform(async ({ terminal, api }) => {
        const tokens = await (await api()).tokens();
        terminal.document({ tokens });
        terminal.print(
          table(tokens, [
            { title: "ID", of: (token) => token.id },
            { title: "NAME", of: (token) => token.name },
            { title: "SCOPE", of: (token) => token.scope },
            { title: "STATE", of: (token) => stateOf(token, now()) },
            {
              title: "EXPIRES",
              of: (token) => (token.expiresAt === null ? "never" : formatTime(token.expiresAt)),
            },
            { title: "LAST USED", of: (token) => formatAge(token.lastUsedAt, now()) },
            { title: "MADE", of: (token) => formatAge(token.createdAt, now()) },
          ]),
        );
        return exitCodes.ok;
      }),
    );
  example(list, "bedplate token list");

  const revoke = noun
    .command("revoke")
    .argument("<id>", "from `bedplate token list`")
    .description("make an API token useless at once")
    .action(
      perform(async ({ terminal, api }, _, [id]) => {
        const token = await (await api()).revokeToken(id!);
        terminal.document(token);
        terminal.print(`The token "${token.name}" (${token.id}) is revoked.`);
        return exitCodes.ok;
      }),
    );
  example(revoke, "bedplate token revoke 3f9c1d2e4b5a6978");
}

/** Of an API token or a join token. */
export function stateOf(
  token: { readonly revokedAt: number | null; readonly expiresAt: number | null },
  at: number,
): string {
  if (token.revokedAt !== null) return "revoked";
  return token.expiresAt !== null && token.expiresAt <= at ? "expired" : "valid";
}
