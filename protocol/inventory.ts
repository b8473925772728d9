// The output of host.inventory.
import Type, { type Static } from "typebox";
import { Disk } from "./disks.ts";
import { Count } from "./schema.ts";

const Text = Type.Union([Type.String(), Type.Null()]);

export const Inventory = Type.Object({
  system: Type.Object({
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
  }),
  cpu: Type.Object({
    model: Text,
    vendor: Text,
    sockets: Count,
    cores: Count,
    threads: Count,
    flags: Type.Array(Type.String()),
    microcode: Text,
    numaNodes: Count,
  }),
  memory: Type.Object({ totalBytes: Count, swapBytes: Count }),
  disks: Type.Array(Disk),
  nics: Type.Array(
    Type.Object({
      name: Type.String(),
      mac: Text,
      driver: Text,
      mtu: Type.Union([Count, Type.Null()]),
      up: Type.Boolean(),
      carrier: Type.Boolean(),
      speedMbps: Type.Union([Count, Type.Null()]),
      duplex: Text,
      pciAddress: Text,
      addresses: Type.Array(Type.String()),
    }),
  ),
  /** What could not be read, and why: `/sys/class/dmi/id/product_serial: EACCES`. */
  unreadable: Type.Array(Type.String()),
  /** Lower-case hexadecimal SHA-256 over all members but this and `collectMs`: the same host unchanged gives the same. */
  contentHash: Type.String(),
  collectMs: Type.Number(),
});
export type Inventory = Static<typeof Inventory>;
