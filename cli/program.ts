// The command line as a whole: every noun and verb, their shared options, and what a wrong one gets.
import { Command, CommanderError } from "commander";
import { BedplateError } from "../protocol/errors.ts";
import { version } from "../protocol/version.ts";
import { addAgentCommand } from "./commands/agent.ts";
import { addAuditCommand } from "./commands/audit.ts";
import { addCommandCommands } from "./commands/commands.ts";
import { addControllerCommand } from "./commands/controller.ts";
import { addDemoCommand } from "./commands/demo.ts";
import { addDeployCommand } from "./commands/deploy.ts";
import { addDoctorCommand } from "./commands/doctor.ts";
import { addExecCommand } from "./commands/exec.ts";
import { addFenceCommands } from "./commands/fence.ts";
import { addHashCommand } from "./commands/hash.ts";
import { addHostCommands } from "./commands/hosts.ts";
import { addImageCommands } from "./commands/images.ts";
import { addJoinTokenCommands } from "./commands/join-token.ts";
import { addKnownHostsCommands } from "./commands/known-hosts.ts";
import { addLogsCommand } from "./commands/logs.ts";
import { addPingCommand } from "./commands/ping.ts";
import { addPolicyCommands } from "./commands/policy.ts";
import { addPowerCommands } from "./commands/power.ts";
import { addTokenCommands } from "./commands/token.ts";
import { addVerifyCommand } from "./commands/verify.ts";
import { createPerformer, type Performer } from "./context.ts";
import { type ExitCode, exitCodeHelp, exitCodes } from "./exit-codes.ts";
import { openTerminal } from "./terminal.ts";

/** Runs one command line and returns its exit code. Never throws for what a user or a server did. */
export async function main(argv: readonly string[]): Promise<ExitCode> {
  const performer = createPerformer();
  // A reader that closed early (`| head`) is no fault; what is under way ends as if it were interrupted, and clears away.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") performer.readerGone();
    else process.exit(exitCodes.failed);
  });
  const program = createProgram(performer);
  try {
    await program.parseAsync(argv, { from: "user" });
    return performer.exitCode();
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return exitCodes.ok;
    if (error.code === "commander.help") return exitCodes.usage;
    openTerminal({ json: argv.includes("--json") }).fail(
      new BedplateError("usage", `${sentence(error.message)}`, {
        hint: `See \`bedplate ${nounsOf(program, argv)}--help\`.`,
      }),
    );
    return exitCodes.usage;
  }
}

export function createProgram(perform: Performer): Command {
  const program = new Command("bedplate")
    .description(
      "Turns plain servers into a cloud: telemetry, verified provisioning and metered usage over one WebSocket.",
    )
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .option("--json", "print one JSON document (one a line when following) instead of text")
    .option(
      "--client <file>",
      "the client file of the controller to talk to (else BEDPLATE_CLIENT, else this machine's controller)",
    )
    .option("--known-hosts <file>", "the keys of hosts that you know (else ~/.config/bedplate/known_hosts)")
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError: () => {} })
    .helpCommand(false)
    .exitOverride()
    .addHelpText("after", exitCodeHelp);

  program.commandsGroup("On this machine:");
  addDemoCommand(program, perform);
  addControllerCommand(program, perform);
  addAgentCommand(program, perform);
  addHashCommand(program, perform);
  addDoctorCommand(program, perform);
  addPolicyCommands(program, perform);
  addFenceCommands(program, perform);

  program.commandsGroup("Through the controller:");
  addJoinTokenCommands(program, perform);
  addHostCommands(program, perform);
  addImageCommands(program, perform);
  addDeployCommand(program, perform);
  addVerifyCommand(program, perform);
  addExecCommand(program, perform);
  addPowerCommands(program, perform);
  addLogsCommand(program, perform);
  addCommandCommands(program, perform);
  addPingCommand(program, perform);
  addKnownHostsCommands(program, perform);
  addTokenCommands(program, perform);
  addAuditCommand(program, perform);
  return program;
}

// commander says "error: unknown option '--x'".
function sentence(message: string): string {
  const text = message
    .replace(/^error: /, "")
    .replace(/\n\(/g, " (")
    .trim();
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith(".") || text.endsWith(")") ? "" : "."}`;
}

/** The command that was meant, as far as its words are known: `host show `. */
function nounsOf(program: Command, argv: readonly string[]): string {
  const words: string[] = [];
  for (let at: Command | undefined = program; at !== undefined; ) {
    const word: string | undefined = argv[words.length];
    at = at.commands.find((command) => command.name() === word);
    if (at !== undefined) words.push(`${at.name()} `);
  }
  return words.join("");
}
