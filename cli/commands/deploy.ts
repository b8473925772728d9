// `bedplate deploy HOST`: plan, confirm, write, prove.
import type { Command as Program } from "commander";
import { parseDiskSelector } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { Performer } from "../context.ts";
import { durationOption, example } from "../options.ts";

interface Options {
  readonly image: string;
  readonly disk: string;
  readonly plan?: boolean;
  readonly yes?: boolean;
  readonly timeout?: number;
}

export function addDeployCommand(program: Program, perform: Performer): void {
  const command = program
    .command("deploy")
    .argument("<host>", "name, id or the beginning of an id")
    .description("write an image onto a disk; all that the disk holds is lost")
    .requiredOption("--image <image>", "name, root or the beginning of a root")
    .requiredOption("--disk <selector>", "such as serial=S3Z9NX0M; see `bedplate host show HOST`")
    .option("--plan", "only show what would happen; exit code 3 when a guard refuses")
    .option("--yes", "do not ask")
    .option("--timeout <duration>", "how long it may run, enforced on the host", durationOption)
    .action(
      perform<Options>(
        async (
          { terminal, signal, api },
          { image, disk, plan = false, yes = false, timeout },
          [reference],
        ) => {
          const selector = parseDiskSelector(disk);
          if (!plan && !yes && !terminal.interactive) {
            throw new BedplateError("usage", "Nobody can be asked here to confirm what is lost.", {
              hint: "Look at it with --plan, then say --yes.",
            });
          }
          const { deploy } = await import("../deploy.ts");
          return deploy({
            client: await api(),
            terminal,
            signal,
            reference: reference!,
            image,
            selector,
            planOnly: plan,
            confirmed: yes,
            ...(timeout === undefined ? {} : { timeoutSeconds: timeout }),
          });
        },
      ),
    );
  example(
    command,
    "bedplate deploy web-1 --image debian-12 --disk serial=S3Z9NX0M --plan",
    "bedplate deploy web-1 --image debian-12 --disk serial=S3Z9NX0M,type=ssd --yes",
  );
}
