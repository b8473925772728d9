// Converts a qcow2 image to raw: spooled, checked by our own parser, and only then shown to an unprivileged qemu-img.
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BedplateError } from "../../protocol/errors.ts";
import { appendAll } from "./append.ts";
import { createFile } from "./catalog.ts";
import { checkExpansion } from "./decode.ts";
import { type ExpansionBound, imageLimits } from "./limits.ts";
import { parseQcow2 } from "./qcow2.ts";
import { type Programs, runTool, unprivilegedId } from "./tool.ts";

export interface ConvertOptions {
  /** A private directory on the disk that is to take both files. */
  readonly directory: string;
  readonly head: Uint8Array;
  readonly bytes: AsyncIterable<Uint8Array>;
  readonly bound: ExpansionBound;
  readonly programs: Programs;
  readonly signal: AbortSignal;
}

/** What of a qcow2 file its parser wants to see. */
export const qcow2HeadBytes = 1024 * 1024;

/**
 * The raw image, open for reading, and its length.
 * @throws as parseQcow2, `image.tool-missing`, `image.expansion`, `image.corrupt`
 */
export async function convertQcow2(
  options: ConvertOptions,
): Promise<{ file: FileHandle; sizeBytes: number }> {
  const { directory, head, bytes, bound, signal } = options;
  // Before the rest is read, which may be a long download; the tables once the length is known.
  const { sizeBytes } = parseQcow2(head);
  checkExpansion(sizeBytes, 0, { ...bound, freeBytes: Number.POSITIVE_INFINITY });
  // A copy that nobody else can write to: what was checked is what is converted.
  const spool = await createFile(join(directory, "input.qcow2"));
  await using _spool = spool;
  let spooledBytes = 0;
  for await (const chunk of bytes) {
    signal.throwIfAborted();
    await appendAll(spool, chunk);
    spooledBytes += chunk.length;
  }
  parseQcow2(head, spooledBytes);
  const raw = await open(join(directory, "raw"), "wx+", 0o600);
  try {
    await runQemuImg({ ...options, spool, raw, sizeBytes, spooledBytes });
    const { size } = await raw.stat();
    if (size !== sizeBytes)
      throw new BedplateError("image.corrupt", `qemu-img made ${size} bytes of a disk of ${sizeBytes}.`);
    return { file: raw, sizeBytes };
  } catch (error) {
    await raw.close();
    throw error;
  }
}

interface Conversion extends ConvertOptions {
  readonly spool: FileHandle;
  readonly raw: FileHandle;
  readonly sizeBytes: number;
  readonly spooledBytes: number;
}

async function runQemuImg({
  spool,
  raw,
  sizeBytes,
  spooledBytes,
  bound,
  programs,
  signal,
}: Conversion): Promise<void> {
  if (process.getuid?.() === 0) {
    await spool.chown(unprivilegedId, unprivilegedId);
    await raw.chown(unprivilegedId, unprivilegedId);
  }
  const tool = await runTool({
    program: "qemu-img",
    package: "qemu-utils",
    // Both formats are named: nothing is probed. The descriptors are all it can reach of the private directory.
    args: ["convert", "-f", "qcow2", "-O", "raw", "/proc/self/fd/3", "/proc/self/fd/4"],
    files: [spool.fd, raw.fd],
    limits: {
      addressBytes: imageLimits.convertBytesMax,
      fileBytes: sizeBytes,
      processorSeconds: imageLimits.convertSecondsMax,
    },
    programs,
    signal,
  });
  const watching = new AbortController();
  const watched = watchExpansion({ raw, spooledBytes, bound, signal: watching.signal }).catch((error) => {
    tool.kill();
    throw error;
  });
  watched.catch(() => {});
  try {
    for await (const _ of tool.stdout);
    const { exitCode, message } = await tool.ended;
    watching.abort();
    // What the watcher found is the reason that the program was killed.
    await watched;
    if (exitCode !== 0) {
      const why = message || "it was killed";
      throw new BedplateError("image.corrupt", `qemu-img cannot convert the image (${why}).`);
    }
    // A conversion may end between two looks of the watcher.
    await checkAllocated({ raw, spooledBytes, bound });
  } finally {
    watching.abort();
    await tool.stop();
    await watched.catch(() => {});
  }
}

interface Allocation {
  readonly raw: FileHandle;
  readonly spooledBytes: number;
  readonly bound: ExpansionBound;
}

async function watchExpansion({
  signal,
  ...allocation
}: Allocation & { readonly signal: AbortSignal }): Promise<void> {
  while (!signal.aborted) {
    await checkAllocated(allocation);
    await sleep(200, undefined, { signal }).catch(() => {});
  }
}

/** Many entries of a qcow2 table may name one cluster: what counts is the disk space that the output takes. */
async function checkAllocated({ raw, spooledBytes, bound }: Allocation): Promise<void> {
  const { blocks } = await raw.stat();
  checkExpansion(blocks * 512, spooledBytes, bound);
}
