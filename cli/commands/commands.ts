// `bedplate commands`, `command show ID`, `command cancel ID`.
import type { Command as Program } from "commander";
import type { CommandView } from "../../protocol/api.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { now } from "../clock.ts";
import { errorOfReport, type Performer } from "../context.ts";
import { exitCodeOfState, exitCodes } from "../exit-codes.ts";
import { follow } from "../follow.ts";
import { countOption, example, stateOption } from "../options.ts";
import { explanationFacts, facts, formatAge, formatTime, progressLine, table } from "../output.ts";
import type { Terminal } from "../terminal.ts";

interface ListOptions {
  readonly host?: string;
  readonly state?: string;
  readonly limit: number;
}

export function addCommandCommands(program: Program, perform: Performer): void {
  const list = program
    .command("commands")
    .description("list commands, newest first")
    .option("--host <host>", "only of this host")
    .option("--state <state>", "only in this state", stateOption)
    .option("--limit <n>", "at most so many", countOption, 50)
    .action(
      perform<ListOptions>(async ({ terminal, api }, { host, state, limit }) => {
        const commands = await (await api()).commands({
          ...(host === undefined ? {} : { host }),
          ...(state === undefined ? {} : { state }),
          limit,
        });
        terminal.document({ commands });
        terminal.print(commands.length === 0 ? "There are no such commands." : commandTable(commands));
        return exitCodes.ok;
      }),
    );
  example(list, "bedplate commands --host web-1 --state running");

  const noun = program.command("command").description("one command");
  const show = noun
    .command("show")
    .argument("<id>", "the command's id")
    .description("state, progress and result of a command")
    .option("--follow", "stay until it ends; the exit code is then its outcome's")
    .action(
      perform<{ follow?: boolean }>(
        async ({ terminal, signal, api }, options, [id]) => {
          const client = await api();
          if (options.follow !== true) {
            const view = await client.command(id!);
            terminal.document(view);
            terminal.print(commandText(view));
            return exitCodes.ok;
          }
          const last = await follow(client, id!, signal, (view) => {
            terminal.document(view);
            if (!isTerminal(view.state)) terminal.status(stateLine(view, terminal));
          });
          terminal.status("");
          terminal.print(commandText(last));
          return exitCodeOfState(last.state);
        },
        { lines: true },
      ),
    );
  example(show, "bedplate command show 01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90 --follow");

  const cancel = noun
    .command("cancel")
    .argument("<id>", "the command's id")
    .description("ask for a command to be cancelled, and wait for the answer")
    .action(
      perform(async ({ terminal, signal, api }, _, [id]) => {
        const client = await api();
        await client.cancel(id!);
        const view = await follow(client, id!, signal, (seen) => terminal.status(stateLine(seen, terminal)));
        terminal.status("");
        terminal.document(view);
        terminal.print(commandText(view));
        // Cancelled is what was asked for; anything else came too late.
        return view.state === "cancelled" ? exitCodes.ok : exitCodes.refused;
      }),
    );
  example(cancel, "bedplate command cancel 01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90");
}

function stateLine(view: CommandView, terminal: Terminal): string {
  if (view.progress !== null) return progressLine(view.progress, terminal.columns);
  return view.reason === null ? view.state : `${view.state}: ${view.reason}`;
}

function commandTable(commands: readonly CommandView[]): string {
  return table(commands, [
    { title: "ID", of: (view) => view.id },
    { title: "HOST", of: (view) => view.hostName },
    { title: "KIND", of: (view) => (view.mode === "plan" ? `${view.kind} (plan)` : view.kind) },
    { title: "STATE", of: (view) => view.state },
    { title: "AGE", of: (view) => formatAge(view.createdAt, now()) },
    { title: "CODE", of: (view) => view.result?.error?.code ?? null },
  ]);
}

function commandText(view: CommandView): string {
  const error = view.result?.error;
  const pairs: (readonly [string, string | null])[] = [
    ["command", view.id],
    ["host", `${view.hostName} (${view.host.slice(0, 12)})`],
    ["kind", view.mode === "plan" ? `${view.kind} (plan)` : view.kind],
    ["state", `${view.state} since ${formatTime(view.since)}`],
    ...explanationFacts(view),
    ["arguments", JSON.stringify(view.arguments)],
    ["runs", `${view.runs}`],
    ...view.history.map(({ state, at }): [string, string] => [`  ${state}`, formatTime(at)]),
  ];
  if (view.cancelRequestedAt !== null) pairs.push(["cancel asked", formatTime(view.cancelRequestedAt)]);
  if (!isTerminal(view.state) && view.progress !== null)
    pairs.push(["progress", progressLine(view.progress, 100)]);
  const text = [facts(pairs)];
  if (error !== undefined) {
    const { message, hint, code } = errorOfReport(error);
    text.push(
      facts([
        ["error", message],
        ...(hint === undefined ? [] : [["hint", hint] as [string, string]]),
        ["code", code],
      ]),
    );
  }
  if (view.result?.output !== undefined) text.push(JSON.stringify(view.result.output, undefined, 2));
  return text.join("\n");
}
