// Parts of the inventory that are devices: processors, memory, disks and the layers over them, networks, buses.
import Type, { type Static } from "typebox";
import { DiskContent, Signature } from "./disk-content.ts";
import { Disk } from "./disks.ts";
import { MaybeBoolean, MaybeCount, Text } from "./inventory-machine.ts";
import { Count } from "./schema.ts";

const Texts = Type.Array(Type.String({ maxLength: 4096 }));
/** Where each member with several sources came from. */
const From = Type.Record(Type.String(), Type.String());

export const Cpu = Type.Object({
  model: Text,
  vendor: Text,
  sockets: Count,
  cores: Count,
  threads: Count,
  flags: Type.Array(Type.String()),
  microcode: Text,
  numaNodes: Count,
  dies: Type.Optional(Count),
  /** Lists as the kernel writes them: `0-63`. */
  online: Type.Optional(Text),
  offline: Type.Optional(Text),
  isolated: Type.Optional(Text),
  threading: Type.Optional(Text),
  minMhz: Type.Optional(MaybeCount),
  baseMhz: Type.Optional(MaybeCount),
  maxMhz: Type.Optional(MaybeCount),
  scalingDriver: Type.Optional(Text),
  governor: Type.Optional(Text),
  /** All of one kind: `count` of them, each shared by `sharedBy` threads. */
  caches: Type.Optional(
    Type.Array(
      Type.Object({
        level: Count,
        type: Type.String(),
        sizeBytes: Count,
        count: Count,
        sharedBy: Count,
        ways: MaybeCount,
        lineBytes: MaybeCount,
      }),
    ),
  ),
  /** `meltdown`: `Mitigation: PTI`. */
  vulnerabilities: Type.Optional(Type.Record(Type.String(), Type.String())),
});

export const Memory = Type.Object({
  totalBytes: Count,
  swapBytes: Count,
  /** Pools of huge pages: size of a page, pages. */
  hugePages: Type.Optional(Type.Array(Type.Object({ pageBytes: Count, pages: Count }))),
  /** Controllers that count memory errors. */
  errorDetection: Type.Optional(
    Type.Array(
      Type.Object({
        controller: Type.String(),
        name: Text,
        sizeBytes: MaybeCount,
        modules: Type.Array(Type.Object({ label: Text, type: Text, mode: Text, sizeBytes: MaybeCount })),
      }),
    ),
  ),
});

export const Numa = Type.Array(
  Type.Object({
    node: Count,
    cpus: Text,
    memoryBytes: MaybeCount,
    /** To each node in their order; 10 is itself. */
    distances: Type.Array(Count),
    hugePages: Type.Array(Type.Object({ pageBytes: Count, pages: Count })),
  }),
);

export const QueueLimits = Type.Object({
  scheduler: Text,
  rotational: MaybeBoolean,
  /** `write back`: what is written may be lost in a power cut until it is flushed. */
  writeCache: Text,
  forcedUnitAccess: MaybeBoolean,
  discardGranularityBytes: MaybeCount,
  discardMaxBytes: MaybeCount,
  writeZeroesMaxBytes: MaybeCount,
  maxTransferBytes: MaybeCount,
  minimumIoBytes: MaybeCount,
  optimalIoBytes: MaybeCount,
  requests: MaybeCount,
  /** none, host-aware or host-managed. */
  zoned: Text,
});

/** What is known of a disk beyond what selects it. */
export const DiskDetail = Type.Object({
  device: Text,
  byPath: Texts,
  pciAddress: Text,
  numaNode: MaybeCount,
  rpm: MaybeCount,
  /** Every world-wide name that the drive gives, in the drive's order. */
  names: Texts,
  queue: QueueLimits,
  /** Protection information (T10) that the drive keeps with each sector, or null. */
  integrity: Text,
  nvme: Type.Union([
    Type.Null(),
    Type.Object({
      controller: Type.String(),
      namespace: MaybeCount,
      uuid: Text,
      nguid: Text,
      eui64: Text,
      subsystem: Text,
      state: Text,
    }),
  ]),
  /** What of the disk is mounted where. */
  mounted: Type.Array(
    Type.Object({
      device: Type.String(),
      mountPoint: Type.String(),
      type: Type.String(),
      readOnly: Type.Boolean(),
    }),
  ),
  content: Type.Union([DiskContent, Type.Null()]),
  /** Why there is no `content`. */
  contentError: Text,
  from: From,
});

export const InventoryDisk = Type.Object({ ...Disk.properties, detail: Type.Optional(DiskDetail) });

