// `bedplate hash`: prints what b3sum and sha256sum print.
import { type Command, InvalidArgumentError } from "commander";
import { coresAllowed } from "../../assembly/cores.ts";
import type { Performer } from "../context.ts";
import { countUpTo, example } from "../options.ts";

export interface HashOptions {
  readonly algorithm: "blake3" | "sha256";
  readonly threads: number;
}

export function addHashCommand(program: Command, perform: Performer): void {
  const command = program
    .command("hash")
    .argument("[file...]", "files, or - for standard input (the default)")
    .description("print digests of files, as b3sum and sha256sum do")
    .option("--algorithm <name>", "blake3 or sha256", algorithmOption, "blake3")
    .option("--threads <n>", "worker threads for one large file", countUpTo(1024), coresAllowed())
    .action(
      perform<HashOptions>(
        async ({ terminal, signal }, options, files) => {
          const { runHash } = await import("../hash.ts");
          return runHash({ ...options, files: files.length === 0 ? ["-"] : files, terminal }, signal);
        },
        { prints: true },
      ),
    );
  example(
    command,
    "bedplate hash debian-12.raw",
    "bedplate hash --algorithm sha256 --threads 2 debian-12.raw",
    "zcat image.gz | bedplate hash -",
  );
}

function algorithmOption(text: string): "blake3" | "sha256" {
  if (text !== "blake3" && text !== "sha256")
    throw new InvalidArgumentError("Algorithms are blake3 and sha256.");
  return text;
}
