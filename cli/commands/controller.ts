// `bedplate controller`: runs the controller until it is stopped.
import type { Command } from "commander";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";

interface Options {
  readonly config?: string;
  readonly stateDirectory?: string;
  readonly listen?: string;
}

export function addControllerCommand(program: Command, perform: Performer): void {
  const command = program
    .command("controller")
    .description("run the controller")
    .option("--config <file>", "the configuration file")
    .option("--state-directory <directory>", "where keys, database and images are kept")
    .option("--listen <address>", "address and port, such as 127.0.0.1:7443; port 0 takes a free one")
    .action(
      perform<Options>(
        async ({ terminal, signal }, { config, stateDirectory, listen }) => {
          const { runController } = await import("../../controller/main.ts");
          await runController(
            {
              ...(config === undefined ? {} : { configFile: config }),
              ...(stateDirectory === undefined ? {} : { stateDirectory }),
              ...(listen === undefined ? {} : { listen }),
            },
            signal,
            (address) => terminal.document({ listening: address }),
          );
          return exitCodes.ok;
        },
        { lines: true },
      ),
    );
  example(command, "bedplate controller --state-directory ~/bedplate --listen 127.0.0.1:7443");
}
