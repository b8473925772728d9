// `bedplate fence show|reset`, on the host: which commands are too old for it.
import type { Command } from "commander";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";
import { facts } from "../output.ts";
import { addJournalOption, type HostOptions, noJournal, readingPaths } from "./host-options.ts";

interface Fence {
  readonly epoch: number;
  readonly generation: number;
  readonly digest: string;
}

export function addFenceCommands(program: Command, perform: Performer): void {
  const noun = program
    .command("fence")
    .description("on a host: the last command that changed it, behind which none is taken");
  const show = noun
    .command("show")
    .description("epoch and generation that the next command must not be below");
  addJournalOption(show).action(
    perform<HostOptions>(async ({ terminal }, options) => {
      const { hasJournal, showFence } = await import("../../agent/host-tools.ts");
      const paths = await readingPaths(options);
      const journal = hasJournal(paths);
      const fence = journal ? showFence(paths) : undefined;
      terminal.document({ fence: fence ?? null });
      if (!journal) terminal.print(noJournal(paths));
      else terminal.print(fence === undefined ? "No command has changed this host yet." : fenceText(fence));
      return exitCodes.ok;
    }),
  );
  example(show, "bedplate fence show");

  const reset = noun
    .command("reset")
    .description("forget it, where a controller was set up anew; the audit tells of it")
    .option("--yes", "do not ask");
  addJournalOption(reset).action(
    perform<HostOptions & { yes?: boolean }>(async ({ terminal, signal }, options) => {
      const { hasJournal, hostPaths, resetFence, showFence } = await import("../../agent/host-tools.ts");
      const { confirm, requireAskable } = await import("../confirm.ts");
      requireAskable(terminal, options.yes === true, "`bedplate fence show`");
      const paths = hostPaths(options.journal === undefined ? {} : { stateDirectory: options.journal });
      if (!hasJournal(paths)) {
        terminal.document({ before: null });
        terminal.print(noJournal(paths));
        return exitCodes.ok;
      }
      const fence = showFence(paths);
      if (options.yes !== true) {
        if (fence !== undefined) terminal.print(fenceText(fence));
        const loss = "Commands that were too old for this host will be taken again.";
        await confirm({ loss, what: "the word", expected: "reset" }, signal);
      }
      const before = resetFence(paths);
      terminal.document({ before: before ?? null });
      terminal.print("The fence is reset: the next command that changes this host sets it anew.");
      return exitCodes.ok;
    }),
  );
  example(reset, "bedplate fence reset");
}

function fenceText({ epoch, generation, digest }: Fence): string {
  return facts([
    ["epoch", `${epoch}`],
    ["generation", `${generation}`],
    ["last command", `SHA-256 ${digest}`],
  ]);
}
