// Listing disks and selecting one, over made trees of sysfs.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DiskListing, listDisks } from "../../agent/devices/disks.ts";
import { createFacts } from "../../agent/devices/facts.ts";
import { selectDisk } from "../../agent/devices/select.ts";
import { systemFiles } from "../../agent/host/files.ts";
import type { Disk, DiskSelector } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { type FactTree, makeTree, scsiDisk, type TreeFiles } from "../support/fact-tree.ts";

const gib = 1 << 30;

function nvmeSubsystem(number: number, transport: string, serial: string): TreeFiles {
  const at = `sys/devices/virtual/nvme-subsystem/nvme-subsys${number}`;
  const controller = `sys/devices/virtual/nvme-fabrics/ctl/nvme${number}`;
  return {
    [`sys/block/nvme${number}n1`]: `-> ../${at.slice(4)}/nvme${number}n1`,
    [`sys/class/block/nvme${number}n1`]: `-> ../../${at.slice(4)}/nvme${number}n1`,
    [`${at}/nvme${number}n1/dev`]: `259:${number}`,
    [`${at}/nvme${number}n1/size`]: "8192",
    [`${at}/nvme${number}n1/device`]: `-> ../../nvme-subsys${number}`,
    [`${at}/serial`]: serial,
    [`${at}/nvme${number}`]: `-> ../../nvme-fabrics/ctl/nvme${number}`,
    [`${controller}/transport`]: transport,
  };
}

