// Machines for tests, built from the documented layouts of sysfs, SMBIOS, PCI and superblocks: each a shape that servers have.
import { normalize } from "node:path/posix";
import type { TreeFiles } from "./fact-tree.ts";
import { scsiDisk } from "./fact-tree.ts";
import type { MachineFixture } from "./machine-fixture.ts";
import { layouts } from "./signature-layouts.ts";
import { smbiosEntryPoint, smbiosTable } from "./smbios-bytes.ts";
import { putGpt, putMbr, type SparseDisk, sparseDisk } from "./sparse-disk.ts";

const mib = 1 << 20;
const gib = 1 << 30;
const tib = 1024 * gib;
const linuxType = "0fc63daf-8483-4772-8e79-3d69d8477de4";
const esp = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/** What every one of them has. */
function common(name: string, threads: number): TreeFiles {
  return {
    "proc/sys/kernel/hostname": name,
    "proc/sys/kernel/osrelease": "6.12.8-amd64",
    "proc/sys/kernel/version": "#1 SMP PREEMPT_DYNAMIC Debian 6.12.8-1",
    "proc/sys/kernel/tainted": "4097",
    "proc/sys/kernel/random/boot_id": "0b5f6f4e-7c83-4a3a-9c61-3f0c6b6ef7a1",
    "proc/cmdline": "BOOT_IMAGE=/vmlinuz root=UUID=6c8b2a1e-7f00-4c7e-9d2b-0a1b2c3d4e5f ro quiet",
    "proc/meminfo": "MemTotal:       196611772 kB\nMemFree:        1 kB\nSwapTotal:       0 kB",
    "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority",
    "proc/self/mountinfo": "22 1 0:20 / / rw,relatime - rootfs rootfs rw",
    "proc/cpuinfo":
      "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz\nmicrocode\t: 0xd0003b9\nflags\t\t: fpu vme avx512f\ncpu MHz\t\t: 800.000\n\nprocessor\t: 1\ncpu MHz\t\t: 3200.123",
    "sys/devices/system/cpu/online": `0-${threads - 1}`,
    "sys/firmware/memmap/0/type": "System RAM",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\nVERSION_ID="13"',
  };
}

function pci(
  address: string,
  ids: { vendor: number; device: number; class: number },
  files: TreeFiles = {},
): TreeFiles {
  const at = `sys/devices/pci${address.slice(0, 7)}/${address}`;
  return {
    [`sys/bus/pci/devices/${address}`]: `-> ../../../devices/pci${address.slice(0, 7)}/${address}`,
    [`${at}/config`]: pciConfig(ids),
    [`${at}/class`]: `0x${ids.class.toString(16).padStart(6, "0")}`,
    [`${at}/numa_node`]: "0",
    ...Object.fromEntries(Object.entries(files).map(([path, content]) => [`${at}/${path}`, content])),
  };
}

/** An ordinary header, with a PCI Express capability: now 8 GT/s x8, at most 16 GT/s x16. */
export function pciConfig(ids: { vendor: number; device: number; class: number }): Uint8Array {
  const bytes = Buffer.alloc(256);
  bytes.writeUInt16LE(ids.vendor, 0);
  bytes.writeUInt16LE(ids.device, 2);
  bytes.writeUInt16LE(0x10, 6);
  bytes[8] = 0x02;
  bytes.writeUIntLE(ids.class, 9, 3);
  bytes.writeUInt16LE(0x1028, 0x2c);
  bytes.writeUInt16LE(0x1fe1, 0x2e);
  bytes[0x34] = 0x60;
  bytes[0x60] = 0x10;
  bytes.writeUInt32LE(0x4 | (16 << 4), 0x6c);
  bytes.writeUInt16LE(0x3 | (8 << 4), 0x72);
  return bytes;
}

interface NvmeOptions {
  readonly bus: string;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly serial: string;
  readonly wwid: string;
}

