// `bedplate exec HOST -- PROGRAM ARGUMENT…`: runs a program on a host, where its policy lists it.
import { InvalidArgumentError, type Command as Program } from "commander";
import type { Performer } from "../context.ts";
import { bytesOption, example } from "../options.ts";
import { addChangeOptions, changeOptionsOf, type GivenChangeOptions } from "./change-options.ts";

interface Options extends GivenChangeOptions {
  readonly directory?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly outputMax?: number;
}

export function addExecCommand(program: Program, perform: Performer): void {
  const command = program
    .command("exec")
    .argument("<host>", "name, id or the beginning of an id")
    .argument("<argv...>", "after --: the program's absolute path and its arguments; no shell reads them")
    .description("run a program on a host, where its policy lists it; the output comes as it is printed")
    .option("--directory <path>", "where it starts (/)")
    .option("--environment <name=value>", "beside the clean environment; may be repeated", environmentOption)
    .option("--output-max <bytes>", "more output than this ends it", bytesOption);
  addChangeOptions(command).action(
    perform<Options>(async (context, options, [reference, ...argv]) => {
      const common = await changeOptionsOf(context, options, reference!);
      const { exec } = await import("../exec.ts");
      return exec({
        ...common,
        argv,
        ...(options.directory === undefined ? {} : { directory: options.directory }),
        ...(options.environment === undefined ? {} : { environment: options.environment }),
        ...(options.outputMax === undefined ? {} : { outputBytesMax: options.outputMax }),
      });
    }),
  );
  example(
    command,
    "bedplate exec web-1 -- /usr/bin/uptime",
    "bedplate exec web-1 --sign agent --timeout 5m -- /usr/bin/systemctl restart nginx.service",
    "",
    "The exit code is 0 when the program's was 0, else 1; with --json, .exec.exitCode is the program's own.",
  );
}

function environmentOption(
  text: string,
  before: Readonly<Record<string, string>> = {},
): Readonly<Record<string, string>> {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError('Write NAME=VALUE, such as "LANG=C".');
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}
