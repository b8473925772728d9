// Files as the executor sees them: small, synchronous, and never block devices (those belong to devices/).
import {
  accessSync,
  type BigIntStats,
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";

export interface FileStatus {
  readonly kind: "file" | "directory" | "link" | "block" | "socket" | "other";
  readonly sizeBytes: number;
  /** Permission bits only. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** `MAJOR:MINOR` of the file system it lies on, and its number there. */
  readonly device: string;
  readonly inode: bigint;
  /** `MAJOR:MINOR` that a device node stands for. */
  readonly represents: string;
}

/** Every method throws node's own error, whose errno {@link errnoOf} gives. */
export interface Files {
  /** At most `bytesMax`; what follows is not read. */
  readBytes(path: string, bytesMax: number): Uint8Array;
  /** Names, sorted. */
  list(path: string): readonly string[];
  readLink(path: string): string;
  realPath(path: string): string;
  /** Follows links. */
  status(path: string): FileStatus;
  /** Does not follow a last link. */
  linkStatus(path: string): FileStatus;
  /** With its missing parents; an existing one stays as it is. Durable when this returns. `mode` is the last one's. */
  makeDirectory(path: string, mode: number): void;
  /** Makes the file whole, or leaves the one that is there. Durable when this returns. */
  create(path: string, bytes: Uint8Array, mode: number): "created" | "exists";
  /** Makes the file, or replaces it: after a crash it has the old bytes or the new. Durable when this returns. */
  replace(path: string, bytes: Uint8Array, mode: number): void;
  changeGroup(path: string, gid: number): void;
  /** Whether this process may run it; false also when it is not there. */
  mayExecute(path: string): boolean;
  remove(path: string): void;
}

/**
 * Makes the directory, and those above it that are missing; undefined when it is there, else the topmost that was made.
 * Node's own recursive mkdir tries for ever below a mounted directory that was removed where it comes from.
 */
function makeDirectories(path: string, mode: number): string | undefined {
  const isThere = () => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  if (makeOne(path, mode)) return path;
  if (isThere()) return undefined;
  const above = makeDirectories(parentOf(path), mode);
  // For its error; another process may have made it meanwhile.
  if (!makeOne(path, mode) && !isThere()) mkdirSync(path, { mode });
  return above ?? path;
}

/** False when it is there, or the one above it is missing. */
function makeOne(path: string, mode: number): boolean {
  try {
    mkdirSync(path, { mode });
    return true;
  } catch (error) {
    if (errnoOf(error) === "EEXIST" || errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

export const systemFiles: Files = {
  readBytes(path, bytesMax) {
    const fd = openSync(path, "r");
    try {
      const pieces: Uint8Array[] = [];
      let length = 0;
      // Files of the kernel state no size and give a page or so at a time: read until nothing comes. Most of them are
      // small, and a buffer of 64 KiB for each took three quarters of the time of reading one.
      let pieceBytes = 8192;
      while (length < bytesMax) {
        const piece = Buffer.allocUnsafe(Math.min(pieceBytes, bytesMax - length));
        const count = readSync(fd, piece);
        if (count === 0) break;
        pieces.push(piece.subarray(0, count));
        length += count;
        if (count === piece.length) pieceBytes = Math.min(2 * pieceBytes, 65_536);
      }
      return new Uint8Array(Buffer.concat(pieces));
    } finally {
      closeSync(fd);
    }
  },
  list: (path) => readdirSync(path).sort(),
  readLink: (path) => readlinkSync(path),
  realPath: (path) => realpathSync.native(path),
  status: (path) => statusOf(statSync(path, { bigint: true })),
  linkStatus: (path) => statusOf(lstatSync(path, { bigint: true })),
  makeDirectory(path, mode) {
    const first = makeDirectories(path, mode);
    if (first === undefined) return;
    // Whatever the umask.
    chmodSync(path, mode);
    for (let made = path; ; made = parentOf(made)) {
      syncDirectory(made);
      if (made.length < first.length) return;
    }
  },
  create(path, bytes, mode) {
    const written = writeBeside(path, bytes, mode);
    try {
      // A link, not a rename: of two who make it at once, one's stays.
      linkSync(written, path);
      syncDirectory(parentOf(path));
      return "created";
    } catch (error) {
      if (errnoOf(error) === "EEXIST") return "exists";
      throw error;
    } finally {
      rmSync(written, { force: true });
    }
  },
  replace(path, bytes, mode) {
    renameSync(writeBeside(path, bytes, mode), path);
    syncDirectory(parentOf(path));
  },
  changeGroup(path, gid) {
    const status = lstatSync(path);
    // Only the owner who is in the group, or root, may: not asked for what is so already.
    if (status.gid !== gid) lchownSync(path, status.uid, gid);
  },
  mayExecute(path) {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  },
  remove: (path) => rmSync(path, { force: true }),
};

/** A file of this process's own in the same directory, on the disk. What an earlier process left there is replaced. */
function writeBeside(path: string, bytes: Uint8Array, mode: number): string {
  const beside = `${path}.${process.pid}.new`;
  rmSync(beside, { force: true });
  const fd = openSync(beside, "wx", mode);
  try {
    // Whatever the umask.
    fchmodSync(fd, mode);
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  return beside;
}

/** The status of an open file. */
export function statusOfOpen(fd: number): FileStatus {
  return statusOf(fstatSync(fd, { bigint: true }));
}

/** `EACCES` and the like; what is no system error gives its message. */
export function errnoOf(error: unknown): string {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return error instanceof Error ? error.message : String(error);
}

/** New names in a directory survive a power cut only after this. */
export function syncDirectory(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

export function parentOf(path: string): string {
  return path.slice(0, Math.max(1, path.lastIndexOf("/")));
}

function statusOf(stat: BigIntStats): FileStatus {
  return {
    kind: kindOf(stat),
    sizeBytes: Number(stat.size),
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    device: deviceNumber(stat.dev),
    inode: stat.ino,
    represents: deviceNumber(stat.rdev),
  };
}

function kindOf(stat: BigIntStats): FileStatus["kind"] {
  if (stat.isFile()) return "file";
  if (stat.isDirectory()) return "directory";
  if (stat.isSymbolicLink()) return "link";
  if (stat.isBlockDevice()) return "block";
  return stat.isSocket() ? "socket" : "other";
}

/** As glibc's gnu_dev_major and gnu_dev_minor split a dev_t. */
function deviceNumber(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}
