// Opening a disk and moving bytes between it and aligned memory, past the page cache.
import { close, constants, fdatasync, fsync, openSync, read, readSync, write, writeSync } from "node:fs";
import { promisify } from "node:util";
import { BedplateError } from "../../protocol/errors.ts";
import { errnoOf, statusOfOpen } from "../host/files.ts";
import type { Processes } from "../host/processes.ts";

/** What the workers need to use the same open file: descriptors belong to the process, not to a thread. */
export interface OpenDisk {
  readonly path: string;
  readonly fd: number;
  /** Whether the page cache is bypassed. */
  readonly direct: boolean;
  /** Reads and writes hold the thread: for a worker that would do nothing but wait, and so saves two handovers each. */
  readonly blocking?: boolean;
}

export interface DirectFile extends OpenDisk, AsyncDisposable {}

export interface OpenOptions {
  readonly path: string;
  readonly kind: "block" | "file";
  readonly access: "read" | "write";
  /** An aligned view of at least 4096 bytes, to try a direct read with. */
  readonly window: Uint8Array;
}

const closeFile = promisify(close);
const readFile = promisify(read);
const writeFile = promisify(write);
const syncFile = promisify(fsync);
const syncData = promisify(fdatasync);

/**
 * Opens with O_DIRECT, or through the page cache where the file system refuses that (`direct` tells). A block device
 * is opened for writing with O_EXCL: the kernel refuses while it is mounted or held.
 * @throws `disk.held`, `disk.read-only`, `disk.unavailable`
 */
export async function openDisk({ path, kind, access, window }: OpenOptions): Promise<DirectFile> {
  const base =
    access === "read" ? constants.O_RDONLY : constants.O_RDWR | (kind === "block" ? constants.O_EXCL : 0);
  // A declared file is the very file: no link in its place.
  const flags = base | (kind === "file" ? constants.O_NOFOLLOW : 0);
  let direct = true;
  let fd = tryOpen(path, flags | constants.O_DIRECT);
  if (fd === "EINVAL") {
    direct = false;
    fd = tryOpen(path, flags);
  }
  if (typeof fd === "string") throw openError(path, fd);
  if (direct) {
    try {
      await readFile(fd, window, 0, 4096, 0);
    } catch (error) {
      // Some file systems take the flag and refuse the read.
      if (errnoOf(error) !== "EINVAL") {
        await closeFile(fd);
        throw ioError({ path, fd, direct }, { doing: "read", position: 0 }, error);
      }
      await closeFile(fd);
      direct = false;
      fd = tryOpen(path, flags);
      if (typeof fd === "string") throw openError(path, fd);
    }
  }
  const opened = fd;
  if (statusOfOpen(opened).kind !== kind) {
    await closeFile(opened);
    throw new BedplateError(
      "disk.unavailable",
      `${path} is not a ${kind === "block" ? "block device" : "regular file"} any more.`,
    );
  }
  return { path, fd: opened, direct, [Symbol.asyncDispose]: () => closeFile(opened) };
}

/** Fills `view`. @throws `disk.io` */
export async function readFully(disk: OpenDisk, view: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < view.length) {
    let count: number;
    try {
      const [length, at] = [view.length - done, position + done];
      if (disk.blocking === true) count = readSync(disk.fd, view, done, length, at);
      else ({ bytesRead: count } = await readFile(disk.fd, view, done, length, at));
    } catch (error) {
      throw ioError(disk, { doing: "read", position: position + done }, error);
    }
    if (count === 0) {
      throw new BedplateError("disk.io", `${disk.path} ends at byte ${position + done}, before its size.`, {
        details: { path: disk.path, offset: position + done },
      });
    }
    done += count;
  }
}

/**
 * A copy of any stretch of the disk, read in whole blocks through `window`, as O_DIRECT wants it.
 * @throws `disk.io`
 */
