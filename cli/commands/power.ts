// `bedplate reboot HOST` and `bedplate poweroff HOST`.
import type { Command as Program } from "commander";
import { RebootOutput } from "../../protocol/commands.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { durationUpTo, example } from "../options.ts";
import { formatSeconds } from "../output.ts";
import { addChangeOptions, changeOptionsOf, type GivenChangeOptions } from "./change-options.ts";

interface Options extends GivenChangeOptions {
  readonly reason?: string;
  readonly deadline?: number;
}

export function addPowerCommands(program: Program, perform: Performer): void {
  const reboot = program
    .command("reboot")
    .argument("<host>", "name, id or the beginning of an id")
    .description("restart a host; done when it is back with another boot id")
    .option("--reason <text>", "kept in its journal and audit")
    .option("--deadline <duration>", "within which it must be back, at most 1d (15m)", durationUpTo(86_400));
  addChangeOptions(reboot).action(act(perform, "host.reboot"));
  example(
    reboot,
    "bedplate reboot web-1 --plan",
    'bedplate reboot web-1 --sign agent --reason "new kernel" --deadline 10m',
  );

  const poweroff = program
    .command("poweroff")
    .argument("<host>", "name, id or the beginning of an id")
    .description("switch a host off; the command ends when somebody has switched it on again")
    .option("--reason <text>", "kept in its journal and audit");
  addChangeOptions(poweroff).action(act(perform, "host.poweroff"));
  example(poweroff, 'bedplate poweroff web-1 --sign ~/.ssh/id_ed25519 --reason "moved to rack 3"');
}

function act(perform: Performer, kind: "host.reboot" | "host.poweroff") {
  return perform<Options>(async (context, options, [reference]) => {
    const { terminal } = context;
    const { reason, deadline } = options;
    const common = await changeOptionsOf(context, options, reference!);
    const { change, exitCodeOfChange } = await import("../change.ts");
    const { outputOf } = await import("../operation.ts");
    const changed = await change({
      ...common,
      kind,
      arguments: {
        ...(reason === undefined ? {} : { reason }),
        ...(deadline === undefined ? {} : { deadlineSeconds: deadline }),
      },
    });
    if (typeof changed === "number") return changed;
    const exitCode = exitCodeOfChange(changed, terminal);
    if (exitCode !== exitCodes.ok) return exitCode;
    const { plan, view, host } = changed;
    const output = outputOf(view, RebootOutput);
    const name = kind === "host.reboot" ? "reboot" : "poweroff";
    terminal.document({ plan, [name]: output, command: view });
    terminal.print(
      `${host.name} was away for ${formatSeconds(output.seconds)}: boot ${output.fromBootId} is over, ${output.bootId} runs.`,
    );
    return exitCodes.ok;
  });
}
