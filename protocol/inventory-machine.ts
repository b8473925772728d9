// Parts of the inventory that are the machine as a whole: its firmware's tables, how it boots, its system and kernel.
import Type, { type Static } from "typebox";
import { Count } from "./schema.ts";

export const Text = Type.Union([Type.String({ maxLength: 4096 }), Type.Null()]);
export const MaybeCount = Type.Union([Count, Type.Null()]);
export const MaybeBoolean = Type.Union([Type.Boolean(), Type.Null()]);
const Texts = Type.Array(Type.String({ maxLength: 4096 }));

/** What /sys/class/dmi/id gives, and where that lacks a value, the raw SMBIOS tables. */
export const System = Type.Object({
  hostname: Type.String(),
  /** SMBIOS; readable by root only on most machines, else null. */
  uuid: Text,
  serial: Text,
  vendor: Text,
  product: Text,
  boardSerial: Text,
  biosVersion: Text,
  architecture: Type.String(),
  kernel: Type.String(),
  operatingSystem: Text,
  bootMode: Type.Union([Type.Literal("uefi"), Type.Literal("bios"), Type.Literal("unknown")]),
  bootId: Type.String(),
  virtual: Type.Boolean(),
  version: Type.Optional(Text),
  family: Type.Optional(Text),
  sku: Type.Optional(Text),
  board: Type.Optional(Type.Object({ vendor: Text, name: Text, version: Text, serial: Text, asset: Text })),
  chassis: Type.Optional(Type.Object({ type: Text, vendor: Text, version: Text, serial: Text, asset: Text })),
  bios: Type.Optional(Type.Object({ vendor: Text, version: Text, release: Text, date: Text })),
  /** What it is a guest of (kvm, vmware, xen, …); null on bare metal or where nothing tells. */
  hypervisor: Type.Optional(Text),
  /** systemd's application-specific id: the same as long as the installed system, and not the machine-id itself. */
  installationId: Type.Optional(Text),
  /** Where a member that has several sources came from: its file. */
  from: Type.Optional(Type.Record(Type.String(), Type.String())),
});

/** Read by us from the tables themselves; entries as the firmware gives them, false ones too. */
export const Smbios = Type.Object({
  /** `3.3`. */
  version: Text,
  structures: Count,
  sockets: Type.Array(
    Type.Object({
      locator: Text,
      populated: Type.Boolean(),
      vendor: Text,
      version: Text,
      maxMhz: MaybeCount,
      currentMhz: MaybeCount,
      cores: MaybeCount,
      coresEnabled: MaybeCount,
      threads: MaybeCount,
      upgrade: Text,
      serial: Text,
      part: Text,
    }),
  ),
  /** A slot for memory; `sizeBytes` 0 is an empty one, null one whose size is not known. */
  memory: Type.Array(
    Type.Object({
      locator: Text,
      bank: Text,
      sizeBytes: MaybeCount,
      type: Text,
      formFactor: Text,
      speedMts: MaybeCount,
      configuredMts: MaybeCount,
      rank: MaybeCount,
      dataBits: MaybeCount,
      totalBits: MaybeCount,
      vendor: Text,
      serial: Text,
      part: Text,
      asset: Text,
      volatileBytes: MaybeCount,
      persistentBytes: MaybeCount,
    }),
  ),
  memoryArrays: Type.Array(Type.Object({ maxBytes: MaybeCount, slots: MaybeCount, errorCorrection: Text })),
  slots: Type.Array(Type.Object({ designation: Text, type: Text, inUse: MaybeBoolean, pciAddress: Text })),
  onboard: Type.Array(
    Type.Object({
      designation: Text,
      type: Text,
      enabled: Type.Boolean(),
      instance: MaybeCount,
      pciAddress: Text,
    }),
  ),
  powerSupplies: Type.Array(
    Type.Object({
      location: Text,
      name: Text,
      vendor: Text,
      serial: Text,
      part: Text,
      revision: Text,
      maxWatts: MaybeCount,
      present: Type.Boolean(),
      hotReplaceable: Type.Boolean(),
      status: Text,
    }),
  ),
});

