// Block devices that lie over others: device mapper, md, bcache, DRBD. A disk's holders lead here.
import type { Layer } from "../../../protocol/inventory-devices.ts";
import { bytesOf } from "../disks.ts";
import { cleanLine, type Facts } from "../facts.ts";
import type { Mount } from "../mounts.ts";
import { kernelNameOf } from "./disk-detail.ts";
import { countOf, lineOf } from "./source.ts";

const listMax = 256;

/** Names in /sys/block that are layers. */
export function layerNames(facts: Facts): readonly string[] {
  return facts.list("/sys/block").filter((name) => /^(dm-\d+|md\d+|md_.+|bcache\d+|drbd\d+)$/.test(name));
}

/** All but the signatures on it. */
export function readLayer(
  facts: Facts,
  name: string,
  { mounts, swaps }: { mounts: readonly Mount[]; swaps: readonly string[] },
): Omit<Layer, "signatures"> {
  const at = `/sys/block/${name}`;
  const number = facts.optionalText(`${at}/dev`);
  const path = `/dev/${name.replaceAll("!", "/")}`;
  const uuid = lineOf(facts, `${at}/dm/uuid`) ?? lineOf(facts, `${at}/md/uuid`);
  return {
    path,
    name: lineOf(facts, `${at}/dm/name`),
    kind: kindOf(name, uuid),
    sizeBytes: bytesOf(facts.optionalNumber(`${at}/size`)),
    uuid,
    slaves: facts.list(`${at}/slaves`).slice(0, listMax).map(pathOf),
    holders: facts.list(`${at}/holders`).slice(0, listMax).map(pathOf),
    mounts: mounts
      .filter((mount) => mount.device === number || mount.source === path)
      .map((mount) => cleanLine(mount.mountPoint, 1024))
      .slice(0, listMax),
    swap: swaps.some((swap) => kernelNameOf(facts.realPath(swap) ?? swap) === name),
    raid: raidOf(facts, at),
  };
}

/** Device mapper's users put their name before the uuid. */
const prefixes: readonly (readonly [RegExp, string])[] = [
  [/^mpath-/, "multipath"],
  [/^part\d+-/, "partition"],
  [/^LVM-/, "lvm"],
  [/^CRYPT-/, "crypt"],
  [/^DMRAID-/, "dmraid"],
  [/^VDO-/, "vdo"],
  [/^stratis-/, "stratis"],
];

function kindOf(name: string, uuid: string | null): string {
  if (!name.startsWith("dm-")) return name.replace(/[\d_].*$/, "");
  return prefixes.find(([prefix]) => prefix.test(uuid ?? ""))?.[1] ?? "dm";
}

function raidOf(facts: Facts, at: string): Layer["raid"] {
  const level = lineOf(facts, `${at}/md/level`);
  if (level === null) return null;
  return {
    level,
    devices: countOf(facts, `${at}/md/raid_disks`),
    degraded: countOf(facts, `${at}/md/degraded`),
    // Clean and active alternate with every write.
    state:
      lineOf(facts, `${at}/md/array_state`)?.replace(
        /^(clean|active|active-idle|write-pending)$/,
        "in use",
      ) ?? null,
    metadata: lineOf(facts, `${at}/md/metadata_version`),
  };
}

function pathOf(name: string): string {
  return `/dev/${name.replaceAll("!", "/")}`;
}