const files: TreeFiles = {
  ...scsiDisk("sda", {
    number: "8:0",
    device: "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0",
    sizeBytes: 8 * gib,
    serial: "ROOT0001",
    wwid: "naa.5000c500a1b2c3d4",
    partitions: [
      { number: "8:1", startBytes: 1 << 20, sizeBytes: gib },
      { number: "8:2", startBytes: 2 * gib, sizeBytes: gib },
    ],
  }),
  // Two disks whose maker gave them one serial.
  ...scsiDisk("sdb", {
    number: "8:16",
    device: "pci0000:00/ata2/host1/target1:0:0/1:0:0:0",
    sizeBytes: 4 * gib,
    serial: "TWIN",
    wwid: "naa.5000000000000001",
  }),
  ...scsiDisk("sdc", {
    number: "8:32",
    device: "pci0000:00/ata3/host2/target2:0:0/2:0:0:0",
    sizeBytes: 4 * gib,
    serial: "TWIN",
    wwid: "naa.5000000000000002",
  }),
  // Stacked on: dm-1 on dm-0 on a partition.
  ...scsiDisk("sdd", {
    number: "8:48",
    device: "pci0000:00/ata4/host3/target3:0:0/3:0:0:0",
    sizeBytes: 4 * gib,
    serial: "STACK",
    partitions: [{ number: "8:49", startBytes: 1 << 20, sizeBytes: gib }],
    files: { "sdd1/holders/dm-0/x": "" },
  }),
  "sys/devices/virtual/block/dm-0/dev": "252:0",
  "sys/devices/virtual/block/dm-0/size": "1000",
  "sys/devices/virtual/block/dm-0/holders/dm-1/x": "",
  "sys/devices/virtual/block/dm-0/slaves/sdd1/x": "",
  "sys/devices/virtual/block/dm-1/dev": "252:1",
  "sys/devices/virtual/block/dm-1/size": "900",
  "sys/devices/virtual/block/dm-1/slaves/dm-0/x": "",
  "sys/block/dm-0": "-> ../devices/virtual/block/dm-0",
  "sys/block/dm-1": "-> ../devices/virtual/block/dm-1",
  "sys/class/block/dm-0": "-> ../../devices/virtual/block/dm-0",
  "sys/class/block/dm-1": "-> ../../devices/virtual/block/dm-1",
  "sys/devices/virtual/block/loop0/dev": "7:0",
  "sys/devices/virtual/block/loop0/size": "2048",
  "sys/devices/virtual/block/loop0/queue/logical_block_size": "4096",
  "sys/devices/virtual/block/loop0/loop/backing_file": "/srv/a disk.img",
  "sys/block/loop0": "-> ../devices/virtual/block/loop0",
  "sys/class/block/loop0": "-> ../../devices/virtual/block/loop0",
  "sys/devices/virtual/block/loop1/dev": "7:1",
  "sys/devices/virtual/block/loop1/size": "0",
  "sys/block/loop1": "-> ../devices/virtual/block/loop1",
  // Over a disk, and over a file of the host's own state.
  "sys/devices/virtual/block/loop2/dev": "7:2",
  "sys/devices/virtual/block/loop2/size": "8192",
  "sys/devices/virtual/block/loop2/loop/backing_file": "/dev/sdc",
  "sys/block/loop2": "-> ../devices/virtual/block/loop2",
  "sys/devices/virtual/block/loop3/dev": "7:3",
  "sys/devices/virtual/block/loop3/size": "8192",
  "sys/devices/virtual/block/loop3/loop/backing_file": "/var/lib/bedplate/executor/disk.img",
  "sys/block/loop3": "-> ../devices/virtual/block/loop3",
  "sys/devices/virtual/block/ram0/dev": "1:0",
  "sys/devices/virtual/block/ram0/size": "8192",
  "sys/block/ram0": "-> ../devices/virtual/block/ram0",
  "sys/devices/pci/usb1/host9/block/sdz/dev": "65:144",
  "sys/devices/pci/usb1/host9/block/sdz/size": "0",
  "sys/block/sdz": "-> ../devices/pci/usb1/host9/block/sdz",
  // Namespaces of subsystems, as the kernel shows what several controllers may reach: by the network, and in this machine.
  ...nvmeSubsystem(0, "tcp", "NET0001"),
  ...nvmeSubsystem(1, "pcie", "DUAL0001"),
  "dev/disk/by-id/ata-ST4000NM0035_ROOT0001": "-> ../../sda",
  "dev/disk/by-id/ata-ST4000NM0035_ROOT0001-part1": "-> ../../sda1",
  "proc/swaps": "Filename Type Size Used Priority\n/dev/sda1 partition 1 0 -2",
  "proc/self/mountinfo":
    "22 1 8:2 / / rw - ext4 /dev/sda2 rw\n30 22 252:1 / /var/lib/bedplate rw - ext4 /dev/mapper/vg-state rw\n31 22 0:40 / /mnt rw - btrfs /dev/sdb rw",
};

let tree: FactTree;
let listing: DiskListing;
beforeAll(async () => {
  tree = await makeTree(files);
  listing = listDisks({
    facts: createFacts(systemFiles, tree.root),
    files: systemFiles,
    fileDisks: [
      {
        name: "here",
        path: `${tree.root}/proc/swaps`,
        sizeBytes: Buffer.byteLength(`${files["proc/swaps"] as string}\n`),
      },
      { name: "gone", path: `${tree.root}/none`, sizeBytes: 1 << 20 },
      { name: "other", path: `${tree.root}/proc/swaps`, sizeBytes: 1 << 20 },
    ],
    allows: (disk) => disk.serial === "TWIN",
    protectedPaths: ["/", "/var/lib/bedplate/executor"],
  });
});
afterAll(() => tree[Symbol.asyncDispose]());

const diskAt = (path: string): Disk => listing.disks.find(({ disk }) => disk.path === path)!.disk;
const codeOf = (selector: DiskSelector) => {
  try {
    return selectDisk(listing, selector).disk.path;
  } catch (error) {
    return (error as BedplateError).code;
  }
};

