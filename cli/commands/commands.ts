// `bedplate commands`, `command show|cancel|pause|resume|sign|output ID`.
import { InvalidArgumentError, type Command as Program } from "commander";
import type { CommandView } from "../../protocol/api.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { commandTable, commandText } from "../command-text.ts";
import type { Performer } from "../context.ts";
import { exitCodeOfEnd, exitCodes } from "../exit-codes.ts";
import { follow } from "../follow.ts";
import { countUpTo, digestOption, example, nameOption, stateOption } from "../options.ts";
import { progressLine } from "../output.ts";
import type { SignAction } from "../sign.ts";
import type { Terminal } from "../terminal.ts";

interface ListOptions {
  readonly host?: string;
  readonly state?: string;
  readonly limit: number;
}

interface SignOptions {
  readonly key?: string;
  readonly print?: boolean;
  readonly output?: string;
  readonly signature?: string;
  readonly digest?: string;
  readonly yes?: boolean;
  readonly knownHosts?: string;
}

export function addCommandCommands(program: Program, perform: Performer): void {
  const list = program
    .command("commands")
    .description("list commands, newest first")
    .option("--host <host>", "only of this host", nameOption)
    .option("--state <state>", "only in this state", stateOption)
    .option("--limit <n>", "at most so many, up to 1000", countUpTo(1000), 50)
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
          return exitCodeOfEnd(last);
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

  for (const verb of ["pause", "resume"] as const) {
    const said = noun
      .command(verb)
      .argument("<id>", "the command's id")
      .description(
        verb === "pause"
          ? "have an image.deploy or image.verify wait at its next safe point, until it is resumed"
          : "have a paused command go on where it stands",
      )
      .action(
        perform(async ({ terminal, signal, api }, _, [id]) => {
          const { pauseCommand } = await import("../pause-command.ts");
          const view = await pauseCommand(await api(), id!, verb, signal);
          terminal.document(view);
          terminal.print(commandText(view));
          return exitCodes.ok;
        }),
      );
    example(said, `bedplate command ${verb} 01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90`);
  }

  const sign = noun
    .command("sign")
    .argument("<id>", "the command's id")
    .description("show from its bytes what a waiting command would do, and add your signature to it")
    .option(
      "--key <key>",
      "an SSH key's file, or agent, agent:NAME, agent:SHA256:… for one in ssh-agent (agent)",
    )
    .option("--print", "only check and show it")
    .option("--output <file>", "write the document, to be signed on another machine")
    .option("--signature <file>", "add a signature that was made there")
    .option(
      "--digest <sha256>",
      "refuse a document with another digest than another operator told you",
      digestOption,
    )
    .option("--yes", "do not ask")
    .action(
      perform<SignOptions>(async ({ terminal, signal, api }, options, [id]) => {
        const action = signActionOf(options);
        const confirmed = options.yes === true;
        const { requireAskable } = await import("../confirm.ts");
        const asks = action.do === "sign" || action.do === "add";
        requireAskable(terminal, confirmed || !asks, "--print");
        const { signWaiting } = await import("../sign.ts");
        const { knownHostsPath } = await import("../trust/known-hosts-file.ts");
        return signWaiting({
          client: await api(),
          terminal,
          signal,
          id: id!,
          knownHostsFile: knownHostsPath(options.knownHosts),
          action,
          confirmed,
          ...(options.digest === undefined ? {} : { digest: options.digest }),
        });
      }),
    );
  example(
    sign,
    "bedplate command sign 01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90 --print",
    "bedplate command sign 01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90 --key ~/.ssh/id_ed25519_sk",
    "bedplate command sign 01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90 --output deploy.json",
    "bedplate command sign 01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90 --signature deploy.json.sig",
  );

  const output = noun
    .command("output")
    .argument("<id>", "the command's id")
    .description("what a command's program printed, as far as it is kept")
    .option("--follow", "stay until it ends; the exit code is then its outcome's")
    .option("--after <offset>", "only what came after so many bytes", offsetOption, 0)
    .action(
      perform<{ follow?: boolean; after: number }>(
        async ({ terminal, signal, api }, options, [id]) => {
          const { jsonSinks, processSinks, readOutput } = await import("../command-output.ts");
          const client = await api();
          const following = options.follow === true;
          const sinks = terminal.json
            ? jsonSinks((line) => terminal.document(line))
            : processSinks((text) => terminal.note(text));
          await readOutput({
            client,
            id: id!,
            after: options.after,
            follow: following,
            until: signal,
            sinks,
          });
          return following ? exitCodeOfEnd(await follow(client, id!, signal)) : exitCodes.ok;
        },
        { lines: true },
      ),
    );
  example(
    output,
    "bedplate command output 01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90 --follow",
    "bedplate command output 01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90 --after 65536 --json",
  );
}

/** @throws `usage` when several are asked for at once */
function signActionOf({ key, print, output, signature }: SignOptions): SignAction {
  const asked = [key, print === true ? "print" : undefined, output, signature];
  if (asked.filter((one) => one !== undefined).length > 1) {
    throw new BedplateError("usage", "One of --key, --print, --output and --signature can be given.", {
      hint: "See `bedplate command sign --help`.",
    });
  }
  if (print === true) return { do: "print" };
  if (output !== undefined) return { do: "output", file: output };
  if (signature !== undefined) return { do: "add", file: signature };
  return { do: "sign", key: key ?? "agent" };
}

function offsetOption(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError("Write a number of bytes.");
  return Number(text);
}

function stateLine(view: CommandView, terminal: Terminal): string {
  if (view.progress !== null) return progressLine(view.progress, terminal.columns);
  return view.reason === null ? view.state : `${view.state}: ${view.reason}`;
}
