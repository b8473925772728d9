// Asking a person to type what is about to be lost, before it is.
import { basename } from "node:path";
import { createInterface } from "node:readline/promises";
import type { Static } from "typebox";
import type { Disk } from "../protocol/disks.ts";
import { BedplateError } from "../protocol/errors.ts";
import { plain } from "./output.ts";
import type { Terminal } from "./terminal.ts";

export interface Confirmation {
  /** What will happen, one sentence. */
  readonly loss: string;
  /** What is to be typed: "its serial". */
  readonly what: string;
  readonly expected: string;
}

/** What must be typed before a disk is overwritten: its serial, else the name of the file behind it. */
export function confirmationOf(disk: Pick<Static<typeof Disk>, "serial" | "backing" | "path">): string {
  return disk.serial ?? (disk.backing === null ? disk.path : basename(disk.backing));
}

export function diskConfirmation(
  disk: Pick<Static<typeof Disk>, "serial" | "backing" | "path">,
  host: string,
): Confirmation {
  return {
    loss: `All data on ${disk.path} of ${host} will be lost.`,
    what: `its ${disk.serial === null ? (disk.backing === null ? "path" : "backing file's name") : "serial"}`,
    expected: confirmationOf(disk),
  };
}

/** @throws `usage` where nobody can be asked and nobody has said --yes */
export function requireAskable(terminal: Terminal, unasked: boolean, look: string): void {
  if (unasked || terminal.interactive) return;
  throw new BedplateError("usage", "Nobody can be asked here to confirm what is done.", {
    hint: `Look at it with ${look}, then say --yes.`,
  });
}

/** @throws `command.cancelled` when something else is typed */
export async function confirm({ loss, what, expected }: Confirmation, signal: AbortSignal): Promise<void> {
  const questions = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await questions.question(`${plain(loss)} Type ${what} (${plain(expected)}) to go on: `, {
      signal,
    });
    if (answer.trim() === expected) return;
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    questions.close();
  }
  throw new BedplateError("command.cancelled", "That is not it; nothing was changed.");
}
