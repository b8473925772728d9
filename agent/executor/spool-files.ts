// Where output spools lie in the executor's directory, one file an operation, and which of them are removed.
import { errnoOf, type Files } from "../host/files.ts";
import { openRandomFile } from "../host/random-file.ts";
import { type OutputSpool, openOutputSpool, spoolBytesMax } from "./output-spool.ts";

/** Spools of operations that have ended; the newest are kept. */
export const spoolsKeptMax = 64;

/** @throws `executor.failed` */
export function openSpoolOf(files: Files, stateDirectory: string, id: string): OutputSpool {
  const directory = spoolDirectory(stateDirectory);
  return openOutputSpool((mode) => {
    if (mode === "create") files.makeDirectory(directory, 0o700);
    return openRandomFile(`${directory}/${id}`, mode);
  }, spoolBytesMax);
}

/** Removes what belongs to no operation that the journal knows, and the oldest of those that have ended. */
export function pruneSpools(
  files: Files,
  stateDirectory: string,
  standing: (id: string) => "open" | "ended" | "unknown",
): void {
  const directory = spoolDirectory(stateDirectory);
  for (const name of spoolsToRemove(namesIn(files, directory), standing))
    files.remove(`${directory}/${name}`);
}

/** Ids begin with the time they were minted at: their order is that of age. */
export function spoolsToRemove(
  names: readonly string[],
  standing: (id: string) => "open" | "ended" | "unknown",
): readonly string[] {
  const unknown = names.filter((name) => standing(name) === "unknown");
  const ended = names.filter((name) => standing(name) === "ended").sort();
  return [...unknown, ...ended.slice(0, Math.max(0, ended.length - spoolsKeptMax))];
}

function namesIn(files: Files, directory: string): readonly string[] {
  try {
    return files.list(directory);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

function spoolDirectory(stateDirectory: string): string {
  return `${stateDirectory}/output`;
}
