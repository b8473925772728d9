// Where the executor keeps its things on this host: fixed for root, named by whoever is not.
import type { Command } from "commander";

export interface HostOptions {
  readonly journal?: string;
  readonly run?: string;
  readonly policy?: string;
}

export function addJournalOption(command: Command): Command {
  return command.option(
    "--journal <directory>",
    "the executor's state directory, or a copy of it (as root: /var/lib/bedplate/executor)",
  );
}

/**
 * For what only reads: root may look into a copy, too.
 * @throws `usage` when nothing is named and we are not root
 */
export async function readingPaths({ journal, run, policy }: HostOptions) {
  const { hostPaths } = await import("../../agent/host-tools.ts");
  const given = {
    ...(journal === undefined ? {} : { stateDirectory: journal }),
    ...(run === undefined ? {} : { runDirectory: run }),
    ...(policy === undefined ? {} : { policy }),
  };
  return { ...hostPaths(given), ...given };
}

/** What there is to say of a host on which no executor has run. */
export function noJournal({ stateDirectory }: { readonly stateDirectory: string }): string {
  return `No executor has run here yet: there is no journal in ${stateDirectory}.`;
}
