// An image store whose process is killed before each single change of the file system: every listed image stays whole, and
// nothing is lost for good that a next run does not free.
import { execFileSync, spawn } from "node:child_process";
import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { importImage } from "../../controller/images/import.ts";
import { openImageStore } from "../../controller/images/store.ts";
import { content, mib, readStored, rootOf, temporaryDirectory } from "./support.ts";

const program = fileURLToPath(new URL("killed-store.ts", import.meta.url));
const never = new AbortController().signal;

/** Four groups; those of the version differ. */
function imageOf(changed: readonly number[], version: number): Uint8Array {
  const bytes = new Uint8Array(4 * mib);
  for (let group = 0; group < 4; group++)
    bytes.set(content(mib, group + 1 + (changed.includes(group) ? 100 * version : 0)), group * mib);
  return bytes;
}
const images = {
  first: imageOf([], 1),
  second: imageOf([1], 2),
  third: imageOf([1, 3], 3),
};
type Name = keyof typeof images;

async function addTo(store: string, name: Name): Promise<string> {
  const input = `${store}-${name}.raw`;
  await writeFile(input, images[name]);
  return (await importImage({ input, store, name, threads: 1, signal: never })).root;
}

/** Killed before its Nth change; the changes that it made when it came to its end. */
function run(store: string, what: string, argument: string, at: number): Promise<number | "killed"> {
  const child = spawn(process.execPath, [program, store, what, argument, `${at}`], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { PATH: process.env.PATH },
  });
  let said = "";
  child.stdout.on("data", (piece) => {
    said += piece;
  });
  return new Promise((resolve, reject) => {
    child.once("close", (code, signal) => {
      if (signal === "SIGKILL") resolve("killed");
      else if (code === 0) resolve(Number(said));
      else reject(new Error(`the store's process ended with ${code}`));
    });
  });
}

async function usedBytes(directory: string): Promise<number> {
  const inodes = new Map<number, number>();
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const { ino, size } = await stat(join(entry.parentPath, entry.name));
    inodes.set(ino, size);
  }
  return [...inodes.values()].reduce((sum, size) => sum + size, 0);
}

/** The names of the images listed, each of which must hold what it is. */
async function wholeImages(directory: string): Promise<string[]> {
  const damaged: string[] = [];
  await using store = await openImageStore(directory, {
    threads: 1,
    onUnreadable: (root) => damaged.push(root),
  });
  expect(damaged).toEqual([]);
  for (const { root, name } of store.list()) {
    expect(root).toBe(await rootOf(images[name as Name]));
    expect(Buffer.compare(await readStored(directory, root), images[name as Name])).toBe(0);
  }
  return store.list().map(({ name }) => name);
}

interface Scenario {
  readonly what: string;
  readonly before: readonly Name[];
  /** Removed before it begins. */
  readonly without?: Name;
  readonly must: readonly Name[];
  readonly argument: (store: string) => Promise<string>;
}
const scenarios: readonly Scenario[] = [
  {
    what: "import",
    before: ["first", "second"],
    must: ["first", "second"],
    async argument(store) {
      await writeFile(`${store}-input.raw`, images.third);
      return `${store}-input.raw`;
    },
  },
  {
    what: "remove",
    before: ["first", "second", "third"],
    must: ["second", "third"],
    argument: () => rootOf(images.first),
  },
  {
    what: "collect",
    before: ["first", "second", "third"],
    without: "first",
    must: ["second", "third"],
    argument: async () => "-",
  },
];

test.each(scenarios)("$what, killed at each step", { timeout: 240_000 }, async (scenario) => {
  const { what, before, without, must, argument } = scenario;
  await using directory = await temporaryDirectory();
  const origin = join(directory.path, "origin");
  for (const name of before) await addTo(origin, name);
  if (without !== undefined) {
    await using store = await openImageStore(origin, { threads: 1 });
    await store.remove(await rootOf(images[without]));
  }
  const given = await argument(origin);
  /** A copy with the same hard links. */
  const copied = async (name: string) => {
    const path = join(directory.path, name);
    await rm(path, { recursive: true, force: true });
    execFileSync("cp", ["-a", origin, path]);
    return path;
  };
  const finish = async (store: string) => {
    await using opened = await openImageStore(store, { threads: 1 });
    if (what === "import")
      await importImage({ input: given, store, name: "third", threads: 1, signal: never });
    if (what === "remove" && opened.list().some(({ name }) => name === "first")) await opened.remove(given);
    await opened.rescan();
    await opened.collect({ all: true }, never);
  };
  const good = await copied("good");
  const steps = await run(good, what, given, 0);
  await finish(good);
  const [expected, expectedBytes] = [await wholeImages(good), await usedBytes(good)];
  expect(steps).toBeGreaterThan(2);
  for (let at = 1; at <= Number(steps); at++) {
    const store = await copied("killed");
    expect(await run(store, what, given, at), `step ${at}`).toBe("killed");
    const listed = await wholeImages(store);
    expect(listed, `step ${at}`).toEqual(expect.arrayContaining([...must]));
    await finish(store);
    expect(await wholeImages(store), `step ${at}`).toEqual(expected);
    // Packs written at different moments lie in other orders, but nothing dead stays; lists may differ by some segments.
    expect(Math.abs((await usedBytes(store)) - expectedBytes), `step ${at}`).toBeLessThan(2000);
    expect(
      (await readdir(store)).filter((name) => name.startsWith(".")),
      `step ${at}`,
    ).toEqual([]);
  }
  await readFile(join(good, await rootOf(images.second), "manifest"));
});