function nvme(number: number, { bus, sizeBytes, sectorBytes, serial, wwid }: NvmeOptions): TreeFiles {
  const controller = `sys/devices/pci0000:${bus}/0000:${bus}:00.0/nvme/nvme${number}`;
  const name = `nvme${number}n1`;
  const at = `${controller}/${name}`;
  return {
    ...pci(`0000:${bus}:00.0`, { vendor: 0x144d, device: 0xa808, class: 0x010802 }),
    [`sys/devices/pci0000:${bus}/0000:${bus}:00.0/driver`]: "-> ../../../bus/pci/drivers/nvme",
    [`sys/block/${name}`]: `-> ../${at.slice(4)}`,
    [`sys/class/block/${name}`]: `-> ../../${at.slice(4)}`,
    [`${at}/device`]: `-> ../../nvme${number}`,
    [`${at}/dev`]: `259:${number}`,
    [`${at}/size`]: `${sizeBytes / 512}`,
    [`${at}/ro`]: "0",
    [`${at}/removable`]: "0",
    [`${at}/hidden`]: "0",
    [`${at}/diskseq`]: `${number + 1}`,
    [`${at}/nsid`]: "1",
    [`${at}/wwid`]: wwid,
    [`${at}/eui`]: "00 25 38 5b 01 40 6f 3a",
    [`${at}/queue/logical_block_size`]: `${sectorBytes}`,
    [`${at}/queue/physical_block_size`]: "4096",
    [`${at}/queue/rotational`]: "0",
    [`${at}/queue/write_cache`]: "write back",
    [`${at}/queue/fua`]: "1",
    [`${at}/queue/scheduler`]: "[none] mq-deadline",
    [`${at}/queue/discard_granularity`]: `${sectorBytes}`,
    [`${at}/queue/discard_max_hw_bytes`]: "2199023255040",
    [`${at}/queue/write_zeroes_max_bytes`]: "2097152",
    [`${at}/queue/max_sectors_kb`]: "128",
    [`${at}/queue/zoned`]: "none",
    [`${controller}/serial`]: `${serial}      `,
    [`${controller}/model`]: "SAMSUNG MZQL23T8HCLS-00A07              ",
    [`${controller}/firmware_rev`]: "GDC5602Q",
    [`${controller}/transport`]: "pcie",
    [`${controller}/state`]: "live",
    [`${controller}/subsysnqn`]: `nqn.1994-11.com.samsung:nvme:PM9A3:2.5-inch:${serial}`,
    [`${controller}/numa_node`]: "0",
  };
}

function fixture(tree: TreeFiles, disks: { readonly [path: string]: SparseDisk } = {}): MachineFixture {
  return {
    tree: Object.fromEntries(
      Object.entries(tree).map(([path, content]) => [
        normalize(path),
        typeof content === "string" ? content : `base64:${Buffer.from(content).toString("base64")}`,
      ]),
    ),
    devices: Object.fromEntries(
      Object.entries(disks).map(([path, disk]) => [
        path,
        { sizeBytes: disk.sizeBytes, sectors: disk.sectors() },
      ]),
    ),
  };
}

