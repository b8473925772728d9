// `bedplate demo`: everything once, on this machine, with nothing left behind.
import type { Command } from "commander";
import type { Performer } from "../context.ts";
import { bytesOption, example } from "../options.ts";

interface Options {
  readonly once?: boolean;
  readonly image?: string;
  readonly size: number;
}

export function addDemoCommand(program: Command, perform: Performer): void {
  const command = program
    .command("demo")
    .description("show all of it on this machine: join, telemetry, deploy, a flipped bit, a killed executor")
    .option("--once", "end after the last act instead of staying with a live view")
    .option("--image <file>", "deploy this image instead of one made of this machine's own files")
    .option("--size <bytes>", "size of the image that is made", bytesOption, 192 * 2 ** 20)
    .action(
      perform<Options>(
        async ({ terminal, signal }, { once = false, image, size }) => {
          const { runDemo } = await import("../demo/demo.ts");
          const given = image === undefined ? {} : { imageFile: image };
          return runDemo({ terminal, once, sizeBytes: size, ...given }, signal);
        },
        { clearsAway: true },
      ),
    );
  example(command, "bedplate demo", "bedplate demo --once --json", "bedplate demo --image debian-12.raw");
}
