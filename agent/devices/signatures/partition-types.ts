// Names of well-known partition types, by their GUID in lower case or their MBR number.

/** Of the one partition of an MBR that says only that a GUID partition table follows. */
export const protectiveType = "0xee";

const names: { readonly [type: string]: string } = {
  "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system",
  "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
  "024dee41-33e7-11d3-9d69-0008c781f39f": "MBR partition scheme",
  "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux filesystem",
  "44479540-f297-41b2-9af7-d131d5f0458a": "Linux root (x86)",
  "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root (x86-64)",
  "b921b045-1df0-41c3-af44-4c6f280d3fae": "Linux root (ARM64)",
  "8484680c-9521-48c6-9c11-b0720656f69e": "Linux /usr (x86-64)",
  "3b8f8425-20e0-4f3b-907f-1a25a76f98e8": "Linux /srv",
  "933ac7e1-2eb4-4f13-b844-0e14e2aef915": "Linux home",
  "4d21b016-b534-45c2-a9fb-5c16e091fd2d": "Linux /var",
  "bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux extended boot",
  "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
  "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
  "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
  "8da63339-0007-60c0-c436-083ac8230908": "Linux reserved",
  "ca7d7ccb-63ed-4c53-861c-1742536059cc": "LUKS",
  "7ffec5c9-2d00-49b7-8941-3ea10a5586b7": "dm-crypt",
  "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Microsoft basic data",
  "e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",
  "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "Windows recovery",
  "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3": "Windows LDM metadata",
  "af9b60a0-1431-4f62-bc68-3311714a69ad": "Windows LDM data",
  "e75caf8f-f680-4cee-afa3-b001e56efc2d": "Windows Storage Spaces",
  "37affc90-ef7d-4e96-91c3-2d7ae055b174": "IBM GPFS",
  "aa31e02a-400f-11db-9590-000c2911d1b8": "VMware VMFS",
  "9d275380-40ad-11db-bf97-000c2911d1b8": "VMware diagnostic",
  "9198effc-31c0-11db-8f78-000c2911d1b8": "VMware reserved",
  "381cfccc-7288-11e0-92ee-000c2911d0b2": "VMware Virtual SAN",
  "6a898cc3-1dd2-11b2-99a6-080020736631": "ZFS",
  "6a945a3b-1dd2-11b2-99a6-080020736631": "Solaris reserved",
  "516e7cba-6ecf-11d6-8ff8-00022d09712b": "FreeBSD ZFS",
  "516e7cb6-6ecf-11d6-8ff8-00022d09712b": "FreeBSD UFS",
  "4fbd7e29-9d25-41b8-afd0-062c0ceff05d": "Ceph OSD",
  "4fbd7e29-9d25-41b8-afd0-5ec00ceff05d": "Ceph dm-crypt OSD",
  "45b0969e-9b03-4f30-b4c6-b4b80ceff106": "Ceph journal",
  "45b0969e-9b03-4f30-b4c6-5ec00ceff106": "Ceph dm-crypt journal",
  "89c57f98-2fe5-4dc0-89c1-f3ad0ceff2be": "Ceph disk in creation",
  "cafecafe-9b03-4f30-b4c6-b4b80ceff106": "Ceph block",
  "30cd0809-c2b2-499c-8879-2d6b78529876": "Ceph block DB",
  "5ce17fce-4087-4169-b7ff-056cc58473f9": "Ceph block WAL",
  "fb3aabf9-d25f-47cc-bf5e-721d1816496b": "Ceph lockbox",
  "0x05": "extended",
  "0x07": "NTFS, exFAT or HPFS",
  "0x0b": "FAT32",
  "0x0c": "FAT32 (LBA)",
  "0x0e": "FAT16 (LBA)",
  "0x0f": "extended (LBA)",
  "0x82": "Linux swap",
  "0x83": "Linux",
  "0x85": "Linux extended",
  "0x8e": "Linux LVM",
  [protectiveType]: "GPT protective",
  "0xef": "EFI system",
  "0xfb": "VMware VMFS",
  "0xfc": "VMware diagnostic",
  "0xfd": "Linux RAID",
};

/** Either case. */
export function typeNameOf(type: string): string | null {
  return names[type.toLowerCase()] ?? null;
}

/** What only hosts that share a disk write, whatever lies within the partition now. */
const sharedNames = /^(IBM GPFS|VMware VMFS|VMware Virtual SAN|Ceph .*)$/;

/** Whether this type (either case) says that several hosts may use what is in the partition. */
export function isSharedType(type: string): boolean {
  return sharedNames.test(typeNameOf(type) ?? "");
}