/** Two NVMe disks, one with an installed system; SMBIOS with memory, power supplies and a Redfish interface; a GPU. */
function nvmeServer(): MachineFixture {
  const size = 3_840_755_982_336;
  const system = putGpt(sparseDisk(size), 512, [
    { type: esp, startBytes: mib, sizeBytes: 512 * mib, name: "EFI System Partition" },
    { type: linuxType, startBytes: 513 * mib, sizeBytes: 100 * gib, name: "root" },
    {
      type: "e6d6d379-f507-44c2-a23c-238f2a3df928",
      startBytes: 513 * mib + 100 * gib,
      sizeBytes: tib,
      name: "data",
    },
  ]);
  layouts.vfat!.put(system, mib, 512 * mib);
  layouts.ext4!.put(system, 513 * mib, 100 * gib);
  layouts.LVM2_member!.put(system, 513 * mib + 100 * gib, tib);
  const blank = sparseDisk(size);
  const table = smbiosTable();
  return fixture(
    {
      ...common("nvme-01", 128),
      ...nvme(0, {
        bus: "c1",
        sizeBytes: size,
        sectorBytes: 512,
        serial: "S64GNE0T300123",
        wwid: "eui.36344730543001230025384700000001",
      }),
      ...nvme(1, {
        bus: "c2",
        sizeBytes: size,
        sectorBytes: 512,
        serial: "S64GNE0T300124",
        wwid: "eui.36344730543001240025384700000001",
      }),
      ...pci(
        "0000:31:00.0",
        { vendor: 0x10de, device: 0x20b5, class: 0x030200 },
        {
          sriov_totalvfs: "16",
          sriov_numvfs: "4",
          "mdev_supported_types/nvidia-468/name": "GRID A100D-4C",
        },
      ),
      "proc/driver/nvidia/gpus/0000:31:00.0/information":
        "Model: \t\t NVIDIA A100 80GB PCIe\nIRQ:   \t\t 0\nGPU UUID: \t GPU-1a2b3c4d-0000-1111-2222-333344445555\nVideo BIOS: \t 92.00.68.00.01",
      "sys/firmware/efi/fw_platform_size": "64",
      "sys/firmware/dmi/tables/smbios_entry_point": smbiosEntryPoint(table.length),
      "sys/firmware/dmi/tables/DMI": table,
      "sys/class/dmi/id/sys_vendor": "Dell Inc.",
      "sys/class/dmi/id/chassis_type": "23",
      "sys/class/tpm/tpm0/tpm_version_major": "2",
      "usr/share/misc/pci.ids":
        "# names\n10de  NVIDIA Corporation\n\t20b5  GA100 [A100 PCIe 80GB]\n\t\t10de 1533  A100 80GB PCIe\n144d  Samsung Electronics Co Ltd\n\ta808  NVMe SSD Controller PM9A1/PM9A3/980PRO\n\nC 00  Unclassified device",
    },
    { "/dev/nvme0n1": system, "/dev/nvme1n1": blank },
  );
}

/** Four SATA disks in one RAID 6, as an old box has it: BIOS, MBR, metadata at the end; one of them failing to read. */
function sataRaid(): MachineFixture {
  const size = 4_000_787_030_016;
  const names = ["sda", "sdb", "sdc", "sdd"];
  const disks = names.map(() => {
    const disk = putMbr(sparseDisk(size), [
      { type: 0xfd, startSector: 2048, sectors: 4_294_965_247, active: true },
    ]);
    layouts["linux_raid_member 1.0"]!.put(disk, mib, 4_294_965_247 * 512);
    return disk;
  });
  const array = sparseDisk(2 * (4_294_965_247 * 512 - mib));
  layouts.xfs!.put(array, 0, array.sizeBytes);
  const md = "sys/devices/virtual/block/md127";
  return fixture(
    {
      ...common("raid-box", 4),
      ...Object.assign(
        {},
        ...names.map((name, index) =>
          scsiDisk(name, {
            number: `8:${16 * index}`,
            device: `pci0000:00/0000:00:1f.2/ata${index + 1}/host${index}/target${index}:0:0/${index}:0:0:0`,
            sizeBytes: size,
            serial: `ZC1A2B3${index}`,
            wwid: `naa.5000c500a1b2c3d${index}`,
            partitions: [{ number: `8:${16 * index + 1}`, startBytes: mib, sizeBytes: 4_294_965_247 * 512 }],
            files: {
              [`${name}1/holders/md127/x`]: "",
              "../../vpd_pgb1": new Uint8Array([0, 0xb1, 0, 0x3c, 0x1c, 0x20]),
            },
          }),
        ),
      ),
      "sys/block/md127": "-> ../devices/virtual/block/md127",
      "sys/class/block/md127": "-> ../../devices/virtual/block/md127",
      [`${md}/dev`]: "9:127",
      [`${md}/size`]: `${array.sizeBytes / 512}`,
      [`${md}/md/level`]: "raid6",
      [`${md}/md/raid_disks`]: "4",
      [`${md}/md/degraded`]: "1",
      [`${md}/md/array_state`]: "clean",
      [`${md}/md/metadata_version`]: "1.0",
      ...Object.fromEntries(names.map((name) => [`${md}/slaves/${name}1/x`, ""])),
      "proc/self/mountinfo":
        "22 1 0:20 / / rw - rootfs rootfs rw\n40 22 9:127 / /srv/with\\040blank ro,relatime - xfs /dev/md127 rw",
      "sys/devices/system/edac/mc/mc0/mc_name": "Ivy Bridge Socket#0",
      "sys/devices/system/edac/mc/mc0/size_mb": "65536",
      "sys/devices/system/edac/mc/mc0/ce_count": "3",
      "sys/devices/system/edac/mc/mc0/ue_count": "0",
      "sys/devices/system/edac/mc/mc0/dimm0/dimm_label": "CPU_SrcID#0_Ha#0_Chan#0_DIMM#0",
      "sys/devices/system/edac/mc/mc0/dimm0/size": "16384",
      "sys/devices/system/edac/mc/mc0/dimm0/dimm_mem_type": "Registered-DDR3",
      "sys/devices/system/edac/mc/mc0/dimm0/dimm_edac_mode": "S4ECD4ED",
    },
    // The last one has no device node: what is on it is not known, and that is said.
    {
      "/dev/sda": disks[0]!,
      "/dev/sdb": disks[1]!,
      "/dev/sdc": disks[2]!,
      "/dev/md127": array,
    },
  );
}

