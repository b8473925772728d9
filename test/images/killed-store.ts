// A process that changes an image store and kills itself before its Nth change of the file system. Started by crash.test.ts:
// DIRECTORY WHAT ARGUMENT N
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { openImageStore } from "../../controller/images/store.ts";

const [directory, what, argument, at] = process.argv.slice(2) as [string, string, string, string];
let count = 0;
const step = (): void => {
  count++;
  if (count === Number(at)) process.kill(process.pid, "SIGKILL");
};
const promises = fs.promises as unknown as Record<string, (...given: unknown[]) => unknown>;
for (const name of ["rename", "link", "rm", "mkdir", "writeFile", "open"]) {
  const original = promises[name]!;
  promises[name] = (...given) => {
    // Opening to read changes nothing.
    if (name !== "open" || (given[1] !== undefined && given[1] !== "r")) step();
    return original(...given);
  };
}
syncBuiltinESMExports();

await using store = await openImageStore(directory, { threads: 1 });
const never = new AbortController().signal;
switch (what) {
  case "import": {
    const { importImage } = await import("../../controller/images/import.ts");
    await importImage({ input: argument, store: directory, name: "third", threads: 1, signal: never });
    break;
  }
  case "remove":
    await store.remove(argument);
    break;
  case "collect":
    await store.collect({ all: true }, never);
    break;
  default:
    throw new Error(`no such change: ${what}`);
}
process.stdout.write(`${count}\n`);
