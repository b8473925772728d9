// What is mounted and what is swap, parsed from /proc/self/mountinfo and /proc/swaps.

export interface Mount {
  /** `MAJOR:MINOR` of the file system; 0:N where it has no device of its own (btrfs, overlay, tmpfs). */
  readonly device: string;
  readonly mountPoint: string;
  readonly type: string;
  /** `/dev/sda1`, or what the file system calls its source. */
  readonly source: string;
  readonly readOnly: boolean;
}

/** proc_pid_mountinfo(5): `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`. Lines that are not so are left out. */
export function parseMountinfo(text: string): readonly Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const [before, after] = line.split(" - ", 2);
    const [, , device, , mountPoint, options = ""] = before!.split(" ");
    const [type, source] = (after ?? "").split(" ");
    if (device === undefined || mountPoint === undefined || type === undefined || source === undefined)
      continue;
    if (!/^\d+:\d+$/.test(device) || !mountPoint.startsWith("/")) continue;
    mounts.push({
      device,
      mountPoint: unescaped(mountPoint),
      type,
      source: unescaped(source),
      readOnly: options.split(",").includes("ro"),
    });
  }
  return mounts;
}

/** The mount that `path` lies on: the longest mount point that holds it, the later one where two are the same. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  let found: Mount | undefined;
  for (const mount of mounts) {
    const holds =
      mount.mountPoint === "/" || path === mount.mountPoint || path.startsWith(`${mount.mountPoint}/`);
    if (holds && mount.mountPoint.length >= (found?.mountPoint.length ?? 0)) found = mount;
  }
  return found;
}

/** Paths of swap devices and files: the first column of /proc/swaps. */
export function parseSwaps(text: string): readonly string[] {
  return text
    .split("\n")
    .slice(1)
    .map((line) => unescaped(line.split(/\s+/)[0]!))
    .filter((path) => path.startsWith("/"));
}

/** The kernel writes blanks, tabs, newlines and backslashes in paths as octal. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