/** A LUN with a VMware datastore over two fibre channel paths under multipath; another over iSCSI without it. */
function sanHost(): MachineFixture {
  const size = 2 * tib;
  const lun = putGpt(sparseDisk(size), 512, [
    { type: "AA31E02A-400F-11DB-9590-000C2911D1B8", startBytes: mib, sizeBytes: size - 2 * mib },
  ]);
  layouts.VMFS_volume_member!.put(lun, mib, size - 2 * mib);
  const other = sparseDisk(size);
  layouts.ocfs2!.put(other, 0, size);
  const wwid = "naa.600a098038303053453f463045727a4b";
  const path = (name: string, host: number, number: string, files: TreeFiles = {}) =>
    scsiDisk(name, {
      number,
      device: `pci0000:80/0000:81:00.${host - 7}/host${host}/rport-${host}:0-1/target${host}:0:0/${host}:0:0:3`,
      sizeBytes: size,
      serial: "80A3t]0SEcz",
      wwid,
      model: "LUN C-Mode",
      files: { "../../vendor": "NETAPP  ", "../../state": "running", ...files },
    });
  const dm = "sys/devices/virtual/block/dm-0";
  return fixture(
    {
      ...common("san-host", 16),
      ...path("sdb", 7, "8:16"),
      ...path("sdc", 8, "8:32"),
      ...scsiDisk("sdd", {
        number: "8:48",
        device: "platform/host9/session1/target9:0:0/9:0:0:1",
        sizeBytes: size,
        serial: "iscsi-lun-1",
        wwid: "naa.6001405a1b2c3d4e5f60718293a4b5c6",
        model: "shared",
        files: { "../../vpd_pg83": page83(), "../../power/runtime_status": "active" },
      }),
      ...scsiDisk("sde", {
        number: "8:64",
        device: "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0",
        sizeBytes: size,
        serial: "SLEEPY",
        files: { "../../power/runtime_status": "suspended" },
      }),
      "sys/block/dm-0": "-> ../devices/virtual/block/dm-0",
      "sys/class/block/dm-0": "-> ../../devices/virtual/block/dm-0",
      [`${dm}/dev`]: "253:0",
      [`${dm}/size`]: `${size / 512}`,
      [`${dm}/queue/logical_block_size`]: "512",
      [`${dm}/queue/physical_block_size`]: "4096",
      [`${dm}/queue/rotational`]: "0",
      [`${dm}/dm/uuid`]: "mpath-3600a098038303053453f463045727a4b",
      [`${dm}/dm/name`]: "mpatha",
      [`${dm}/slaves/sdb/x`]: "",
      [`${dm}/slaves/sdc/x`]: "",
      "dev/disk/by-id/dm-uuid-mpath-3600a098038303053453f463045727a4b": "-> ../../dm-0",
      "dev/disk/by-path/ip-192.0.2.10:3260-iscsi-iqn.2003-01.org.linux-iscsi.storage:1-lun-1": "-> ../../sdd",
    },
    { "/dev/dm-0": lun, "/dev/sdd": other, "/dev/sde": sparseDisk(size) },
  );
}