/** One network interface between the host and its BMC over which the BMC serves Redfish (SMBIOS type 42). */
export const RedfishInterface = Type.Object({
  /** How the host reaches it: `USB`, `PCI`, and what identifies the device there. */
  device: Text,
  deviceId: Text,
  serial: Text,
  mac: Text,
  pciAddress: Text,
  serviceUuid: Text,
  hostAddress: Text,
  hostMask: Text,
  hostAssignment: Text,
  serviceAddress: Text,
  serviceMask: Text,
  serviceDiscovery: Text,
  servicePort: MaybeCount,
  serviceVlan: MaybeCount,
  serviceHostname: Text,
});

/** The baseboard management controller. Never its users, keys or communities. */
export const Bmc = Type.Object({
  present: Type.Boolean(),
  /** IPMI devices of the kernel, such as `/dev/ipmi0`. */
  devices: Texts,
  /** SMBIOS type 38. */
  ipmi: Type.Union([
    Type.Null(),
    Type.Object({ interface: Text, version: Text, address: Text, slaveAddress: Text }),
  ]),
  firmware: Text,
  manufacturerId: Text,
  productId: Text,
  guid: Text,
  redfish: Type.Array(RedfishInterface),
  /** By ipmitool, when asked: of channel 1. */
  lan: Type.Union([
    Type.Null(),
    Type.Object({ address: Text, source: Text, mask: Text, mac: Text, gateway: Text, vlan: Text }),
  ]),
});

export const BootEntry = Type.Object({
  /** `0001`. */
  number: Type.String(),
  active: Type.Boolean(),
  hidden: Type.Boolean(),
  description: Text,
  /** As UEFI writes device paths: `PciRoot(0x0)/Pci(0x1,0x0)/HD(1,GPT,…)/\EFI\debian\shimx64.efi`. */
  path: Text,
  partition: Text,
  file: Text,
  mac: Text,
});

export const Boot = Type.Object({
  mode: Type.Union([Type.Literal("uefi"), Type.Literal("bios"), Type.Literal("unknown")]),
  /** Bits of the firmware, not of the kernel: 32 or 64. */
  firmwareBits: MaybeCount,
  secureBoot: MaybeBoolean,
  setupMode: MaybeBoolean,
  current: Text,
  next: Text,
  order: Texts,
  timeoutSeconds: MaybeCount,
  entries: Type.Array(BootEntry),
  /** The interface that the boot loader was loaded over: BOOTIF of the kernel's command line. */
  bootInterface: Text,
});

export const Tpm = Type.Array(
  Type.Object({
    name: Type.String(),
    /** `1.2` or `2.0`. */
    version: Text,
    description: Text,
    /** Bank to registers; only when asked, each register is a question to the chip. */
    pcrs: Type.Record(Type.String(), Type.Array(Type.String())),
  }),
);

export const Kernel = Type.Object({
  release: Text,
  version: Text,
  /** Values that may be secrets are replaced by `[redacted]`. */
  commandLine: Text,
  modules: MaybeCount,
  /** 0: not tainted. */
  taint: MaybeCount,
  /** Why, in the kernel's words: `proprietary module`. */
  taints: Texts,
  lockdown: Text,
  iommus: Texts,
  clocksource: Text,
});

export const OperatingSystem = Type.Object({
  id: Text,
  version: Text,
  name: Text,
  build: Text,
});

export type System = Static<typeof System>;
export type Smbios = Static<typeof Smbios>;
export type RedfishInterface = Static<typeof RedfishInterface>;
export type Bmc = Static<typeof Bmc>;
export type BootEntry = Static<typeof BootEntry>;
export type Boot = Static<typeof Boot>;
export type Tpm = Static<typeof Tpm>;
export type Kernel = Static<typeof Kernel>;
export type OperatingSystem = Static<typeof OperatingSystem>;
