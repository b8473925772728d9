// The disks of an inventory as text: each with its selector ready to paste, what lies on it, its health, and the layers over them.
import type { DiskContent, Signature } from "../protocol/disk-content.ts";
import type { Disk } from "../protocol/disks.ts";
import type { Inventory } from "../protocol/inventory.ts";
import type { InventoryDisk } from "../protocol/inventory-devices.ts";
import { selectorOf } from "./deploy.ts";
import { bracketed, formatBytes, joined, table } from "./output.ts";

const layersMax = 40;

export function diskTable(disks: readonly Disk[]): string {
  return table(disks, [
    { title: "DISK", of: (disk) => disk.path },
    { title: "SIZE", of: (disk) => formatBytes(disk.sizeBytes), align: "right" },
    { title: "TYPE", of: (disk) => disk.type },
    { title: "MODEL", of: (disk) => disk.model },
    { title: "USE", of: useOf },
    { title: "ALLOWED", of: (disk) => (disk.allowed ? "yes" : "no") },
    { title: "SELECT WITH", of: selectorOf },
  ]);
}

function useOf(disk: InventoryDisk): string {
  const uses = [
    ...(disk.mounts.length === 0 ? [] : [`mounted on ${disk.mounts.slice(0, 2).join(", ")}`]),
    ...(disk.swap ? ["swap"] : []),
    ...(disk.holders.length === 0 ? [] : [`held by ${disk.holders.slice(0, 2).join(", ")}`]),
    ...(disk.readOnly ? ["read-only"] : []),
    ...(disk.paths === undefined ? [] : [`${disk.paths.length} paths`]),
  ];
  if (uses.length > 0) return uses.join("; ");
  const content = disk.detail?.content;
  if (content != null && isBlank(content)) return "blank";
  // The kernel lists no partitions of a table for other sectors, and none of a multipath device.
  const partitions = Math.max(disk.partitions.length, content?.partitions.length ?? 0);
  if (partitions > 0) return `${partitions} partitions`;
  return content == null || content.signatures.length === 0
    ? "none"
    : `holds ${content.signatures.map(({ kind }) => kind).join(", ")}`;
}

function isBlank({ table: found, signatures }: DiskContent): boolean {
  return found === null && signatures.length === 0;
}

/** What lies on each disk, one line a partition; nothing of what is blank or was not looked at. */
export function contentLines(disks: readonly InventoryDisk[]): string[] {
  const rows = disks.flatMap(({ path, detail }) => {
    const content = detail?.content;
    if (content == null) return [];
    const { table: found, partitions, signatures, errors } = content;
    return [
      ...(found === null && signatures.length === 0
        ? []
        : [
            {
              path,
              what: found === null ? "" : `${found.type}, sectors of ${found.sectorBytes}`,
              holds: heldText(signatures),
              size: null,
            },
          ]),
      ...partitions.map(({ number, typeName, type, name, sizeBytes, signatures: inside }) => ({
        path: `${path} ${number}`,
        what: joined(" ", typeName ?? type, name === null ? null : `"${name}"`) ?? "",
        holds: heldText(inside),
        size: formatBytes(sizeBytes),
      })),
      ...errors.map((error) => ({ path, what: `! ${error}`, holds: null, size: null })),
    ];
  });
  if (rows.length === 0) return [];
  return [
    "",
    table(rows, [
      { title: "ON DISK", of: ({ path }) => path },
      { title: "SIZE", of: ({ size }) => size ?? "", align: "right" },
      { title: "TABLE, PARTITION", of: ({ what }) => what },
      { title: "HOLDS", of: ({ holds }) => holds ?? "" },
    ]),
  ];
}

export function healthLines({ moment }: Inventory): string[] {
  const health = moment?.diskHealth ?? [];
  if (health.length === 0) return [];
  const number = (value: number | null, unit: string) => (value === null ? null : `${value}${unit}`);
  return [
    "",
    table(health, [
      { title: "HEALTH OF", of: ({ path }) => path },
      { title: "VERDICT", of: ({ passed }) => (passed === null ? null : passed ? "passed" : "FAILING") },
      { title: "TEMPERATURE", of: ({ celsius }) => number(celsius, " °C"), align: "right" },
      { title: "POWERED ON", of: ({ powerOnHours }) => number(powerOnHours, " h"), align: "right" },
      { title: "WORN", of: ({ wearPercent }) => number(wearPercent, " %"), align: "right" },
      { title: "MEDIA ERRORS", of: ({ mediaErrors }) => number(mediaErrors, ""), align: "right" },
      {
        title: "REALLOCATED",
        of: ({ reallocatedSectors }) => number(reallocatedSectors, ""),
        align: "right",
      },
      { title: "BY", of: ({ tool, error }) => joined(" ", tool, bracketed(error)) },
    ]),
  ];
}

function heldText(signatures: readonly Signature[]): string | null {
  return signatures.length === 0
    ? null
    : signatures
        .map(({ kind, label, shared }) =>
          joined(" ", kind, label === null ? null : `"${label}"`, shared ? "(shared storage)" : null),
        )
        .join(", ");
}

export function layerLines({ layers = [] }: Inventory): string[] {
  if (layers.length === 0) return [];
  return [
    "",
    table(layers.slice(0, layersMax), [
      { title: "LAYER", of: ({ path, name }) => joined(" ", path, bracketed(name)) },
      { title: "SIZE", of: ({ sizeBytes }) => formatBytes(sizeBytes), align: "right" },
      {
        title: "KIND",
        of: ({ kind, raid }) =>
          joined(
            " ",
            raid?.level ?? kind,
            raid?.degraded == null || raid.degraded === 0 ? null : `degraded by ${raid.degraded}`,
          ),
      },
      { title: "OVER", of: ({ slaves }) => slaves.slice(0, 8).join(" ") },
      { title: "HOLDS", of: ({ signatures }) => heldText(signatures) },
      { title: "MOUNTED ON", of: ({ mounts }) => mounts.slice(0, 2).join(" ") || null },
    ]),
  ];
}
