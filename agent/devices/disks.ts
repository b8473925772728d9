// The host's disks: from sysfs, and the file-backed ones that the policy declares; each with what uses it.
import type { Disk } from "../../protocol/disks.ts";
import { errnoOf, type Files } from "../host/files.ts";
import { type IdentitySources, identifyDisk } from "./disk-identity.ts";
import { devicePath, holdersOf, isMultipath, partitionNames, readUses, type Uses } from "./disk-uses.ts";
import { cleanLine, type Facts } from "./facts.ts";
import { mountOf } from "./mounts.ts";
import { withOtherPaths } from "./other-paths.ts";

/** A file that stands for a disk, by the name that the policy gives it. */
export interface FileDisk {
  readonly name: string;
  readonly path: string;
  readonly sizeBytes: number;
}

export interface ListedDisk {
  readonly disk: Disk;
  /** `MAJOR:MINOR`; null for a file-backed disk. */
  readonly number: string | null;
  /** Member to the file that it came from. */
  readonly from: IdentitySources;
  /** Which of the asked paths (root, state directory) it carries, itself or under other layers. */
  readonly carries: readonly string[];
  /** Other device nodes of this very disk, which nothing joins with it. */
  readonly otherPaths?: readonly string[];
}

/** What is listed for people but never taken: and why. */
export interface ExcludedDisk {
  readonly path: string;
  readonly reason: string;
  readonly serial: string | null;
  readonly model: string | null;
  readonly sizeBytes: number;
}

export interface DiskListing {
  readonly disks: readonly ListedDisk[];
  readonly excluded: readonly ExcludedDisk[];
}

export interface DiskSources {
  readonly facts: Facts;
  readonly files: Files;
  readonly fileDisks: readonly FileDisk[];
  /** Whether the policy allows destructive commands on it. */
  readonly allows: (disk: Disk) => boolean;
  /** Paths whose disks are told by `carries`. */
  readonly protectedPaths: readonly string[];
}

const sectorBytes = 512;
/** Of a file: what the file systems of today take for O_DIRECT. */
const fileSectors = { logicalSectorBytes: 512, physicalSectorBytes: 4096 } as const;

export function listDisks({ facts, files, fileDisks, allows, protectedPaths }: DiskSources): DiskListing {
  const uses = readUses(facts, files);
  const disks: ListedDisk[] = [];
  const excluded: ExcludedDisk[] = [];
  const add = (found: Omit<ListedDisk, "carries"> | ExcludedDisk, carries: (path: string) => boolean) => {
    if ("reason" in found) excluded.push(found);
    else
      disks.push({
        ...found,
        disk: { ...found.disk, allowed: allows(found.disk) },
        carries: protectedPaths.filter(carries),
      });
  };
  for (const name of facts.list("/sys/block")) {
    const backing = uses.loops.get(name);
    add(
      readBlockDisk(facts, name, uses),
      (path) => uses.under(mountOf(uses.mounts, path)).has(name) || liesIn(backing, path),
    );
  }
  for (const fileDisk of fileDisks)
    add(readFileDisk(files, fileDisk, uses), (path) => liesIn(fileDisk.path, path));
  return { disks: withOtherPaths(disks), excluded };
}

function liesIn(file: string | undefined, path: string): boolean {
  return path !== "/" && file?.startsWith(`${path}/`) === true;
}

function readBlockDisk(facts: Facts, name: string, uses: Uses): Omit<ListedDisk, "carries"> | ExcludedDisk {
  const at = `/sys/block/${name}`;
  const path = devicePath(name);
  const number = facts.text(`${at}/dev`) ?? "";
  const paths = isMultipath(facts, name) ? facts.list(`${at}/slaves`) : [];
  // A multipath device is the disk behind its paths; it has itself only a name that a person gave it.
  const [path0 = name] = paths;
  const read = identifyDisk(
    facts,
    path0,
    path0 === name ? number : (facts.text(`/sys/block/${path0}/dev`) ?? ""),
  );
  const identity = { ...read.identity, ...(paths.length === 0 ? {} : { hctl: null }) };
  const sizeBytes = bytesOf(facts.number(`${at}/size`));
  const backing = uses.loops.get(name) ?? null;
  const reason = exclusion({
    name,
    sizeBytes,
    backing,
    overDevice: backing !== null && isBlockDevice(facts, backing),
    hidden: facts.optionalNumber(`${at}/hidden`) === 1,
    multipath: paths.length > 0,
    pathOf: uses.multipath.get(name),
  });
  if (reason !== undefined)
    return { path, reason, serial: identity.serial, model: identity.model, sizeBytes };

  const partitions = partitionNames(facts, name);
  const nodes = [name, ...partitions];
  const state = facts.optionalText(`${at}/device/state`);
  const numbers = new Set(nodes.map((node) => facts.optionalText(`/sys/class/block/${node}/dev`) ?? "none"));
  const nodePaths = new Set(nodes.map(devicePath));
  const logicalSectorBytes = positive(facts.number(`${at}/queue/logical_block_size`)) ?? 512;
  return {
    number,
    from: read.from,
    disk: {
      ...identity,
      path,
      type: typeOf(name, facts.optionalNumber(`${at}/queue/rotational`)),
      sizeBytes,
      logicalSectorBytes,
      physicalSectorBytes:
        positive(facts.optionalNumber(`${at}/queue/physical_block_size`)) ?? logicalSectorBytes,
      byId: [...(uses.byId.get(name) ?? [])],
      readOnly: facts.optionalNumber(`${at}/ro`) === 1,
      removable: facts.optionalNumber(`${at}/removable`) === 1,
      diskSequence: positive(facts.optionalNumber(`${at}/diskseq`)) ?? 0,
      backing,
      fileDisk: null,
      partitions: partitions.map((partition) => ({
        path: devicePath(partition),
        number: positive(facts.number(`${at}/${partition}/partition`)) ?? 0,
        startBytes: bytesOf(facts.number(`${at}/${partition}/start`)),
        sizeBytes: bytesOf(facts.number(`${at}/${partition}/size`)),
      })),
      mounts: uses.mounts
        .filter((mount) => numbers.has(mount.device) || nodePaths.has(mount.source))
        .map((mount) => cleanLine(mount.mountPoint, 1024)),
      swap: uses.swaps.some((swap) => nodePaths.has(swap)),
      // The kernel lets several loop devices write to one file, whoever has one of them for himself.
      holders: [
        ...holdersOf(facts, nodes, uses),
        ...(backing === null ? [] : uses.over(backing).filter((other) => other !== name)),
      ],
      allowed: false,
      ...(state === null || state === "" ? {} : { state: cleanLine(state, 64) }),
      ...(paths.length === 0 ? {} : { paths: paths.map(devicePath) }),
    },
  };
}

