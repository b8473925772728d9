// Ways to one disk that no multipath device joins: what uses the disk by one of them uses it by all. Pure.
import type { Disk } from "../../protocol/disks.ts";

interface Listed {
  readonly disk: Disk;
  /** Which of some paths of the host it carries. */
  readonly carries: readonly string[];
}

/** The kernel does not know that they are one: mounted by one path, the other one is given to whoever asks for it alone. */
export function withOtherPaths<T extends Listed>(
  disks: readonly T[],
): (T & { readonly otherPaths?: readonly string[] })[] {
  return disks.map((listed) => {
    const others = disks.filter((other) => other !== listed && isSame(other.disk, listed.disk));
    if (others.length === 0) return listed;
    const all = [listed, ...others];
    return {
      ...listed,
      otherPaths: others.map(({ disk }) => disk.path),
      carries: [...new Set(all.flatMap(({ carries }) => carries))],
      disk: {
        ...listed.disk,
        mounts: all.flatMap(({ disk }) => disk.mounts),
        swap: all.some(({ disk }) => disk.swap),
        holders: [...new Set(all.flatMap(({ disk }) => disk.holders))],
      },
    };
  });
}

/** By its world-wide name; makers have given one to several, whose serials and sizes then tell them apart. */
function isSame(a: Disk, b: Disk): boolean {
  const serials = a.serial === null || b.serial === null || a.serial === b.serial;
  return a.wwn !== null && a.wwn === b.wwn && a.sizeBytes === b.sizeBytes && serials;
}
