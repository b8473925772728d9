// A hash worker that meets the trouble that the file's name asks for, and with any other name is the real one.
import { basename } from "node:path";
import type { HashJob } from "../../assembly/hash-job.ts";
import hashJob from "../../assembly/hash-worker.ts";
import { blake3Layout } from "../../assembly/layout.ts";
import { guarded, instantiate, loadBlake3 } from "../../assembly/load.ts";
import { type ErrorReport, reportOf } from "../../protocol/errors.ts";

const trouble: Readonly<Record<string, () => ErrorReport | undefined | Promise<never>>> = {
  exits: () => process.exit(7),
  throws: () => {
    // In a turn of its own, where nothing can catch it.
    setImmediate(() => {
      throw new Error("out of nowhere");
    });
    return new Promise(() => {});
  },
  traps: () => {
    type Exports = { chainingValue(input: number, length: number, counter: bigint, root: number): void };
    const { exports } = instantiate<Exports>(loadBlake3().module, blake3Layout);
    try {
      guarded(() => exports.chainingValue(-1, 64, 0n, 0));
      return undefined;
    } catch (error) {
      return reportOf(error);
    }
  },
};

export default function troubledJob(job: HashJob): ErrorReport | undefined | Promise<never> {
  return (trouble[basename(job.path)] ?? (() => hashJob(job)))();
}
