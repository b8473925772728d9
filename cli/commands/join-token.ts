// `bedplate join-token create|list|revoke`: what a new host needs to join.
import type { Command } from "commander";
import type { JoinTokenView } from "../../protocol/api.ts";
import { now } from "../clock.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { approveOption, countUpTo, example, monthOption, nameOption } from "../options.ts";
import { formatTime, table } from "../output.ts";
import { stateOf } from "./token.ts";

interface Options {
  readonly ttl: number;
  readonly uses: number;
  readonly approve: "auto" | "manual";
  readonly for?: string;
  readonly cidr?: string;
}

export function addJoinTokenCommands(program: Command, perform: Performer): void {
  const noun = program.command("join-token").description("tokens that let new hosts join");
  const create = noun
    .command("create")
    .description("make a join token; it is shown this once")
    .option("--ttl <duration>", "how long it can be used, at most 30d (1h)", monthOption, 3600)
    .option("--uses <n>", "how many hosts can join with it", countUpTo(10_000), 1)
    .option(
      "--approve <how>",
      "auto, or manual: hosts wait for `bedplate host approve`",
      approveOption,
      "auto",
    )
    .option(
      "--for <host>",
      "its new key takes over this host's name and history; the old key is revoked then",
      nameOption,
    )
    .option("--cidr <network>", "only from addresses within it, such as 10.1.0.0/16")
    .action(
      perform<Options>(async ({ terminal, api }, { ttl, uses, approve, for: host, cidr }) => {
        const token = await (await api()).createJoinToken({
          ttlSeconds: ttl,
          uses,
          approve,
          ...(host === undefined ? {} : { for: host }),
          ...(cidr === undefined ? {} : { cidr }),
        });
        terminal.document(token);
        terminal.note(
          `For ${token.uses === 1 ? "one host" : `${token.uses} hosts`}, until ${formatTime(token.expiresAt)}${boundText(token)}. On the host: bedplate agent --join TOKEN`,
        );
        terminal.print(token.token);
        return exitCodes.ok;
      }),
    );
  example(
    create,
    "bedplate join-token create --ttl 1h --uses 1",
    "bedplate join-token create --uses 40 --approve manual --cidr 10.1.0.0/16",
    "bedplate join-token create --for web-1",
  );

  const list = noun
    .command("list")
    .description("list the join tokens, without their secrets")
    .action(
      perform(async ({ terminal, api }) => {
        const joinTokens = await (await api()).joinTokens();
        terminal.document({ joinTokens });
        terminal.print(
          joinTokens.length === 0
            ? "No join token was made."
            : table(joinTokens, [
                { title: "ID", of: (token) => token.id },
                { title: "STATE", of: (token) => (spent(token) ? "used up" : stateOf(token, now())) },
                { title: "USED", of: (token) => `${token.used} of ${token.uses}` },
                { title: "EXPIRES", of: (token) => formatTime(token.expiresAt) },
                { title: "APPROVE", of: (token) => token.approve },
                { title: "FOR", of: (token) => token.for?.slice(0, 12) ?? null },
                { title: "FROM", of: (token) => token.cidr },
              ]),
        );
        return exitCodes.ok;
      }),
    );
  example(list, "bedplate join-token list");

  const revoke = noun
    .command("revoke")
    .argument("<id>", "from `bedplate join-token list`")
    .description("let nobody else join with a token; hosts that did stay")
    .action(
      perform(async ({ terminal, api }, _, [id]) => {
        const token = await (await api()).revokeJoinToken(id!);
        terminal.document(token);
        terminal.print(
          `The join token ${token.id} is revoked; ${token.used} of ${token.uses} hosts had used it.`,
        );
        return exitCodes.ok;
      }),
    );
  example(revoke, "bedplate join-token revoke 3f9c1d2e4b5a6978");
}

function spent(token: { readonly used: number; readonly uses: number; readonly revokedAt: number | null }) {
  return token.revokedAt === null && token.used >= token.uses;
}

function boundText(token: JoinTokenView): string {
  return [
    ...(token.approve === "manual" ? ["approved by a person"] : []),
    ...(token.for === null ? [] : [`in the place of ${token.for.slice(0, 12)}`]),
    ...(token.cidr === null ? [] : [`from ${token.cidr}`]),
  ]
    .map((text) => `, ${text}`)
    .join("");
}
