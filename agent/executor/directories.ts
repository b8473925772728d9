// The executor's two directories, made or checked: its private state, and the one with the operations' sockets.
import { BedplateError } from "../../protocol/errors.ts";
import { operationSocketPath } from "../door/contract.ts";
import { errnoOf, type Files, parentOf } from "../host/files.ts";

/**
 * Makes the executor's directory, or checks it: its own, and nobody else may read or change it.
 * @throws `state.unsafe`
 */
export function requirePrivateDirectory(files: Files, path: string, owner: number): void {
  try {
    files.makeDirectory(path, 0o700);
    const { kind, uid, mode } = files.linkStatus(path);
    if (kind === "directory" && uid === owner && (mode & 0o077) === 0) return;
    throw new BedplateError(
      "state.unsafe",
      `The executor's state in ${path} could be read or changed by others (a ${kind} of user ${uid}, mode ${mode.toString(8)}).`,
      {
        hint: `chown it to user ${owner} and chmod 0700 ${path}.`,
        details: { path },
      },
    );
  } catch (cause) {
    if (cause instanceof BedplateError) throw cause;
    throw new BedplateError(
      "state.unsafe",
      `The executor's state directory ${path} cannot be used: ${errnoOf(cause)}.`,
      { details: { path }, cause },
    );
  }
}

/**
 * Makes the directory of sockets, or checks it: whoever could put names into it could make root change their owner.
 * @returns the group that may connect: the run directory's
 * @throws `state.unsafe`
 */
export function requireRunDirectory(files: Files, path: string, user: number): number {
  const operations = parentOf(operationSocketPath(path, "x"));
  try {
    files.makeDirectory(path, 0o750);
    files.makeDirectory(operations, 0o750);
    const { gid } = files.status(path);
    for (const directory of [path, operations]) {
      const { kind, uid, mode } = files.linkStatus(directory);
      if (kind === "directory" && uid === user && (mode & 0o022) === 0) continue;
      throw new BedplateError(
        "state.unsafe",
        `${directory} could be changed by others (a ${kind} of user ${uid}, mode ${mode.toString(8)}).`,
        {
          hint: `It must belong to user ${user}, writable by its owner only; its group may connect.`,
          details: { path: directory },
        },
      );
    }
    files.changeGroup(operations, gid);
    return gid;
  } catch (cause) {
    if (cause instanceof BedplateError) throw cause;
    throw new BedplateError("state.unsafe", `The run directory ${path} cannot be used: ${errnoOf(cause)}.`, {
      details: { path },
      cause,
    });
  }
}
