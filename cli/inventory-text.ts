// An inventory as text: the machine on one page, its disks with selectors ready to paste, and what could not be read.
import type { DiskContent, Signature } from "../protocol/disk-content.ts";
import type { Disk } from "../protocol/disks.ts";
import type { Inventory } from "../protocol/inventory.ts";
import type { InventoryDisk, Nic } from "../protocol/inventory-devices.ts";
import { selectorOf } from "./deploy.ts";
import { facts, formatBytes, table } from "./output.ts";

type Pairs = readonly (readonly [string, string | null])[];

const unreadableMax = 8;
const layersMax = 40;

export function inventoryText(inventory: Inventory): string {
  const { disks, nics, layers = [] } = inventory;
  return [
    facts([
      ...machinePairs(inventory),
      ...firmwarePairs(inventory),
      ...processorPairs(inventory),
      ...devicePairs(inventory),
    ]),
    "",
    disks.length === 0 ? "No disks." : diskTable(disks),
    ...contentLines(disks),
    ...healthLines(inventory),
    ...(layers.length === 0 ? [] : ["", layerTable(layers.slice(0, layersMax))]),
    "",
    nics.length === 0 ? "No network interfaces." : nicTable(nics),
    ...unreadableLines(inventory),
    ...toolLines(inventory),
  ].join("\n");
}

function machinePairs({ system, operatingSystem, kernel }: Inventory): Pairs {
  const named = joined(" ", system.vendor, system.product);
  const virtual = system.virtual ? joined(" ", "virtual", bracketed(system.hypervisor ?? null)) : null;
  return [
    [
      "system",
      joined(
        ", ",
        named ?? "unknown make",
        prefixed("serial ", system.serial),
        system.chassis?.type === "other" ? null : (system.chassis?.type ?? null),
        virtual,
      ),
    ],
    ...optional("asset", system.chassis?.asset ?? null),
    [
      "software",
      joined(
        ", ",
        system.operatingSystem ?? operatingSystem?.name ?? "unknown system",
        `Linux ${system.kernel}`,
        system.architecture,
        `boot by ${system.bootMode}`,
        prefixed(
          "tainted: ",
          kernel === undefined || kernel.taints.length === 0 ? null : kernel.taints.join(", "),
        ),
      ),
    ],
  ];
}

function firmwarePairs({ system, boot, tpm = [], bmc }: Inventory): Pairs {
  const { bios } = system;
  const current = boot?.entries.find(({ number }) => number === boot.current);
  const redfish = bmc?.redfish.find(({ serviceAddress }) => serviceAddress !== null);
  return [
    ...optional(
      "firmware",
      bios === undefined ? system.biosVersion : joined(" ", bios.vendor, bios.version, bracketed(bios.date)),
    ),
    ...optional(
      "boot",
      boot === undefined || boot.mode !== "uefi"
        ? null
        : joined(
            ", ",
            boot.secureBoot === null ? null : `Secure Boot ${boot.secureBoot ? "on" : "off"}`,
            boot.setupMode === true ? "in setup mode" : null,
            prefixed("booted ", current?.description ?? null),
            prefixed("order ", boot.order.length === 0 ? null : boot.order.slice(0, 8).join(" ")),
          ),
    ),
    ...optional("network boot", boot?.bootInterface ?? null),
    ...optional(
      "TPM",
      tpm.length === 0 ? null : tpm.map(({ version }) => version ?? "unknown version").join(", "),
    ),
    ...optional(
      "BMC",
      bmc === undefined || !bmc.present
        ? null
        : joined(
            ", ",
            prefixed(
              "IPMI ",
              bmc.ipmi === null ? null : joined(" ", bmc.ipmi.version, prefixed("by ", bmc.ipmi.interface)),
            ),
            prefixed("firmware ", bmc.firmware),
            prefixed(
              "Redfish at ",
              redfish === undefined ? null : joined(":", redfish.serviceAddress, redfish.servicePort),
            ),
            prefixed("LAN ", bmc.lan?.address ?? null),
            bmc.devices.length === 0 ? "no device of the kernel" : null,
          ),
    ),
  ];
}

function processorPairs({ cpu, memory, numa = [], smbios, moment }: Inventory): Pairs {
  const faults = (moment?.memoryErrors ?? []).filter(
    ({ corrected, uncorrected }) => corrected + uncorrected > 0,
  );
  const weak = Object.entries(cpu.vulnerabilities ?? {}).flatMap(([name, state]) =>
    state.startsWith("Vulnerable") ? [name] : [],
  );
  const caches = (cpu.caches ?? [])
    .filter(({ level }) => level > 1)
    .map(({ level, count, sizeBytes }) => `L${level} ${count} × ${formatBytes(sizeBytes)}`);
  return [
    [
      "processor",
      joined(
        ", ",
        `${cpu.model ?? "unknown"}: ${cpu.sockets} sockets`,
        `${cpu.cores} cores`,
        `${cpu.threads} threads`,
        prefixed("up to ", cpu.maxMhz == null ? null : `${cpu.maxMhz} MHz`),
        caches.length === 0 ? null : caches.join(", "),
      ),
    ],
    ...optional("vulnerable to", weak.length === 0 ? null : weak.join(", ")),
    [
      "memory",
      joined(
        ", ",
        formatBytes(memory.totalBytes),
        smbios == null ? null : modulesText(smbios.memory),
        `swap ${formatBytes(memory.swapBytes)}`,
      ),
    ],
    ...optional(
      "memory errors",
      faults.length === 0
        ? null
        : faults
            .map((fault) => `${fault.controller}: ${fault.corrected} corrected, ${fault.uncorrected} not`)
            .join("; "),
    ),
    ...optional(
      "NUMA",
      numa.length < 2
        ? null
        : numa
            .slice(0, 8)
            .map(({ node, cpus, memoryBytes }) =>
              joined(
                " ",
                `${node}:`,
                prefixed("threads ", cpus),
                memoryBytes === null ? null : formatBytes(memoryBytes),
              ),
            )
            .join("; "),
    ),
  ];
}

