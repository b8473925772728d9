// What is known of a disk beyond what selects it: where it hangs, its queue's limits, its names, what of it is mounted.

import type { Disk } from "../../../protocol/disks.ts";
import type { DiskDetail, QueueLimits } from "../../../protocol/inventory-devices.ts";
import type { ListedDisk } from "../disks.ts";
import { cleanLine, type Facts } from "../facts.ts";
import { type Mount, parseMountinfo } from "../mounts.ts";
import { parseIdentificationPage, parseRotationPage } from "./scsi-pages.ts";
import { countOf, flagOf, lineOf, pciAddressOfPath } from "./source.ts";

const mountsMax = 64;
const linksMax = 16;
const pageBytesMax = 4096;

export interface DetailSources {
  readonly mounts: readonly Mount[];
  readonly byPath: ReadonlyMap<string, readonly string[]>;
}

/** All but the content. */
export function readDetail(
  facts: Facts,
  { disk: { path, partitions, paths = [] }, number, from }: ListedDisk,
  { mounts, byPath }: DetailSources,
): Omit<DiskDetail, "content" | "contentError"> {
  const name = kernelNameOf(path);
  const at = `/sys/block/${name}`;
  // Of a multipath device the paths say what it is.
  const one = paths[0] === undefined ? name : kernelNameOf(paths[0]);
  const real = number === null ? null : facts.realPath(`/sys/block/${one}`);
  const page83 = facts.optionalBytes(`/sys/block/${one}/device/vpd_pg83`, pageBytesMax);
  const pageB1 = facts.optionalBytes(`/sys/block/${one}/device/vpd_pgb1`, pageBytesMax);
  return {
    device: number,
    byPath: (byPath.get(name) ?? []).slice(0, linksMax).map((link) => cleanLine(link, 256)),
    pciAddress: pciAddressOfPath(real),
    numaNode: numaNodeOf(facts, real),
    rpm: pageB1 === null ? null : parseRotationPage(pageB1),
    names: page83 === null ? [] : parseIdentificationPage(page83),
    queue: readQueue(facts, at),
    integrity: integrityOf(facts, at),
    nvme: nvmeOf(facts, name),
    mounted: mountedOf(mounts, path, partitions, number, facts),
    from: { ...from },
  };
}

export function readMounts(facts: Facts): readonly Mount[] {
  return parseMountinfo(facts.text("/proc/self/mountinfo") ?? "");
}

/** The name in sysfs: `/dev/cciss/c0d0` is `cciss!c0d0` there. */
export function kernelNameOf(path: string): string {
  return path.replace(/^\/dev\//, "").replaceAll("/", "!");
}

function readQueue(facts: Facts, at: string): QueueLimits {
  const queue = `${at}/queue`;
  const kib = countOf(facts, `${queue}/max_sectors_kb`);
  return {
    // The one in use stands in brackets.
    scheduler: /\[([\w-]+)\]/.exec(facts.optionalText(`${queue}/scheduler`) ?? "")?.[1] ?? null,
    rotational: flagOf(facts, `${queue}/rotational`),
    writeCache: lineOf(facts, `${queue}/write_cache`),
    forcedUnitAccess: flagOf(facts, `${queue}/fua`),
    discardGranularityBytes: countOf(facts, `${queue}/discard_granularity`),
    discardMaxBytes:
      countOf(facts, `${queue}/discard_max_hw_bytes`) ?? countOf(facts, `${queue}/discard_max_bytes`),
    writeZeroesMaxBytes: countOf(facts, `${queue}/write_zeroes_max_bytes`),
    maxTransferBytes: kib === null ? null : kib * 1024,
    minimumIoBytes: countOf(facts, `${queue}/minimum_io_size`),
    optimalIoBytes: countOf(facts, `${queue}/optimal_io_size`),
    requests: countOf(facts, `${queue}/nr_requests`),
    zoned: lineOf(facts, `${queue}/zoned`),
  };
}

function integrityOf(facts: Facts, at: string): string | null {
  const format = lineOf(facts, `${at}/integrity/format`);
  return format === null || format === "none" ? null : format;
}

function nvmeOf(facts: Facts, name: string): DiskDetail["nvme"] {
  if (!name.startsWith("nvme")) return null;
  const at = `/sys/block/${name}`;
  const device = facts.realPath(`${at}/device`);
  return {
    controller: cleanLine(device?.split("/").at(-1) ?? "", 64),
    namespace: countOf(facts, `${at}/nsid`),
    uuid: lineOf(facts, `${at}/uuid`),
    nguid: lineOf(facts, `${at}/nguid`),
    eui64: lineOf(facts, `${at}/eui`)?.replaceAll(" ", "") ?? null,
    subsystem: lineOf(facts, `${at}/device/subsysnqn`),
    state: lineOf(facts, `${at}/device/state`),
  };
}

/** Of the disk and its partitions; by number, or where a file system has none of its own, by the source's name. */
function mountedOf(
  mounts: readonly Mount[],
  path: string,
  partitions: Disk["partitions"],
  number: string | null,
  facts: Facts,
): DiskDetail["mounted"] {
  const numbers = new Map(
    partitions.map((partition) => [
      facts.optionalText(`/sys/class/block/${kernelNameOf(partition.path)}/dev`) ?? "none",
      partition.path,
    ]),
  );
  if (number !== null) numbers.set(number, path);
  const paths = new Set([path, ...partitions.map((partition) => partition.path)]);
  return mounts
    .flatMap((mount) => {
      const device = numbers.get(mount.device) ?? (paths.has(mount.source) ? mount.source : undefined);
      if (device === undefined) return [];
      return {
        device,
        mountPoint: cleanLine(mount.mountPoint, 1024),
        type: cleanLine(mount.type, 64),
        readOnly: mount.readOnly,
      };
    })
    .slice(0, mountsMax);
}

/** The nearest device above it that says so. */
function numaNodeOf(facts: Facts, real: string | null): number | null {
  for (let at = real ?? ""; at.startsWith("/sys/devices/"); at = at.slice(0, at.lastIndexOf("/"))) {
    const node = facts.optionalNumber(`${at}/numa_node`);
    if (node !== null) return node < 0 ? null : node;
  }
  return null;
}
