// Where the executor keeps its things on this host: fixed for root, named by whoever is not.
import { stat } from "node:fs/promises";
import type { Command } from "commander";
import { BedplateError } from "../../protocol/errors.ts";

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
 * @throws `usage` when nothing is named and we are not root; `file.unreadable` when what is named is no directory
 */
export async function readingPaths({ journal, run, policy }: HostOptions) {
  const { hostPaths } = await import("../../agent/host-tools.ts");
  // A name that was mistyped is no host on which nothing has run.
  if (journal !== undefined && !(await isDirectory(journal)))
    throw new BedplateError("file.unreadable", `${journal} is no directory.`, {
      hint: "Name the executor's state directory, or a copy of it.",
    });
  const given = {
    ...(journal === undefined ? {} : { stateDirectory: journal }),
    ...(run === undefined ? {} : { runDirectory: run }),
    ...(policy === undefined ? {} : { policy }),
  };
  return { ...hostPaths(given), ...given };
}

async function isDirectory(path: string): Promise<boolean> {
  return await stat(path).then(
    (found) => found.isDirectory(),
    // One that we may not look at is told by whoever opens it.
    (error: NodeJS.ErrnoException) => error.code !== "ENOENT" && error.code !== "ENAMETOOLONG",
  );
}

/** What there is to say of a host on which no executor has run. */
export function noJournal({ stateDirectory }: { readonly stateDirectory: string }): string {
  return `No executor has run here yet: there is no journal in ${stateDirectory}.`;
}
