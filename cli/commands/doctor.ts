// `bedplate doctor`: what this machine has, what it lacks, and what that costs.
import type { Command } from "commander";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";
import { table } from "../output.ts";

interface Options {
  readonly stateDirectory?: string;
}

export function addDoctorCommand(program: Command, perform: Performer): void {
  const command = program
    .command("doctor")
    .description("check this machine: what is there, what is missing, and what that costs")
    .option("--state-directory <directory>", "the state directory to check (else the agent's default)")
    .action(
      perform<Options>(async ({ terminal, signal }, { stateDirectory }) => {
        const { examine } = await import("../doctor/doctor.ts");
        const checks = await examine({ ...(stateDirectory === undefined ? {} : { stateDirectory }) }, signal);
        const essential = checks.filter((check) => check.status === "missing" && check.essential);
        terminal.document({ ok: essential.length === 0, checks });
        terminal.print(
          table(checks, [
            { title: "CHECK", of: (check) => check.name },
            {
              title: "STATUS",
              of: (check) => (check.status === "missing" && check.essential ? "MISSING" : check.status),
            },
            { title: "FOUND", of: (check) => check.found },
            { title: "WHAT IT COSTS", of: (check) => check.costs ?? "" },
          ]).replaceAll(/ +-$/gm, ""),
        );
        if (essential.length > 0)
          terminal.note(`Essential and missing: ${essential.map((check) => check.name).join(", ")}.`);
        return essential.length === 0 ? exitCodes.ok : exitCodes.failed;
      }),
    );
  example(command, "bedplate doctor");
}