test("a disk with its identity, partitions and uses", () => {
  expect(diskAt("/dev/sda")).toEqual({
    path: "/dev/sda",
    type: "hdd",
    sizeBytes: 8 * gib,
    logicalSectorBytes: 512,
    physicalSectorBytes: 4096,
    serial: "ROOT0001",
    wwn: "0x5000c500a1b2c3d4",
    model: "ST4000NM0035",
    vendor: "ATA",
    firmware: "TN02",
    hctl: "0:0:0:0",
    byId: ["ata-ST4000NM0035_ROOT0001"],
    transport: "sata",
    readOnly: false,
    removable: false,
    diskSequence: 9,
    backing: null,
    fileDisk: null,
    partitions: [
      { path: "/dev/sda1", number: 1, startBytes: 1 << 20, sizeBytes: gib },
      { path: "/dev/sda2", number: 2, startBytes: 2 * gib, sizeBytes: gib },
    ],
    mounts: ["/"],
    swap: true,
    holders: [],
    allowed: false,
  });
});

test("holders are followed upwards, and a file system without a device number is found by its source", () => {
  expect(diskAt("/dev/sdd").holders).toEqual(["dm-0", "dm-1"]);
  expect(diskAt("/dev/sdb").mounts).toEqual(["/mnt"]);
});

test("the host's root and state are found through layers", () => {
  const carrying = Object.fromEntries(listing.disks.map(({ disk, carries }) => [disk.path, carries]));
  expect(carrying["/dev/sda"]).toEqual(["/"]);
  expect(carrying["/dev/sdd"]).toEqual(["/var/lib/bedplate/executor"]);
  expect(carrying["/dev/loop3"]).toEqual(["/var/lib/bedplate/executor"]);
  expect(carrying["/dev/sdb"]).toEqual([]);
});

test("a namespace of several controllers is attached as they are", () => {
  expect(diskAt("/dev/nvme0n1")).toMatchObject({ serial: "NET0001", transport: "nvme-tcp" });
  expect(diskAt("/dev/nvme1n1")).toMatchObject({ serial: "DUAL0001", transport: "nvme" });
});

test("a loop device is known by the file behind it, with its own sector size", () => {
  expect(diskAt("/dev/loop0")).toMatchObject({
    type: "loop",
    backing: "/srv/a disk.img",
    logicalSectorBytes: 4096,
    serial: null,
  });
});

test("what is no disk of this host is left out with a reason", () => {
  const reasons = Object.fromEntries(listing.excluded.map(({ path, reason }) => [path, reason]));
  expect(reasons["/dev/ram0"]).toBe("a disk in memory");
  expect(reasons["/dev/dm-0"]).toContain("a layer");
  expect(reasons["/dev/loop1"]).toContain("no file behind it");
  expect(reasons["/dev/loop2"]).toBe("a loop device over /dev/sdc, which is a block device itself");
  expect(reasons["/dev/sdz"]).toContain("size 0");
  expect(reasons[`${tree.root}/none`]).toContain("ENOENT");
  expect(listing.excluded.find(({ reason }) => reason.includes('"other"'))?.reason).toContain(
    "the policy gives",
  );
  expect(listing.disks.find(({ disk }) => disk.fileDisk === "here")?.disk).toMatchObject({
    type: "file",
    backing: `${tree.root}/proc/swaps`,
  });
});

