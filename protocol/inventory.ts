// The output of host.inventory: what a machine is made of, where each group was read, and what could not be.
import Type, { type Static } from "typebox";
import {
  Cpu,
  Gpu,
  InventoryDisk,
  Layer,
  Memory,
  Nic,
  Numa,
  PciDevice,
  UsbDevice,
} from "./inventory-devices.ts";
import { Bmc, Boot, Kernel, OperatingSystem, Smbios, System, Tpm } from "./inventory-machine.ts";
import { Count, Digest } from "./schema.ts";

/** Arguments of host.inventory. */
export const InventoryArguments = Type.Object(
  {
    /** Also ask programs that happen to be installed, and what answers slowly: TPM registers, PCI product data. */
    tools: Type.Optional(Type.Boolean()),
    /** The content hash of the inventory that is known already: the same is answered with {@link InventoryUnchanged}. */
    unless: Type.Optional(Digest),
  },
  { additionalProperties: false },
);
export type InventoryArguments = Static<typeof InventoryArguments>;

/** How one group was collected. */
export const GroupReport = Type.Object({
  /** The files, as patterns. */
  sources: Type.Array(Type.String()),
  /** `/sys/class/dmi/id/product_serial: EACCES`; what is wrong with what was read. */
  errors: Type.Array(Type.String()),
  ms: Type.Number(),
});

/** What became of an optional program. */
export const ToolReport = Type.Object({
  tool: Type.String(),
  state: Type.Union([
    Type.Literal("used"),
    Type.Literal("missing"),
    Type.Literal("failed"),
    Type.Literal("not-needed"),
  ]),
  reason: Type.Union([Type.String(), Type.Null()]),
  ms: Type.Number(),
});

/** What changes from moment to moment, and so has no part in the content hash. */
export const Moment = Type.Object({
  /** Over all processors. */
  currentMhz: Type.Union([Type.Null(), Type.Object({ lowest: Count, highest: Count })]),
  temperatures: Type.Array(
    Type.Object({
      sensor: Type.String(),
      label: Type.Union([Type.String(), Type.Null()]),
      celsius: Type.Number(),
    }),
  ),
  /** By memory controller: errors corrected and not, since the kernel counts. */
  memoryErrors: Type.Array(Type.Object({ controller: Type.String(), corrected: Count, uncorrected: Count })),
  /** What the drives say of themselves; by smartctl or nvme, when asked. */
  diskHealth: Type.Array(
    Type.Object({
      path: Type.String(),
      serial: Type.Union([Type.String(), Type.Null()]),
      tool: Type.String(),
      passed: Type.Union([Type.Boolean(), Type.Null()]),
      celsius: Type.Union([Type.Number(), Type.Null()]),
      powerOnHours: Type.Union([Count, Type.Null()]),
      wearPercent: Type.Union([Count, Type.Null()]),
      mediaErrors: Type.Union([Count, Type.Null()]),
      reallocatedSectors: Type.Union([Count, Type.Null()]),
      error: Type.Union([Type.String(), Type.Null()]),
    }),
  ),
});

/** Members after `nics` are absent from agents that are older than they. */
export const Inventory = Type.Object({
  system: System,
  cpu: Cpu,
  memory: Memory,
  disks: Type.Array(InventoryDisk),
  nics: Type.Array(Nic),
  numa: Type.Optional(Numa),
  smbios: Type.Optional(Type.Union([Smbios, Type.Null()])),
  /** Block devices that are no disks of this host, and why. */
  notDisks: Type.Optional(
    Type.Array(Type.Object({ path: Type.String(), sizeBytes: Count, reason: Type.String() })),
  ),
  layers: Type.Optional(Type.Array(Layer)),
  pci: Type.Optional(Type.Array(PciDevice)),
  gpus: Type.Optional(Type.Array(Gpu)),
  usb: Type.Optional(Type.Array(UsbDevice)),
  boot: Type.Optional(Boot),
  tpm: Type.Optional(Tpm),
  bmc: Type.Optional(Bmc),
  kernel: Type.Optional(Kernel),
  operatingSystem: Type.Optional(OperatingSystem),
  /** What could not be read, and why: `/sys/class/dmi/id/product_serial: EACCES`. */
  unreadable: Type.Array(Type.String()),
  /** Lower-case hexadecimal SHA-256 over all members before it: the same host unchanged gives the same. */
  contentHash: Type.String(),
  collectMs: Type.Number(),
  moment: Type.Optional(Moment),
  groups: Type.Optional(Type.Record(Type.String(), GroupReport)),
  tools: Type.Optional(Type.Array(ToolReport)),
});
export type Inventory = Static<typeof Inventory>;
export type Moment = Static<typeof Moment>;
export type GroupReport = Static<typeof GroupReport>;
export type ToolReport = Static<typeof ToolReport>;

/** The output where `unless` names what the host still is. */
export const InventoryUnchanged = Type.Object({
  unchanged: Type.Literal(true),
  contentHash: Digest,
  collectMs: Type.Number(),
  moment: Moment,
});
export type InventoryUnchanged = Static<typeof InventoryUnchanged>;