/** `12 × 32 GiB DDR4 at 2933 MT/s in 24 slots`. */
function modulesText(modules: NonNullable<Inventory["smbios"]>["memory"]): string | null {
  const fitted = modules.filter(({ sizeBytes }) => sizeBytes !== 0);
  const kinds = new Map<string, number>();
  for (const { sizeBytes, type, configuredMts, speedMts } of fitted) {
    const speed = configuredMts ?? speedMts;
    const kind = joined(
      " ",
      sizeBytes === null ? "of unknown size" : formatBytes(sizeBytes),
      type,
      speed === null ? null : `at ${speed} MT/s`,
    )!;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  if (kinds.size === 0) return null;
  return `${[...kinds].map(([kind, count]) => `${count} × ${kind}`).join(" and ")} in ${modules.length} slots`;
}

function devicePairs({ pci = [], usb = [], gpus = [], smbios }: Inventory): Pairs {
  const supplies = smbios?.powerSupplies ?? [];
  return [
    ...optional(
      "power",
      supplies.length === 0
        ? null
        : supplies
            .map(({ location, name, maxWatts, present, status }) =>
              joined(
                " ",
                location ?? name,
                present ? joined(", ", maxWatts === null ? null : `${maxWatts} W`, status) : "absent",
              ),
            )
            .join("; "),
    ),
    ...gpus.map(
      (gpu) =>
        [
          "graphics",
          joined(
            ", ",
            gpu.device ?? `${gpu.vendorId ?? "?"}:${gpu.deviceId ?? "?"}`,
            gpu.pciAddress,
            gpu.driver,
            gpu.memoryBytes === null ? null : formatBytes(gpu.memoryBytes),
          ),
        ] as const,
    ),
    ...optional(
      "buses",
      pci.length + usb.length === 0 ? null : `${pci.length} PCI devices, ${usb.length} USB devices`,
    ),
  ];
}

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
function contentLines(disks: readonly InventoryDisk[]): string[] {
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

function healthLines({ moment }: Inventory): string[] {
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

function layerTable(layers: NonNullable<Inventory["layers"]>): string {
  return table(layers, [
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
  ]);
}

function nicTable(nics: readonly Nic[]): string {
  return table(nics, [
    { title: "NIC", of: (nic) => nic.name },
    { title: "KIND", of: nicKind },
    { title: "MAC", of: (nic) => nic.mac },
    { title: "DRIVER", of: (nic) => joined(" ", nic.driver, nic.firmware ?? null) },
    { title: "LINK", of: (nic) => (nic.up ? (nic.carrier ? "up" : "no carrier") : "down") },
    {
      title: "SPEED",
      of: (nic) => (nic.speedMbps === null ? null : `${nic.speedMbps} Mbit/s`),
      align: "right",
    },
    { title: "ADDRESSES", of: (nic) => nic.addresses.join(" ") },
    {
      title: "SEES",
      of: (nic) =>
        nic.lldp?.map(({ system, chassis, port }) => joined(" ", system ?? chassis, port)).join("; ") || null,
    },
  ]);
}

function nicKind(nic: Nic): string | null {
  if (nic.bond != null) return `bond ${nic.bond.mode} of ${nic.bond.members.join(" ")}`;
  if (nic.vlan != null) return `vlan ${nic.vlan.id} over ${nic.vlan.over}`;
  if (nic.bridge != null) return `bridge of ${nic.bridge.ports.join(" ") || "nothing"}`;
  return nic.kind ?? null;
}

function unreadableLines({ unreadable }: Inventory): string[] {
  if (unreadable.length === 0) return [];
  const more = unreadable.length - unreadableMax;
  return [
    "",
    `not readable: ${unreadable.slice(0, unreadableMax).join("; ")}${more > 0 ? `; and ${more} more` : ""}`,
  ];
}

function toolLines({ tools = [] }: Inventory): string[] {
  const told = tools.filter(({ state }) => state !== "not-needed");
  return told.length === 0
    ? []
    : [
        "",
        `programs asked: ${told.map(({ tool, state, reason }) => joined(" ", tool, state === "used" ? null : `(${reason ?? state})`)).join(", ")}`,
      ];
}

function optional(name: string, value: string | null): Pairs {
  return value === null ? [] : [[name, value]];
}

function joined(separator: string, ...parts: readonly (string | number | null)[]): string | null {
  const present = parts.filter((part) => part !== null && part !== "");
  return present.length === 0 ? null : present.join(separator);
}

function prefixed(prefix: string, value: string | null): string | null {
  return value === null ? null : `${prefix}${value}`;
}

function bracketed(value: string | null): string | null {
  return value === null ? null : `(${value})`;
}