/** Disks of 4096-byte sectors: with a table for them, with one for 512 that the kernel does not see, and zoned. */
function disks4kn(): MachineFixture {
  const size = 14_000_519_643_136;
  const right = putGpt(sparseDisk(size), 4096, [
    { type: linuxType, startBytes: mib, sizeBytes: gib, name: "a" },
  ]);
  layouts.ext4!.put(right, mib, gib);
  const wrong = putGpt(sparseDisk(size), 512, [
    { type: linuxType, startBytes: mib, sizeBytes: gib, name: "b" },
  ]);
  const zoned = sparseDisk(size);
  layouts.ceph_bluestore!.put(zoned, 0, size);
  const disk = (name: string, index: number, files: TreeFiles = {}) =>
    scsiDisk(name, {
      number: `8:${16 * index}`,
      device: `pci0000:00/0000:02:00.0/host0/port-0:${index}/end_device-0:${index}/target0:0:${index}/0:0:${index}:0`,
      sizeBytes: size,
      serial: `ZTM0000${index}`,
      wwid: `naa.5000c500cafe000${index}`,
      model: "ST14000NM0048",
      files: {
        "queue/logical_block_size": "4096",
        "queue/physical_block_size": "4096",
        "queue/write_cache": "write through",
        ...files,
      },
    });
  return fixture(
    {
      ...common("jbod-4kn", 2),
      ...disk("sda", 0),
      ...disk("sdb", 1),
      ...disk("sdc", 2, { "queue/zoned": "host-managed", "integrity/format": "T10-DIF-TYPE1-CRC" }),
    },
    { "/dev/sda": right, "/dev/sdb": wrong, "/dev/sdc": zoned },
  );
}

/** An SPC identification page: NAA of the unit, the port's (left out), and a vendor's own name. */
export function page83(): Uint8Array {
  const descriptor = (codeset: number, kind: number, value: Uint8Array) =>
    Buffer.concat([Buffer.from([codeset, kind, 0, value.length]), value]);
  const body = Buffer.concat([
    descriptor(1, 0x03, Buffer.from("6001405a1b2c3d4e5f60718293a4b5c6", "hex")),
    descriptor(1, 0x93, Buffer.from("5001405000000001", "hex")),
    descriptor(2, 0x01, Buffer.from("LIO-ORG shared:5a1b2c3d-4e5f\0")),
  ]);
  return Buffer.concat([Buffer.from([0, 0x83, body.length >> 8, body.length & 0xff]), body]);
}

/** Every file of a large machine, all of them holding the same bytes that mean nothing. */
function garbage(): MachineFixture {
  const bytes = Uint8Array.from({ length: 600 }, (_, index) => (index * 31 + 7) % 256);
  const { tree, devices } = nvmeServer();
  const noise = `base64:${Buffer.from(bytes).toString("base64")}`;
  return {
    tree: Object.fromEntries(
      Object.entries(tree).map(([path, content]) => [
        path,
        typeof content === "string" && content.startsWith("-> ") ? content : noise,
      ]),
    ),
    devices,
  };
}

export const machines: { readonly [name: string]: () => MachineFixture } = {
  "nvme-server": nvmeServer,
  "sata-raid": sataRaid,
  "san-host": sanHost,
  "disks-4kn": disks4kn,
  garbage,
};