describe("selecting", () => {
  test.each<[DiskSelector, string]>([
    [{ serial: "ROOT0001" }, "/dev/sda"],
    [{ wwn: "naa.5000C500A1B2C3D4" }, "/dev/sda"],
    [{ byId: "/dev/disk/by-id/ata-ST4000NM0035_ROOT0001" }, "/dev/sda"],
    [{ hctl: "2:0:0:0" }, "/dev/sdc"],
    [{ loop: "/srv/a disk.img" }, "/dev/loop0"],
    [{ serial: "TWIN", wwn: "0x5000000000000002" }, "/dev/sdc"],
    [{ serial: "TWIN" }, "disk.ambiguous"],
    [{ serial: "TWIN", sizeBytes: 5 }, "disk.not-found"],
    [{ serial: "twin" }, "disk.not-found"],
    [{ serial: "ROOT0001", type: "nvme" }, "disk.not-found"],
    [{ file: "gone" }, "disk.not-found"],
  ])("%j gives %s", (selector, expected) => expect(codeOf(selector)).toBe(expected));

  test("two disks with one serial are refused with both, and all candidates and their reasons", () => {
    try {
      selectDisk(listing, { serial: "TWIN" });
      expect.unreachable();
    } catch (error) {
      if (!(error instanceof BedplateError)) throw error;
      expect(error.message).toContain("/dev/sdb, /dev/sdc");
      const { matching, candidates } = error.details as {
        matching: { path: string; wwn: string }[];
        candidates: { path: string; excluded: string | null }[];
      };
      expect(matching.map(({ path, wwn }) => [path, wwn])).toEqual([
        ["/dev/sdb", "0x5000000000000001"],
        ["/dev/sdc", "0x5000000000000002"],
      ]);
      expect(candidates.map(({ path }) => path)).toContain("/dev/sda");
      expect(candidates.find(({ path }) => path === "/dev/ram0")?.excluded).toBe("a disk in memory");
    }
  });
});

test("an empty machine lists nothing and throws nothing", async () => {
  await using empty = await makeTree({ "proc/nothing": "" });
  const facts = createFacts(systemFiles, empty.root);
  expect(
    listDisks({ facts, files: systemFiles, fileDisks: [], allows: () => true, protectedPaths: ["/"] }),
  ).toEqual({ disks: [], excluded: [] });
  expect(facts.unreadable()).toEqual(["/proc/self/mountinfo: ENOENT"]);
});

test("garbage in every file throws nothing", async () => {
  const garbage = new Uint8Array(600).map((_, i) => (i * 31) % 256);
  await using broken = await makeTree({
    ...Object.fromEntries(
      Object.entries(files).map(([path, content]) => [
        path,
        typeof content === "string" && content.startsWith("-> ") ? content : garbage,
      ]),
    ),
  });
  const facts = createFacts(systemFiles, broken.root);
  const { disks } = listDisks({
    facts,
    files: systemFiles,
    fileDisks: [],
    allows: () => true,
    protectedPaths: ["/"],
  });
  expect(disks).toEqual([]);
  expect(facts.unreadable()).toContain("/sys/block/sda/size: not a number");
});

test("a disk with two paths that nothing joins is used by both when it is by one; disks of one bogus name are not one", async () => {
  const path = (name: string, number: number, serial: string, more: object = {}) =>
    scsiDisk(name, {
      number: `8:${number}`,
      device: `pci0000:00/host${number}/port-0:0/end_device-0:0/target0:0:0/0:0:${number}:0`,
      sizeBytes: 4 * gib,
      serial,
      wwid: "naa.5000c50011223344",
      partitions: [{ number: `8:${number + 1}`, startBytes: 1 << 20, sizeBytes: gib }],
      ...more,
    });
  await using made = await makeTree({
    ...path("sda", 0, "DUAL"),
    ...path("sdb", 16, "DUAL", { files: { "sdb1/holders/dm-0/x": "" } }),
    ...path("sdc", 32, "ANOTHER"),
    "proc/self/mountinfo": "22 1 8:17 / / rw - ext4 /dev/sdb1 rw",
  });
  const { disks } = listDisks({
    facts: createFacts(systemFiles, made.root),
    files: systemFiles,
    fileDisks: [],
    allows: () => true,
    protectedPaths: ["/"],
  });
  expect(
    disks.map(({ disk, carries, otherPaths }) => [disk.mounts, disk.holders, carries, otherPaths]),
  ).toEqual([
    [["/"], ["dm-0"], ["/"], ["/dev/sdb"]],
    [["/"], ["dm-0"], ["/"], ["/dev/sda"]],
    [[], [], [], undefined],
  ]);
});
