// `bedplate verify HOST`: whether a disk holds an image, without changing it.
import type { Command as Program } from "commander";
import { VerifyOutput } from "../../protocol/commands.ts";
import { parseDiskSelector } from "../../protocol/disks.ts";
import type { Performer } from "../context.ts";
import { exitCodeOfEnd, exitCodes } from "../exit-codes.ts";
import { example, monthOption, rateOption } from "../options.ts";
import { facts, formatSeconds } from "../output.ts";

interface Options {
  readonly image: string;
  readonly disk: string;
  readonly timeout?: number;
  readonly limitRead?: number;
}

export function addVerifyCommand(program: Program, perform: Performer): void {
  const command = program
    .command("verify")
    .argument("<host>", "name, id or the beginning of an id")
    .description("read a disk back and compare it with an image")
    .requiredOption("--image <image>", "name, root or the beginning of a root")
    .requiredOption("--disk <selector>", "such as serial=S3Z9NX0M; see `bedplate host show HOST`")
    .option("--timeout <duration>", "how long it may run", monthOption)
    .option("--limit-read <rate>", "read no more than so much a second, such as 100M", rateOption)
    .action(
      perform<Options>(
        async ({ terminal, signal, api }, { image, disk, timeout, limitRead }, [reference]) => {
          const selector = parseDiskSelector(disk);
          const { operate, outputOf, succeeded } = await import("../operation.ts");
          const client = await api();
          const { root, sizeBytes, name } = await client.image(image);
          const { view } = await operate({
            client,
            terminal,
            signal,
            reference: reference!,
            kind: "image.verify",
            arguments: {
              image: { root, sizeBytes, name },
              disk: selector,
              ...(limitRead === undefined ? {} : { limits: { bytesPerSecondMax: limitRead } }),
            },
            ...(timeout === undefined ? {} : { timeoutSeconds: timeout }),
          });
          // What differs stands on the standard output, also where that is a failure.
          const { wrongPairsOf } = await import("../deploy.ts");
          const wrong = wrongPairsOf(view);
          if (wrong.length > 0) terminal.print(facts(wrong));
          if (!succeeded(view, terminal)) return exitCodeOfEnd(view);
          const output = outputOf(view, VerifyOutput);
          terminal.document({ verify: output, command: view });
          terminal.print(
            facts([
              ["image root", output.expectedRoot],
              ["disk root", `${output.root}  ${output.matches ? "the same" : "DIFFERENT"}`],
              [
                "read",
                `${output.groups} groups in ${formatSeconds(output.seconds)}, ${output.direct ? "past the page cache" : "through the page cache"}`,
              ],
            ]),
          );
          return exitCodes.ok;
        },
      ),
    );
  example(command, "bedplate verify web-1 --image debian-12 --disk serial=S3Z9NX0M");
}
