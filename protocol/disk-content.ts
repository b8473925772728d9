// What lies on a disk: its partition table, and the signatures of file systems, RAID members and the like.
import Type, { type Static } from "typebox";
import { Count } from "./schema.ts";

const Text = Type.Union([Type.String({ maxLength: 512 }), Type.Null()]);

/** One signature: the magic number of something that has written its superblock there. */
export const Signature = Type.Object({
  /** What libblkid calls it where it knows it: `ext4`, `LVM2_member`, `linux_raid_member`, `zfs_member`, `VMFS_volume_member`. */
  kind: Type.String({ maxLength: 64 }),
  use: Type.Union([
    Type.Literal("filesystem"),
    /** A part of something larger: RAID, volume group, pool, cache, replica. */
    Type.Literal("member"),
    Type.Literal("encrypted"),
    Type.Literal("swap"),
    Type.Literal("other"),
  ]),
  /** Made to be used by several hosts at a time: that nothing here uses it says nothing. */
  shared: Type.Boolean(),
  /** Of the magic number, from the beginning of the disk. */
  offset: Count,
  uuid: Text,
  /** Label, or the name of the volume group, pool or array. Written by whoever wrote the disk: never to be trusted. */
  label: Text,
  version: Text,
});
export type Signature = Static<typeof Signature>;

const Copy = Type.Union([Type.Literal("good"), Type.Literal("bad"), Type.Literal("missing")]);

export const PartitionTable = Type.Object({
  type: Type.Union([Type.Literal("gpt"), Type.Literal("mbr")]),
  /** The sectors that it counts in; on a disk with others the kernel does not see it. */
  sectorBytes: Count,
  /** Lower case; of an MBR its 8 digits. */
  uuid: Text,
  /** Of a GPT: its header and entries at the beginning, and those at the end. An MBR has one copy. */
  primary: Copy,
  backup: Copy,
});
export type PartitionTable = Static<typeof PartitionTable>;

export const PartitionContent = Type.Object({
  number: Count,
  startBytes: Count,
  sizeBytes: Count,
  /** Type GUID in lower case, or `0x83`. */
  type: Type.String(),
  /** The type's usual name where it is a well-known one. */
  typeName: Text,
  uuid: Text,
  name: Text,
  signatures: Type.Array(Signature),
});
export type PartitionContent = Static<typeof PartitionContent>;

export const DiskContent = Type.Object({
  table: Type.Union([PartitionTable, Type.Null()]),
  partitions: Type.Array(PartitionContent),
  /** Of the disk as a whole: those that no partition has. */
  signatures: Type.Array(Signature),
  /** What is wrong with the table, and what could not be read. */
  errors: Type.Array(Type.String()),
  /** Of the places where signatures lie, those that nobody has looked at, and why: what is there is not known. Absent: none. */
  unread: Type.Optional(Type.Array(Type.String())),
});
export type DiskContent = Static<typeof DiskContent>;
