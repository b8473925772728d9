// An inventory as text: the machine on one page, its disks with selectors ready to paste, and what could not be read.
import type { Inventory } from "../protocol/inventory.ts";
import type { Nic } from "../protocol/inventory-devices.ts";
import { contentLines, diskTable, healthLines, layerLines } from "./inventory-disks.ts";
import { bracketed, facts, formatBytes, joined, prefixed, table } from "./output.ts";

type Pairs = readonly (readonly [string, string | null])[];

const unreadableMax = 8;

export function inventoryText(inventory: Inventory): string {
  const { disks, nics } = inventory;
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
    ...layerLines(inventory),
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