function readFileDisk(
  files: Files,
  fileDisk: FileDisk,
  uses: Uses,
): Omit<ListedDisk, "carries"> | ExcludedDisk {
  const { name, path, sizeBytes } = fileDisk;
  const excludedFor = (reason: string): ExcludedDisk => ({
    path,
    reason,
    serial: null,
    model: null,
    sizeBytes,
  });
  let readOnly: boolean;
  try {
    const status = files.linkStatus(path);
    if (status.kind !== "file")
      return excludedFor(`the policy's file disk "${name}" is a ${status.kind}, not a file`);
    if (status.sizeBytes !== sizeBytes) {
      return excludedFor(
        `the policy gives the file disk "${name}" ${sizeBytes} bytes; the file has ${status.sizeBytes}`,
      );
    }
    readOnly = (status.mode & 0o222) === 0;
  } catch (error) {
    return excludedFor(`the file of the policy's file disk "${name}" cannot be used: ${errnoOf(error)}`);
  }
  return {
    number: null,
    from: {},
    disk: {
      ...fileSectors,
      path,
      type: "file",
      sizeBytes,
      serial: null,
      wwn: null,
      model: null,
      vendor: null,
      firmware: null,
      hctl: null,
      byId: [],
      transport: null,
      readOnly,
      removable: false,
      diskSequence: 0,
      backing: path,
      fileDisk: name,
      partitions: [],
      mounts: [],
      swap: uses.swaps.includes(path),
      holders: [...uses.over(path)],
      allowed: false,
    },
  };
}

function exclusion(disk: {
  name: string;
  sizeBytes: number;
  backing: string | null;
  overDevice: boolean;
  hidden: boolean;
  multipath: boolean;
  pathOf: string | undefined;
}): string | undefined {
  const { name, sizeBytes, backing, overDevice, hidden, multipath, pathOf } = disk;
  if (/^(ram|zram)\d/.test(name)) return "a disk in memory";
  if (/^fd\d/.test(name)) return "a floppy drive";
  if (/^sr\d/.test(name)) return "an optical drive";
  if (pathOf !== undefined) return `one path of the multipath device ${devicePath(pathOf)}`;
  if (/^(dm-|md|drbd|nbd|bcache|rbd|zd)\d*/.test(name) && !multipath)
    return "a layer over other disks or the network, not a disk of this host";
  if (/^mmcblk\d+(boot|rpmb)/.test(name)) return "a boot area of an MMC device";
  if (hidden) return "one path of a multipath device";
  if (name.startsWith("loop") && backing === null) return "a loop device with no file behind it";
  // What uses the device below, and what protects it, would not be seen from here.
  if (overDevice) return `a loop device over ${backing}, which is a block device itself`;
  if (backing?.endsWith(" (deleted)") === true) return "a loop device whose file is deleted";
  return sizeBytes === 0 ? "of size 0: no medium" : undefined;
}

function isBlockDevice(facts: Facts, path: string): boolean {
  const name = /^\/dev\/(.+)$/.exec(path)?.[1]?.replaceAll("/", "!");
  return name !== undefined && facts.exists(`/sys/class/block/${name}`);
}

function positive(number: number | null): number | null {
  return number !== null && number > 0 ? number : null;
}

/** Of sectors as the kernel counts them; what no disk can have is 0. */
export function bytesOf(sectors: number | null): number {
  const bytes = (positive(sectors) ?? 0) * sectorBytes;
  return Number.isSafeInteger(bytes) ? bytes : 0;
}

function typeOf(name: string, rotational: number | null): Disk["type"] {
  if (name.startsWith("loop")) return "loop";
  if (name.startsWith("nvme")) return "nvme";
  return rotational === 1 ? "hdd" : "ssd";
}
