// The lane for what changes state: one operation at a time on a host, released by the kernel when its process dies.
import { DatabaseSync } from "node:sqlite";
import { BedplateError } from "../../protocol/errors.ts";

/** SQLITE_BUSY: https://sqlite.org/rescode.html#busy */
const sqliteBusy = 5;

/**
 * Takes the lane, or says that it is busy. An exclusive transaction on lane.db, held until disposed: a lock of the
 * kernel's on the file, which a dead process cannot keep.
 */
export function takeLane(directory: string): Disposable | "busy" {
  const database = new DatabaseSync(`${directory}/lane.db`, { timeout: 0 });
  try {
    // Not WAL: there an exclusive transaction still lets others begin.
    database.exec("PRAGMA journal_mode = DELETE");
    database.exec("BEGIN EXCLUSIVE");
  } catch (cause) {
    database.close();
    if (cause instanceof Error && "errcode" in cause && (Number(cause.errcode) & 0xff) === sqliteBusy)
      return "busy";
    throw new BedplateError(
      "executor.failed",
      `The lane in ${directory} cannot be used: ${(cause as Error).message}.`,
      { cause },
    );
  }
  return { [Symbol.dispose]: () => database.close() };
}
