// Who has a disk open to write to it: a virtual machine that it was given to, say. The kernel refuses nobody for that.
import type { Disk } from "../../protocol/disks.ts";
import type { Files } from "../host/files.ts";
import { cleanLine } from "./facts.ts";

const infoBytesMax = 4096;
const mountsBytesMax = 4 << 20;
const namedMax = 8;
/** File systems that somebody else has to answer for, who may be gone: whoever asks them for a status waits. */
const foreignTypes =
  /^(afs|autofs|beegfs|ceph|cifs|coda|fuse|gfs2|glusterfs|gpfs|lustre|ncp|nfs|ocfs2|orangefs|smb|virtiofs|9p)/;
/** Where neither nodes nor images of disks lie. */
const nodeless = /^\/(proc\/|sys\/|memfd:|SYSV|anon_hugepage|\[)/;
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
  const typeOfMount = mountTypes(files);
  // Only what answers is asked: a file system that hangs would keep us here.
  const isOne = (pid: string, fd: string) => {
    const [link, info] = [`/proc/${pid}/fd/${fd}`, `/proc/${pid}/fdinfo/${fd}`];
    const target = attempt(() => files.readLink(link));
    if (target?.startsWith("/") !== true) return false;
    const isWanted = () => wanted.has(identityAt(files)(link));
    if (target === backing || target.includes("/dev/"))
      return isWanted() && isForWriting(textOf(files, info) ?? "");
    // A node that was made elsewhere, or the file by another name.
    if (nodeless.test(target)) return false;
    const text = textOf(files, info) ?? "";
    if (!isForWriting(text)) return false;
    const type = typeOfMount(pid, /^mnt_id:\s*(\d+)$/m.exec(text)?.[1]);
    return type !== undefined && !foreignTypes.test(type) && isWanted();
  };
  const self = attempt(() => files.readLink("/proc/self"));
  const writers: string[] = [];
  for (const pid of attempt(() => files.list("/proc")) ?? []) {
    if (!/^\d+$/.test(pid) || pid === self) continue;
    const descriptors = attempt(() => files.list(`/proc/${pid}/fd`)) ?? [];
    if (descriptors.some((fd) => isOne(pid, fd))) writers.push(`${nameOf(files, pid)} (${pid})`);
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
function isForWriting(info: string): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(info)?.[1];
  return flags === undefined || (Number.parseInt(flags, 8) & accessBits) !== 0;
}

/**
 * The type of a process's mount by its number, which is the same in every mount namespace: so most are known from the first
 * process of each. Undefined for what nobody has mounted any more.
 */
function mountTypes(files: Files): (pid: string, id: string | undefined) => string | undefined {
  const types = new Map<string, string | undefined>();
  const read = (pid: string) => {
    const text = textOf(files, `/proc/${pid}/mountinfo`, mountsBytesMax) ?? "";
    // proc_pid_mountinfo(5): the number is the first word, the type the first one after the dash.
    for (const [, id, type] of text.matchAll(/^(\d+) .* - (\S+) /gm)) types.set(id!, type);
  };
  return (pid, id) => {
    if (id === undefined) return undefined;
    if (!types.has(id)) read(pid);
    if (!types.has(id)) types.set(id, undefined);
    return types.get(id);
  };
}

function nameOf(files: Files, pid: string): string {
  return cleanLine(textOf(files, `/proc/${pid}/comm`) ?? "", 64) || "a process";
}

function textOf(files: Files, path: string, bytesMax = infoBytesMax): string | undefined {
  return attempt(() => new TextDecoder().decode(files.readBytes(path, bytesMax)));
}

/** Processes and their descriptors go while they are looked at. */
function attempt<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
