// `bedplate controller`: runs the controller until it is stopped; `controller backup|restore|rotate-ca`.
import type { Command } from "commander";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { countOption, example } from "../options.ts";

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

  const backup = command
    .command("backup")
    .argument("<file>", "where to; must not exist")
    .description(
      "write a consistent copy of state and keys, not of images; on the controller's machine, as its user",
    )
    .action(
      perform<Options>(async (context, { stateDirectory }, [file]) => {
        const { backupTo } = await import("../backup.ts");
        return backupTo(context, { file: file!, stateDirectory });
      }),
    );
  example(backup, "bedplate controller backup /srv/backups/controller-monday.bedplate");

  const restore = command
    .command("restore")
    .argument("<file>", "made with `bedplate controller backup`")
    .description("make a new state directory from a backup, with a higher epoch; images are added again")
    .option("--epoch <n>", "at least this epoch, for when an agent says link.stale-epoch", countOption)
    .action(
      perform<Options & { epoch?: number }>(async (context, { stateDirectory, epoch }, [file]) => {
        const { restoreFrom } = await import("../backup.ts");
        return restoreFrom(context, { file: file!, stateDirectory, epochMin: epoch });
      }),
    );
  example(restore, "bedplate controller restore controller-monday.bedplate --state-directory ~/bedplate-2");

  const rotate = command
    .command("rotate-ca")
    .description(
      "change the controller's authority: agents that connect trust the new one beside the old, until --finish",
    )
    .option("--finish", "drop the old one; hosts that have not connected since need a new join token")
    .option("--status", "only say how far it is")
    .option("--yes", "finish although hosts have not connected since")
    .action(
      perform<{ finish?: boolean; status?: boolean; yes?: boolean }>(async (context, options) => {
        const { rotateAuthority } = await import("../rotate-authority.ts");
        return rotateAuthority({
          client: await context.api(),
          terminal: context.terminal,
          step: options.status === true ? "status" : options.finish === true ? "finish" : "rotate",
          unasked: options.yes === true,
        });
      }),
    );
  example(
    rotate,
    "bedplate controller rotate-ca",
    "bedplate controller rotate-ca --status",
    "bedplate controller rotate-ca --finish",
  );
}
