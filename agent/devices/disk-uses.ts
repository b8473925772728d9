// What stands on what: mounts, swap, loop devices, multipath and holders over the disks, as the kernel tells it.
import type { Files } from "../host/files.ts";
import type { Facts } from "./facts.ts";
import { type Mount, mountOf, parseMountinfo, parseSwaps } from "./mounts.ts";

export interface Uses {
  readonly mounts: readonly Mount[];
  readonly swaps: readonly string[];
  /** Loop device to the path behind it. */
  readonly loops: ReadonlyMap<string, string>;
  /** Loop devices over this very file, whatever names it has, or over a part of it. */
  readonly over: (path: string) => readonly string[];
  /** A path to the multipath device that it belongs to. */
  readonly multipath: ReadonlyMap<string, string>;
  readonly byId: ReadonlyMap<string, readonly string[]>;
  /** Disks under a mount, through partitions, device mapper, md and loop. */
  readonly under: (mount: Mount | undefined) => ReadonlySet<string>;
}

export function readUses(facts: Facts, files: Files): Uses {
  const mounts = parseMountinfo(facts.text("/proc/self/mountinfo") ?? "");
  const names = facts.list("/sys/block");
  const loops = new Map(
    names.flatMap((name) => {
      const backing = facts.optionalText(`/sys/block/${name}/loop/backing_file`);
      return backing === null ? [] : [[name, backing] as const];
    }),
  );
  const fileOf = new Map([...loops].map(([loop, path]) => [loop, fileAt(files, path)] as const));
  const over = (path: string) => {
    const file = fileAt(files, path);
    return [...loops.keys()].filter((loop) => fileOf.get(loop) === file);
  };
  const ofPartition = new Map(
    names.flatMap((name) => partitionNames(facts, name).map((partition) => [partition, name] as const)),
  );
  const ofNumber = new Map(
    [...names, ...ofPartition.keys()].map(
      (name) => [facts.optionalText(`/sys/class/block/${name}/dev`) ?? "", name] as const,
    ),
  );
  const under = (mount: Mount | undefined): ReadonlySet<string> => {
    const seen = new Set<string>();
    const descend = (name: string | undefined) => {
      if (name === undefined || seen.has(name)) return;
      seen.add(name);
      descend(ofPartition.get(name));
      for (const slave of facts.list(`/sys/class/block/${name}/slaves`)) descend(slave);
      const backing = loops.get(name);
      if (backing !== undefined) follow(mountOf(mounts, backing));
    };
    // btrfs and overlay have a number of no device; the source's name leads further there.
    const follow = (at: Mount | undefined) => {
      if (at !== undefined) descend(ofNumber.get(at.device) ?? kernelName(facts, at.source));
    };
    follow(mount);
    return seen;
  };
  const multipath = new Map(
    names
      .filter((name) => isMultipath(facts, name))
      .flatMap((name) => facts.list(`/sys/block/${name}/slaves`).map((path) => [path, name] as const)),
  );
  return {
    mounts,
    multipath,
    swaps: parseSwaps(facts.optionalText("/proc/swaps") ?? ""),
    loops,
    over,
    byId: linksByTarget(facts, "/dev/disk/by-id"),
    under,
  };
}

/** Everything stacked on these, layer over layer: device mapper, md, bcache, and loop devices on them. */
export function holdersOf(facts: Facts, nodes: readonly string[], uses: Uses): string[] {
  const found = new Set<string>();
  const climb = (node: string) => {
    const direct = facts.list(`/sys/class/block/${node}/holders`);
    const loops = [...uses.loops].filter(([, backing]) => backing === devicePath(node)).map(([loop]) => loop);
    for (const holder of [...direct, ...loops]) {
      if (found.has(holder)) continue;
      found.add(holder);
      climb(holder);
    }
  };
  nodes.forEach(climb);
  return [...found].sort();
}

/** What is one file for the kernel; where none is there any more, its name. */
function fileAt(files: Files, path: string): string {
  try {
    const { device, inode } = files.status(path);
    return `${device} ${inode}`;
  } catch {
    return path;
  }
}

/** Device mapper's target that joins several paths to one disk: its users' programs give it this prefix. */
export function isMultipath(facts: Facts, name: string): boolean {
  return (
    name.startsWith("dm-") && facts.optionalText(`/sys/block/${name}/dm/uuid`)?.startsWith("mpath-") === true
  );
}

export function partitionNames(facts: Facts, name: string): readonly string[] {
  return facts
    .list(`/sys/block/${name}`)
    .filter((entry) => entry.startsWith(name) && facts.exists(`/sys/block/${name}/${entry}/partition`));
}

/** Names of links in a directory of udev's, by the device's name in /dev; read once, since there are hundreds. */
export function linksByTarget(facts: Facts, directory: string): ReadonlyMap<string, readonly string[]> {
  const links = new Map<string, string[]>();
  for (const link of facts.list(directory)) {
    const target = (facts.link(`${directory}/${link}`) ?? "").split("/").at(-1)!;
    const known = links.get(target);
    if (known === undefined) links.set(target, [link]);
    else known.push(link);
  }
  return links;
}

/** The name in sysfs of a device node, links resolved. */
function kernelName(facts: Facts, path: string): string | undefined {
  if (!path.startsWith("/dev/")) return undefined;
  return (facts.realPath(path) ?? path).slice("/dev/".length).replaceAll("/", "!");
}

/** Names with a slash (`cciss/c0d0`) have `!` for it in sysfs. */
export function devicePath(name: string): string {
  return `/dev/${name.replaceAll("!", "/")}`;
}
