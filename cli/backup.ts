// Backups on the controller's machine: asked for over the API, fetched from its state directory, never over the network.
import { chmod, constants, copyFile, open, stat, unlink } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { BackupView } from "../protocol/api.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { Context } from "./context.ts";
import { type ExitCode, exitCodes } from "./exit-codes.ts";
import { formatBytes } from "./output.ts";

interface Wanted {
  readonly file: string;
  readonly stateDirectory: string | undefined;
}

/** @throws `state.not-empty` when the file exists; what the API says; `controller.unreachable` */
export async function backupTo(context: Context, { file, stateDirectory }: Wanted): Promise<ExitCode> {
  const target = resolve(file);
  if (await exists(target))
    throw new BedplateError("state.not-empty", `${target} exists; it is not written over.`);
  const made = await make(context, stateDirectory);
  try {
    await copyFile(made.file, target, constants.COPYFILE_EXCL);
    await chmod(target, 0o600);
    await using copy = await open(target, "r");
    await copy.sync();
  } catch (cause) {
    // What may not be durable must not look like a backup; one that came in between is somebody else's.
    if ((cause as NodeJS.ErrnoException).code !== "EEXIST") await unlink(target).catch(() => {});
    throw new BedplateError(
      "file.unreadable",
      `The backup was made, but ${made.file} cannot be copied to ${target}: ${(cause as Error).message}.`,
      {
        hint: "Run this on the controller's own machine, as its user: a backup holds its keys and does not leave it by itself.",
        cause,
      },
    );
  }
  await unlink(made.file);
  context.terminal.document({ ...made, file: target });
  context.terminal.print(
    `${target}: ${formatBytes(made.sizeBytes)}, epoch ${made.epoch}. It holds the controller's keys; images are not in it.`,
  );
  return exitCodes.ok;
}

/** @throws `state.not-empty`, `state.backup-invalid`, `state.newer` */
export async function restoreFrom(
  { terminal }: Context,
  { file, stateDirectory, epochMin }: Wanted & { readonly epochMin: number | undefined },
): Promise<ExitCode> {
  if (stateDirectory === undefined) {
    throw new BedplateError("usage", "Say where to restore to.", {
      hint: "bedplate controller restore FILE --state-directory DIRECTORY",
    });
  }
  const { restoreController } = await import("../controller/main.ts");
  const directory = resolve(stateDirectory);
  const { epoch, epochBefore } = await restoreController({ file: resolve(file), directory, epochMin });
  terminal.document({ stateDirectory: directory, epoch, epochBefore });
  terminal.note(
    "Images are not in a backup: add them again. Make sure that the controller of before stays off.",
  );
  terminal.print(
    `${directory}: restored, epoch ${epochBefore} is now ${epoch}. Start it with bedplate controller.`,
  );
  return exitCodes.ok;
}

// A controller that runs makes it itself, for it has its database to itself; of one that does not, we do.
async function make(context: Context, stateDirectory: string | undefined): Promise<BackupView> {
  if (stateDirectory === undefined) return (await context.api()).backup();
  const { backupStopped } = await import("../controller/main.ts");
  try {
    return await backupStopped(resolve(stateDirectory));
  } catch (error) {
    if (!(error instanceof BedplateError) || error.code !== "state.in-use") throw error;
  }
  const { findConnection } = await import("./connection.ts");
  const { openApi } = await import("./api-client.ts");
  using client = openApi(await findConnection(join(resolve(stateDirectory), "client.json")), context.signal);
  return await client.backup();
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
