// `bedplate logs HOST`: the newest lines that a host's agent or its executors logged.
import type { Command as Program } from "commander";
import { LogsOutput } from "../../protocol/commands.ts";
import type { Performer } from "../context.ts";
import { exitCodeOfState, exitCodes } from "../exit-codes.ts";
import { countUpTo, example, sourceOption } from "../options.ts";
import { plain } from "../output.ts";

interface Options {
  readonly source: "agent" | "executor";
  readonly lines: number;
}

const seconds = 30;

export function addLogsCommand(program: Program, perform: Performer): void {
  const command = program
    .command("logs")
    .argument("<host>", "name, id or the beginning of an id")
    .description("the newest lines that a host's agent or its executors logged")
    .option("--source <source>", "agent or executor", sourceOption, "agent" as const)
    .option("--lines <n>", "at most so many, up to 1000", countUpTo(1000), 100)
    .action(
      perform<Options>(async ({ terminal, signal, api }, { source, lines }, [reference]) => {
        const { operate, outputOf, succeeded } = await import("../operation.ts");
        const { host, view } = await operate({
          client: await api(),
          terminal,
          signal,
          reference: reference!,
          kind: "agent.logs",
          arguments: { source, lines },
          timeoutSeconds: seconds,
        });
        if (!succeeded(view, terminal)) return exitCodeOfState(view.state);
        const logs = outputOf(view, LogsOutput);
        terminal.document({ host: host.name, ...logs });
        if (logs.truncated) terminal.note("there are more before these");
        for (const line of logs.lines) terminal.print(plain(line));
        return exitCodes.ok;
      }),
    );
  example(command, "bedplate logs web-1", "bedplate logs web-1 --source executor --lines 20");
}