export async function readStretch(
  disk: OpenDisk,
  window: Uint8Array,
  {
    offset,
    length,
    sizeBytes,
  }: { readonly offset: number; readonly length: number; readonly sizeBytes: number },
): Promise<Uint8Array> {
  const copy = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const position = Math.floor((offset + done) / blockBytes) * blockBytes;
    const skipped = offset + done - position;
    const wanted = Math.ceil((skipped + length - done) / blockBytes) * blockBytes;
    const part = window.subarray(0, Math.min(wanted, window.length, sizeBytes - position));
    await readFully(disk, part, position);
    const taken = part.subarray(skipped, skipped + length - done);
    copy.set(taken, done);
    done += taken.length;
  }
  return copy;
}

/** Every device and file system reads at multiples of this. */
const blockBytes = 4096;

/** Writes all of `view`. @throws `disk.io` */
export async function writeFully(disk: OpenDisk, view: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < view.length) {
    try {
      const [length, at] = [view.length - done, position + done];
      if (disk.blocking === true) done += writeSync(disk.fd, view, done, length, at);
      else done += (await writeFile(disk.fd, view, done, length, at)).bytesWritten;
    } catch (error) {
      throw ioError(disk, { doing: "written", position: position + done }, error);
    }
  }
}

/** Everything written is on the medium when this returns. @throws `disk.io` */
export async function syncDisk(disk: OpenDisk, what: "all" | "data"): Promise<void> {
  try {
    await (what === "all" ? syncFile(disk.fd) : syncData(disk.fd));
  } catch (error) {
    // After a failed sync the kernel may have dropped what it could not write: never tried again.
    throw ioError(disk, { doing: "synced", position: 0 }, error);
  }
}

/**
 * Takes the whole-disk lock that udev and other tools honour. The lock belongs to the open file description, which the
 * child shares: it stays when the child ends. Undefined when taken, else why there is none.
 * @throws `disk.held` when somebody else has it
 */
export async function lockDisk(
  disk: OpenDisk,
  processes: Processes,
  signal: AbortSignal,
): Promise<string | undefined> {
  const end = await processes.run(["flock", "--exclusive", "--nonblock", "3"], {
    signal,
    descriptor3: disk.fd,
  });
  if (end === "missing") return "flock of util-linux is not installed: the disk is held by O_EXCL alone";
  if (end.exitCode === 0) return undefined;
  if (end.exitCode === 1 && end.errors.trim() === "")
    throw held(disk.path, "another program has locked it (flock)");
  return `flock failed (${end.exitCode}): ${end.errors.trim().slice(0, 200)}`;
}

/** A descriptor, or the errno. */
function tryOpen(path: string, flags: number): number | string {
  try {
    return openSync(path, flags);
  } catch (error) {
    return errnoOf(error);
  }
}

function openError(path: string, errno: string): BedplateError {
  switch (errno) {
    case "EBUSY":
      return held(path, "the kernel refuses exclusive use (EBUSY)");
    case "EROFS":
      return new BedplateError(
        "disk.read-only",
        `${path} cannot be written: it, or the file system it lies on, is read-only.`,
      );
    case "EACCES":
    case "EPERM":
      return new BedplateError("disk.unavailable", `${path} cannot be opened: ${errno}.`, {
        hint: "The executor needs root for disks, and write permission for file-backed ones.",
        details: { path, errno },
      });
    default:
      return new BedplateError("disk.unavailable", `${path} cannot be opened: ${errno}.`, {
        details: { path, errno },
      });
  }
}

function held(path: string, why: string): BedplateError {
  return new BedplateError("disk.held", `${path} is in use: ${why}.`, {
    hint: "Something has it mounted or open: see lsblk, `fuser -v`, and losetup.",
    details: { path },
  });
}

function ioError(
  disk: OpenDisk,
  at: { doing: "read" | "written" | "synced"; position: number },
  cause: unknown,
): BedplateError {
  const errno = errnoOf(cause);
  const where = at.doing === "synced" ? "" : ` at byte ${at.position}`;
  return new BedplateError("disk.io", `${disk.path} cannot be ${at.doing}${where}: ${errno}.`, {
    ...(errno === "ENOSPC" ? { hint: "The file system of the file-backed disk is full." } : {}),
    details: { path: disk.path, errno, offset: at.position, doing: at.doing },
    cause,
  });
}
