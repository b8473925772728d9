// Who has a disk open to write to it: a virtual machine that it was given to, say. The kernel refuses nobody for that.
import type { Disk } from "../../protocol/disks.ts";
import type { Files } from "../host/files.ts";
import { cleanLine } from "./facts.ts";

const infoBytesMax = 4096;
const namedMax = 8;
/** O_ACCMODE of fcntl.h; 0 in it is O_RDONLY. */
const accessBits = 3;

/**
 * Programs besides this one, as `qemu-system-x86 (4711)`: those whose descriptors this process may see, and so all of them
 * as root. By device and file, not by name: a container may call it otherwise.
 */
export function writersOf(files: Files, disk: Disk, otherPaths: readonly string[] = []): readonly string[] {
  const nodes = [disk.path, ...disk.partitions.map(({ path }) => path), ...(disk.paths ?? []), ...otherPaths];
  const wanted = new Set([...nodes, ...(disk.backing === null ? [] : [disk.backing])].map(identityAt(files)));
  wanted.delete(undefined);
  const backing = attempt(() => (disk.backing === null ? undefined : files.realPath(disk.backing)));
  // Only what can be one is asked about: a file system that hangs would keep us here.
  const mayBe = (target: string | undefined) =>
    target !== undefined && (target === backing || target.includes("/dev/"));
  const self = attempt(() => files.readLink("/proc/self"));
  const writers: string[] = [];
  for (const pid of attempt(() => files.list("/proc")) ?? []) {
    if (!/^\d+$/.test(pid) || pid === self) continue;
    const writes = (attempt(() => files.list(`/proc/${pid}/fd`)) ?? []).some(
      (fd) =>
        mayBe(attempt(() => files.readLink(`/proc/${pid}/fd/${fd}`))) &&
        wanted.has(identityAt(files)(`/proc/${pid}/fd/${fd}`)) &&
        isForWriting(files, `/proc/${pid}/fdinfo/${fd}`),
    );
    if (writes) writers.push(`${nameOf(files, pid)} (${pid})`);
    if (writers.length === namedMax) break;
  }
  return writers;
}

/** Of the device that a node stands for, else of the file. */
function identityAt(files: Files): (path: string) => string | undefined {
  return (path) =>
    attempt(() => {
      const { kind, represents, device, inode } = files.status(path);
      return kind === "block" ? `device ${represents}` : `file ${device} ${inode}`;
    });
}

/** proc_pid_fdinfo(5): the flags are octal. What does not say how it is open counts. */
function isForWriting(files: Files, info: string): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(textOf(files, info) ?? "")?.[1];
  return flags === undefined || (Number.parseInt(flags, 8) & accessBits) !== 0;
}

function nameOf(files: Files, pid: string): string {
  return cleanLine(textOf(files, `/proc/${pid}/comm`) ?? "", 64) || "a process";
}

function textOf(files: Files, path: string): string | undefined {
  return attempt(() => new TextDecoder().decode(files.readBytes(path, infoBytesMax)));
}

/** Processes and their descriptors go while they are looked at. */
function attempt<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