/** A block device over others: device mapper, md, bcache, DRBD. */
export const Layer = Type.Object({
  path: Type.String(),
  name: Text,
  kind: Type.String(),
  sizeBytes: Count,
  uuid: Text,
  slaves: Texts,
  holders: Texts,
  mounts: Texts,
  swap: Type.Boolean(),
  /** Of an md array. */
  raid: Type.Union([
    Type.Null(),
    Type.Object({ level: Text, devices: MaybeCount, degraded: MaybeCount, state: Text, metadata: Text }),
  ]),
  signatures: Type.Array(Signature),
});

export const Nic = Type.Object({
  name: Type.String(),
  mac: Text,
  driver: Text,
  mtu: MaybeCount,
  up: Type.Boolean(),
  carrier: Type.Boolean(),
  speedMbps: MaybeCount,
  duplex: Text,
  pciAddress: Text,
  addresses: Texts,
  /** physical, virtual, bond, bridge, vlan, … */
  kind: Type.Optional(Type.String()),
  /** permanent, random, stolen (by a bond or bridge from another) or set. */
  macAssignment: Type.Optional(Text),
  permanentMac: Type.Optional(Text),
  firmware: Type.Optional(Text),
  numaNode: Type.Optional(MaybeCount),
  physicalPort: Type.Optional(Text),
  physicalSwitch: Type.Optional(Text),
  /** Bond, bridge or other that it belongs to. */
  master: Type.Optional(Text),
  vlan: Type.Optional(Type.Union([Type.Null(), Type.Object({ id: Count, over: Type.String() })])),
  bond: Type.Optional(
    Type.Union([
      Type.Null(),
      Type.Object({ mode: Text, members: Texts, active: Text, monitorMs: MaybeCount }),
    ]),
  ),
  bridge: Type.Optional(
    Type.Union([Type.Null(), Type.Object({ id: Text, stp: MaybeBoolean, ports: Texts })]),
  ),
  virtualFunctions: Type.Optional(Type.Union([Type.Null(), Type.Object({ total: Count, enabled: Count })])),
  physicalFunction: Type.Optional(Text),
  infinibandGuid: Type.Optional(Text),
  /** What the switch says of itself; by lldpctl, when asked. */
  lldp: Type.Optional(
    Type.Array(
      Type.Object({
        chassis: Text,
        system: Text,
        port: Text,
        portDescription: Text,
        vlans: Type.Array(Count),
        management: Texts,
      }),
    ),
  ),
  from: Type.Optional(From),
});

export const PciDevice = Type.Object({
  address: Type.String(),
  vendorId: Text,
  deviceId: Text,
  subsystemVendorId: Text,
  subsystemId: Text,
  /** Class, subclass and programming interface: `010802`. */
  class: Text,
  revision: Text,
  /** From the machine's pci.ids, if it has one. */
  vendor: Text,
  device: Text,
  driver: Text,
  numaNode: MaybeCount,
  iommuGroup: MaybeCount,
  /** As negotiated, and as both could: `8 GT/s x4`. */
  link: Text,
  linkMax: Text,
  slot: Text,
  virtualFunctions: Type.Union([Type.Null(), Type.Object({ total: Count, enabled: Count })]),
  physicalFunction: Text,
  serial: Text,
  /** Vital product data, only when asked: some devices take seconds to give it. */
  vpd: Type.Optional(Type.Record(Type.String(), Type.String())),
});

export const Gpu = Type.Object({
  pciAddress: Text,
  vendorId: Text,
  deviceId: Text,
  vendor: Text,
  device: Text,
  driver: Text,
  memoryBytes: MaybeCount,
  nodes: Texts,
  /** Of NVIDIA's own driver. */
  uuid: Text,
  bios: Text,
  mediatedTypes: Texts,
});

export const UsbDevice = Type.Object({
  address: Type.String(),
  vendorId: Text,
  productId: Text,
  class: Text,
  vendor: Text,
  product: Text,
  serial: Text,
  speedMbps: Type.Union([Type.Number(), Type.Null()]),
  drivers: Texts,
  removable: Text,
});

export type Cpu = Static<typeof Cpu>;
export type Memory = Static<typeof Memory>;
export type Numa = Static<typeof Numa>;
export type QueueLimits = Static<typeof QueueLimits>;
export type DiskDetail = Static<typeof DiskDetail>;
export type InventoryDisk = Static<typeof InventoryDisk>;
export type Layer = Static<typeof Layer>;
export type Nic = Static<typeof Nic>;
export type PciDevice = Static<typeof PciDevice>;
export type Gpu = Static<typeof Gpu>;
export type UsbDevice = Static<typeof UsbDevice>;
