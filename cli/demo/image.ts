// The demo's image: a partition table and a file system with the machine's own files, or what --image names.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { copyFile, mkdir, open, opendir, readFile, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BedplateError } from "../../protocol/errors.ts";
import { findProgram } from "../doctor/tools.ts";
import { createPartitionTable } from "./gpt.ts";

export interface DemoImage {
  readonly path: string;
  /** What is in it, for people. */
  readonly content: string;
}

const mib = 1 << 20;
export const imageBytesMin = 16 * mib;
/** The rest stays empty: zero groups are part of every real image. */
const filledShare = 0.6;
const filesMax = 3000;
const fileBytesMax = 16 * mib;
/** Programs and libraries: every Linux has them, anyone may read them, and they are no secrets. */
const sources = ["/usr/bin", "/usr/sbin", "/usr/lib", "/usr/share", "/bin", "/lib"];

/** Makes DIRECTORY/demo.raw of `sizeBytes`, rounded up to whole MiB. @throws `usage`, `demo.failed` */
export async function makeImage(
  directory: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<DemoImage> {
  if (sizeBytes < imageBytesMin) {
    throw new BedplateError("usage", `The demo's image needs at least ${imageBytesMin / mib} MiB.`);
  }
  const bytes = Math.ceil(sizeBytes / mib) * mib;
  const path = join(directory, "demo.raw");
  const table = createPartitionTable(bytes, randomBytes(32));
  const budget = Math.floor(table.sizeBytes * filledShare);
  const files = await chooseFiles(budget, signal);
  {
    await using file = await open(path, "wx");
    await file.truncate(bytes);
    await file.write(table.head, 0, table.head.length, 0);
    await file.write(table.tail, 0, table.tail.length, bytes - table.tail.length);
  }
  const mke2fs = findProgram("mke2fs");
  if (mke2fs !== undefined && files.length > 0) {
    const tree = join(directory, "tree");
    try {
      await copyTree(files, tree, signal);
      const kib = `${table.sizeBytes / 1024}k`;
      const options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", "bedplate-demo"];
      await run(mke2fs, [...options, "-E", `offset=${table.startBytes}`, "-d", tree, path, kib], signal);
    } finally {
      await rm(tree, { recursive: true, force: true });
    }
    return {
      path,
      content: `a partition table and an ext4 file system with ${files.length} of this machine's files`,
    };
  }
  await using file = await open(path, "r+");
  let at = table.startBytes;
  for (const { source } of files) {
    signal.throwIfAborted();
    const content = await readFile(source);
    await file.write(content, 0, content.length, at);
    at += content.length;
  }
  return {
    path,
    content: `a partition table and the bytes of ${files.length} of this machine's files (no mke2fs here)`,
  };
}

/** The user's own image, as it is. @throws `file.unreadable` */
export async function givenImage(path: string): Promise<DemoImage> {
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw new BedplateError("file.unreadable", `${path} cannot be read: ${cause.code}.`, { cause });
  });
  if (!found.isFile()) throw new BedplateError("file.unreadable", `${path} is not a file.`);
  return { path, content: path };
}

interface Chosen {
  readonly source: string;
  readonly bytes: number;
}

async function chooseFiles(budget: number, signal: AbortSignal): Promise<Chosen[]> {
  const chosen: Chosen[] = [];
  let left = budget;
  for (const source of sources) {
    for await (const path of walk(source)) {
      signal.throwIfAborted();
      if (chosen.length >= filesMax || left < 64 * 1024) return chosen;
      const found = await stat(path).catch(() => undefined);
      if (found === undefined || !found.isFile() || found.size === 0) continue;
      // Others may read it, so it is no secret wherever the image ends.
      if ((found.mode & constants.S_IROTH) === 0 || found.size > Math.min(left, fileBytesMax)) continue;
      chosen.push({ source: path, bytes: found.size });
      left -= found.size;
    }
  }
  return chosen;
}

async function* walk(directory: string): AsyncGenerator<string> {
  let entries: Awaited<ReturnType<typeof opendir>>;
  try {
    entries = await opendir(directory);
  } catch {
    return;
  }
  for await (const entry of entries) {
    const path = join(directory, entry.name);
    if (entry.isFile()) yield path;
    else if (entry.isDirectory()) yield* walk(path);
  }
}

async function copyTree(files: readonly Chosen[], tree: string, signal: AbortSignal): Promise<void> {
  const made = new Set<string>();
  for (const { source } of files) {
    signal.throwIfAborted();
    const target = join(tree, source);
    if (!made.has(dirname(target))) await mkdir(dirname(target), { recursive: true });
    made.add(dirname(target));
    await copyFile(source, target);
  }
}

async function run(program: string, argv: readonly string[], signal: AbortSignal): Promise<void> {
  const child = spawn(program, argv, { stdio: ["ignore", "ignore", "pipe"], signal });
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => {
    errors = `${errors}${chunk}`.slice(-2000);
  });
  const ended = Promise.withResolvers<number | null>();
  child.once("error", ended.reject);
  child.once("close", ended.resolve);
  let status: number | null;
  try {
    status = await ended.promise;
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
  if (status !== 0)
    throw new BedplateError("demo.failed", `${program} ended with ${status}: ${errors.trim()}`);
}
