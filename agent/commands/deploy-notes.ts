// What a deploy keeps of each of its disks across its runs, in the operation's notes.
import { textOf, utf8 } from "../../protocol/bytes.ts";
import type { DeployOutput } from "../../protocol/commands.ts";
import type { DeployJournal } from "../devices/deploy-image.ts";
import type { Notes } from "./command.ts";

export interface DiskNotes {
  /** As it stands now: read anew for each try. */
  journal(): DeployJournal;
  /** The disk holds the image, and is not looked at any more: it may be in use by now. */
  readonly done: DeployOutput | undefined;
  finish(output: DeployOutput): void;
}

const yes = new Uint8Array([1]);

/** @param index of the disk in the command; the first one's notes have the names that those of a single disk have */
export function diskNotes(notes: Notes, index: number): DiskNotes {
  const named = (name: string) => (index === 0 ? name : `${name}:${index}`);
  return {
    journal: () => deployJournal(notes, named),
    get done() {
      const done = notes.get(named("done"));
      return done === undefined ? undefined : (JSON.parse(textOf(done)) as DeployOutput);
    },
    finish: (output) => notes.set({ [named("done")]: utf8(JSON.stringify(output)) }),
  };
}

/** The bitmap and the number of claimed groups are one entry: they belong to one moment. */
function deployJournal(notes: Notes, named: (name: string) => string): DeployJournal {
  const good = notes.get(named("good"));
  return {
    began: notes.get(named("began")) !== undefined,
    sealing: notes.get(named("sealing")) !== undefined,
    good:
      good === undefined
        ? undefined
        : {
            claimed: Number(new DataView(good.buffer, good.byteOffset).getBigUint64(0)),
            bitmap: good.subarray(8),
          },
    begin: () => notes.set({ [named("began")]: yes }),
    seal: () => notes.set({ [named("sealing")]: yes }),
    saveGood(bitmap, claimed) {
      const entry = new Uint8Array(8 + bitmap.length);
      new DataView(entry.buffer).setBigUint64(0, BigInt(claimed));
      entry.set(bitmap, 8);
      notes.set({ [named("good")]: entry });
    },
  };
}
