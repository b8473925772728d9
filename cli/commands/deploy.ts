// `bedplate deploy HOST`: plan, confirm, sign, write, prove.
import type { Command as Program } from "commander";
import { Option } from "commander";
import { type OverridableGuard, overridableGuards, parseDiskSelector } from "../../protocol/disks.ts";
import type { Performer } from "../context.ts";
import { countOption, example } from "../options.ts";
import { addChangeOptions, changeOptionsOf, type GivenChangeOptions } from "./change-options.ts";

interface Options extends GivenChangeOptions {
  readonly image: string;
  readonly disk: string;
  readonly waitForDisk?: number;
  readonly override?: readonly OverridableGuard[];
}

export function addDeployCommand(program: Program, perform: Performer): void {
  const command = program
    .command("deploy")
    .argument("<host>", "name, id or the beginning of an id")
    .description("write an image onto a disk; all that the disk holds is lost")
    .requiredOption("--image <image>", "name, root or the beginning of a root")
    .requiredOption("--disk <selector>", "such as serial=S3Z9NX0M; see `bedplate host show HOST`")
    .option("--wait-for-disk <seconds>", "how long the disk may still take to appear", countOption)
    .addOption(
      new Option(
        "--override <guard...>",
        "let this guard pass for the disk of the plan's fingerprint; the host's policy must allow it",
      ).choices(overridableGuards),
    );
  addChangeOptions(command).action(
    perform<Options>(async (context, options, [reference]) => {
      const selector = parseDiskSelector(options.disk);
      const common = await changeOptionsOf(context, options, reference!);
      const { deploy } = await import("../deploy.ts");
      return deploy({
        ...common,
        image: options.image,
        selector,
        waitSeconds: options.waitForDisk,
        overrides: options.override,
      });
    }),
  );
  example(
    command,
    "bedplate deploy web-1 --image debian-12 --disk serial=S3Z9NX0M --plan",
    "bedplate deploy web-1 --image debian-12 --disk serial=S3Z9NX0M,type=ssd --yes",
    "bedplate deploy web-1 --image debian-12 --disk serial=S3Z9NX0M --sign ~/.ssh/id_ed25519",
  );
}
