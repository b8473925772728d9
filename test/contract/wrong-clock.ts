// Programs whose wall clock is wrong, by libfaketime; the monotonic one stays what it is, as on a real machine.
import { existsSync } from "node:fs";

const library = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
  .map((directory) => `${directory}/faketime/libfaketimeMT.so.1`)
  .find((path) => existsSync(path));

export const clocksCanBeWrong = library !== undefined;

/** In front of a command line. @param file says how wrong, now: `+SECONDS`, `-SECONDS`, or `@YYYY-MM-DD hh:mm:ss` at its start */
export function clockFrom(file: string): string[] {
  return [
    "env",
    `LD_PRELOAD=${library}`,
    `FAKETIME_TIMESTAMP_FILE=${file}`,
    "FAKETIME_NO_CACHE=1",
    "FAKETIME_DONT_FAKE_MONOTONIC=1",
  ];
}
