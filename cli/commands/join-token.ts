// `bedplate join-token create`: what a new host needs to join.
import type { Command } from "commander";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { countOption, durationOption, example } from "../options.ts";
import { formatTime } from "../output.ts";

interface Options {
  readonly ttl: number;
  readonly uses: number;
}

export function addJoinTokenCommands(program: Command, perform: Performer): void {
  const noun = program.command("join-token").description("tokens that let new hosts join");
  const create = noun
    .command("create")
    .description("make a join token; it is shown this once")
    .option("--ttl <duration>", "how long it can be used", durationOption, 3600)
    .option("--uses <n>", "how many hosts can join with it", countOption, 1)
    .action(
      perform<Options>(async ({ terminal, api }, { ttl, uses }) => {
        const token = await (await api()).createJoinToken({ ttlSeconds: ttl, uses });
        terminal.document(token);
        terminal.note(
          `For ${token.uses === 1 ? "one host" : `${token.uses} hosts`}, until ${formatTime(token.expiresAt)}. On the host: bedplate agent --join TOKEN`,
        );
        terminal.print(token.token);
        return exitCodes.ok;
      }),
    );
  example(create, "bedplate join-token create --ttl 1h --uses 1");
}
