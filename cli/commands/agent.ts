// `bedplate agent`: runs the agent of this host until it is stopped.
import type { Command } from "commander";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";

interface Options {
  readonly config?: string;
  readonly check?: boolean;
  readonly join?: string;
}

export function addAgentCommand(program: Command, perform: Performer): void {
  const command = program
    .command("agent")
    .description("run the agent of this host")
    .option("--config <file>", "the configuration file")
    .option("--check", "only check the configuration, and say what is wrong with it")
    .option("--join <token>", "the join token of the first start (else joinToken of the configuration)")
    .action(
      perform<Options>(
        async ({ terminal, signal }, { config, check, join }) => {
          const { runAgent } = await import("../../agent/main.ts");
          await runAgent(
            {
              ...(config === undefined ? {} : { configFile: config }),
              ...(join === undefined ? {} : { joinToken: join }),
              ...(check === true ? { check } : {}),
            },
            signal,
          );
          if (check === true) {
            terminal.document({ ok: true });
            terminal.print("The configuration can be used.");
          }
          return exitCodes.ok;
        },
        { lines: true },
      ),
    );
  example(
    command,
    "bedplate agent --config /etc/bedplate/agent.toml --check",
    "bedplate agent --config /etc/bedplate/agent.toml --join bedplate-join.ID.SECRET.PIN",
  );
}
