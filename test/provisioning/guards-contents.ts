// What guards must find on a disk: superblocks from their documented layouts, partition types, and what real tools write.
import { execFileSync } from "node:child_process";
import { layouts } from "../support/signature-layouts.ts";
import { putGpt, type SparseDisk } from "../support/sparse-disk.ts";

const mib = 1 << 20;

/** Names of layouts that make a disk a part of something larger; the probe's own tests have the rest of them. */
export const memberLayouts = [
  "LVM2_member",
  "linux_raid_member 0.90",
  "linux_raid_member 1.0",
  "linux_raid_member 1.1",
  "linux_raid_member 1.2",
  "bcache",
  "stratis",
  "isw_raid_member",
  "ddf_raid_member",
] as const;

/** Names of layouts of what several hosts may use at a time. */
export const sharedLayouts = [
  "zfs_member",
  "zfs_member third label",
  "zfs_member ring only",
  "VMFS_volume_member",
  "VMFS",
  "gpfs",
  "gfs2",
  "ocfs2",
  "oracleasm",
  "ceph_bluestore",
  "drbd",
] as const;

/** By sgdisk(8)'s and Ceph's own lists. */
export const sharedTypes: Readonly<Record<string, string>> = {
  "IBM GPFS": "37AFFC90-EF7D-4E96-91C3-2D7AE055B174",
  "VMware VMFS": "AA31E02A-400F-11DB-9590-000C2911D1B8",
  "VMware Virtual SAN": "381CFCCC-7288-11E0-92EE-000C2911D0B2",
  "Ceph OSD": "4FBD7E29-9D25-41B8-AFD0-062C0CEFF05D",
  "Ceph dm-crypt OSD": "4FBD7E29-9D25-41B8-AFD0-5EC00CEFF05D",
  "Ceph journal": "45B0969E-9B03-4F30-B4C6-B4B80CEFF106",
  "Ceph dm-crypt journal": "45B0969E-9B03-4F30-B4C6-5EC00CEFF106",
  "Ceph disk in creation": "89C57F98-2FE5-4DC0-89C1-F3AD0CEFF2BE",
  "Ceph block": "CAFECAFE-9B03-4F30-B4C6-B4B80CEFF106",
  "Ceph block DB": "30CD0809-C2B2-499C-8879-2D6B78529876",
  "Ceph block WAL": "5CE17FCE-4087-4169-B7FF-056CC58473F9",
  "Ceph lockbox": "FB3AABF9-D25F-47CC-BF5E-721D1816496B",
};

export const linuxType = "0fc63daf-8483-4772-8e79-3d69d8477de4";

/** The superblock alone, on the whole disk. */
export function putLayout(name: string): (disk: SparseDisk) => void {
  return (disk) => layouts[name]!.put(disk, 0, disk.sizeBytes);
}

/** A partition from 1 MiB on, 4 MiB long. */
export const partition = { startBytes: mib, sizeBytes: 4 * mib } as const;

export function putPartition(type: string, content?: string): (disk: SparseDisk) => void {
  return (disk) => {
    putGpt(disk, 512, [{ type, ...partition }]);
    if (content !== undefined) layouts[content]!.put(disk, partition.startBytes, partition.sizeBytes);
  };
}

/** Empty partitions of a MiB each. */
export function putPartitions(types: readonly string[]): (disk: SparseDisk) => void {
  return (disk) =>
    void putGpt(
      disk,
      512,
      types.map((type, at) => ({ type, startBytes: (at + 1) * mib, sizeBytes: mib })),
    );
}

/** The same by sgdisk, which gets the types as `as` writes them. Without --quiet: with it sgdisk writes nothing and says that all is well. */
export function sgdiskTypes(as: (type: string) => string) {
  return async (path: string, types: readonly string[]): Promise<void> => {
    const partitions = types.flatMap((type, at) => [
      `--new=${at + 1}:0:+1M`,
      `--typecode=${at + 1}:${as(type)}`,
    ]);
    run("sgdisk", "--clear", ...partitions, path);
  };
}

export function halves<T>(all: readonly T[]): readonly (readonly T[])[] {
  const middle = Math.ceil(all.length / 2);
  return [all.slice(0, middle), all.slice(middle)];
}

export function run(program: string, ...argv: readonly string[]): string {
  return execFileSync(program, argv, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}
