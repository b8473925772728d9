// `bedplate deploy HOST`: plan, confirm, sign, write, prove.
import type { Command as Program } from "commander";
import { Option } from "commander";
import { deployDisksMax } from "../../protocol/commands.ts";
import { type OverridableGuard, overridableGuards, parseDiskSelector } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { Performer } from "../context.ts";
import { durationUpTo, example, rateOption } from "../options.ts";
import { addChangeOptions, changeOptionsOf, type GivenChangeOptions } from "./change-options.ts";

interface Options extends GivenChangeOptions {
  readonly image: string;
  readonly waitForDisk?: number;
  readonly limitFetch?: number;
  readonly limitWrite?: number;
}

export function addDeployCommand(program: Program, perform: Performer): void {
  const command = program
    .command("deploy")
    .argument("<host>", "name, id or the beginning of an id")
    .description("write an image onto a disk, or onto several; all that they hold is lost")
    .requiredOption("--image <image>", "name, root or the beginning of a root")
    .requiredOption(
      "--disk <selector>",
      `such as serial=S3Z9NX0M; see \`bedplate host show HOST\`; again for further disks, at most ${deployDisksMax}, that get the same image`,
    )
    .option(
      "--wait-for-disk <duration>",
      "how long the disks may still take to appear, at most 1h",
      durationUpTo(3600),
    )
    .addOption(
      new Option(
        "--override <guard...>",
        "let this guard pass for the disk named before it, as the plan's fingerprint knows it; the host's policy must allow it",
      ).choices(overridableGuards),
    )
    .option("--limit-fetch <rate>", "fetch no more than so much a second, such as 20M", rateOption)
    .option("--limit-write <rate>", "write no more than so much a second, such as 100M", rateOption);
  const disks: { selector: string; overrides: OverridableGuard[] }[] = [];
  // Named before any disk they are the first one's.
  const early: OverridableGuard[] = [];
  command.on("option:disk", (text: string) => {
    disks.push({ selector: text, overrides: early.splice(0) });
  });
  command.on("option:override", (guard: OverridableGuard) => (disks.at(-1)?.overrides ?? early).push(guard));
  addChangeOptions(command).action(
    perform<Options>(async (context, options, [reference]) => {
      const wanted = disks.map((disk) => ({ ...disk, selector: parseDiskSelector(disk.selector) }));
      if (disks.length > deployDisksMax)
        throw new BedplateError("usage", `At most ${deployDisksMax} disks can be named at once.`);
      const common = await changeOptionsOf(context, options, reference!);
      const { deploy } = await import("../deploy.ts");
      return deploy({
        ...common,
        image: options.image,
        disks: wanted,
        waitSeconds: options.waitForDisk,
        work: {
          ...(options.limitWrite === undefined ? {} : { bytesPerSecondMax: options.limitWrite }),
          ...(options.limitFetch === undefined ? {} : { fetchBytesPerSecondMax: options.limitFetch }),
        },
      });
    }),
  );
  example(
    command,
    "bedplate deploy web-1 --image debian-12 --disk serial=S3Z9NX0M --plan",
    "bedplate deploy web-1 --image debian-12 --disk serial=S3Z9NX0M,type=ssd --yes",
    "bedplate deploy web-1 --image debian-12 --disk serial=S3Z9NX0M --disk serial=S3Z9NX1K --limit-fetch 50M",
    "bedplate deploy web-1 --image debian-12 --disk serial=S3Z9NX0M --sign ~/.ssh/id_ed25519",
  );
}
