// One agent for one state directory: a lock that the kernel releases when its holder dies.
import { DatabaseSync } from "node:sqlite";
import { BedplateError } from "../../protocol/errors.ts";

/** @throws `agent.already-running` */
export function holdAlone(lockFile: string): Disposable {
  const db = new DatabaseSync(lockFile);
  try {
    db.exec("PRAGMA busy_timeout = 0; BEGIN EXCLUSIVE");
  } catch (cause) {
    db.close();
    throw new BedplateError(
      "agent.already-running",
      `Another agent runs on the state directory of ${lockFile}.`,
      {
        hint: "Stop it first (systemctl stop bedplate-agent), or give this one a stateDirectory of its own.",
        cause,
      },
    );
  }
  return { [Symbol.dispose]: () => db.close() };
}
