// The whole inventory of a server, over a made tree of /sys and /proc, against one golden file; and of this machine.
import { readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { expect, test } from "vitest";
import { collectInventory } from "../../agent/commands/host-inventory.ts";
import { listDisks } from "../../agent/devices/disks.ts";
import { createFacts, type Facts } from "../../agent/devices/facts.ts";
import { systemFiles } from "../../agent/host/files.ts";
import { Inventory } from "../../protocol/inventory.ts";
import { checker } from "../../protocol/schema.ts";
import { makeTree, scsiDisk, type TreeFiles } from "../support/fact-tree.ts";

const check = checker(Inventory, "internal", "inventory");
const disks = (facts: Facts) =>
  listDisks({ facts, files: systemFiles, fileDisks: [], allows: () => false, protectedPaths: ["/"] });

const nvme = "sys/devices/pci0000:40/0000:41:00.0/nvme/nvme0";
const nic = "sys/devices/pci0000:17/0000:18:00.0/net/eno1";
const server: TreeFiles = {
  "sys/class/dmi/id/product_uuid": "4C4C4544-0042-3510-8054-B7C04F4D3233",
  "sys/class/dmi/id/product_serial": "7B5T3M2",
  "sys/class/dmi/id/sys_vendor": "Dell Inc.",
  "sys/class/dmi/id/product_name": "PowerEdge R640  ",
  "sys/class/dmi/id/board_serial": "",
  "sys/class/dmi/id/bios_version": "2.19.1",
  "sys/firmware/efi/runtime": "0x0",
  "proc/sys/kernel/hostname": "rack12-u07",
  "proc/sys/kernel/osrelease": "6.1.0-28-amd64",
  "proc/sys/kernel/random/boot_id": "0b5f6f4e-7c83-4a3a-9c61-3f0c6b6ef7a1",
  "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian',
  "proc/cpuinfo":
    "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6132 CPU @ 2.60GHz\nmicrocode\t: 0x2007006\nflags\t\t: fpu vme avx512f",
  "sys/devices/system/cpu/online": "0-3",
  ...Object.fromEntries(
    [0, 1, 2, 3].flatMap((cpu) => [
      [`sys/devices/system/cpu/cpu${cpu}/topology/physical_package_id`, `${cpu % 2}`],
      // Two packages with one core of two threads each: the cores' numbers are the same in both.
      [`sys/devices/system/cpu/cpu${cpu}/topology/core_id`, "0"],
      [`sys/devices/system/cpu/cpu${cpu}/topology/die_id`, "0"],
    ]),
  ),
  "sys/devices/system/node/node0/cpulist": "0,2",
  "sys/devices/system/node/node1/cpulist": "1,3",
  "sys/devices/system/node/has_cpu": "0-1",
  "proc/meminfo": "MemTotal:       196611772 kB\nMemFree:        1 kB\nSwapTotal:       8388604 kB",
  "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority",
  "proc/self/mountinfo": "22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw",
  ...scsiDisk("sda", {
    number: "8:0",
    device: "pci0000:00/0000:00:11.5/ata1/host0/target0:0:0/0:0:0:0",
    sizeBytes: 4_000_787_030_016,
    serial: "ZC1A2B3C",
    wwid: "naa.5000c500a1b2c3d4",
  }),
  "sys/block/nvme0n1": `-> ../${nvme.slice(4)}/nvme0n1`,
  "sys/class/block/nvme0n1": `-> ../../${nvme.slice(4)}/nvme0n1`,
  [`${nvme}/nvme0n1/device`]: "-> ../../nvme0",
  [`${nvme}/nvme0n1/dev`]: "259:0",
  [`${nvme}/nvme0n1/size`]: "1875385008",
  [`${nvme}/nvme0n1/ro`]: "0",
  [`${nvme}/nvme0n1/removable`]: "0",
  [`${nvme}/nvme0n1/hidden`]: "0",
  [`${nvme}/nvme0n1/diskseq`]: "2",
  [`${nvme}/nvme0n1/wwid`]: "eui.0025385b01406f3a",
  [`${nvme}/nvme0n1/queue/logical_block_size`]: "4096",
  [`${nvme}/nvme0n1/queue/physical_block_size`]: "4096",
  [`${nvme}/nvme0n1/queue/rotational`]: "0",
  [`${nvme}/nvme0n1/nvme0n1p2/partition`]: "2",
  [`${nvme}/nvme0n1/nvme0n1p2/dev`]: "259:2",
  [`${nvme}/nvme0n1/nvme0n1p2/start`]: "1050624",
  [`${nvme}/nvme0n1/nvme0n1p2/size`]: "1874331648",
  "sys/class/block/nvme0n1p2": `-> ../../${nvme.slice(4)}/nvme0n1/nvme0n1p2`,
  [`${nvme}/serial`]: "S3Z9NX0M500123      ",
  [`${nvme}/model`]: "SAMSUNG MZQLB960HAJR-00007              ",
  [`${nvme}/firmware_rev`]: "EDA5202Q",
  [`${nvme}/transport`]: "pcie",
  "dev/disk/by-id/nvme-eui.0025385b01406f3a": "-> ../../nvme0n1",
  "sys/class/net/eno1": `-> ../../${nic.slice(4)}`,
  [`${nic}/device`]: "-> ../../../0000:18:00.0",
  "sys/devices/pci0000:17/0000:18:00.0/driver": "-> ../../../bus/pci/drivers/i40e",
  [`${nic}/type`]: "1",
  [`${nic}/address`]: "E4:43:4B:01:02:03",
  [`${nic}/mtu`]: "9000",
  [`${nic}/operstate`]: "up",
  [`${nic}/carrier`]: "1",
  [`${nic}/speed`]: "25000",
  [`${nic}/duplex`]: "full",
  "sys/devices/virtual/net/lo/type": "772",
  "sys/class/net/lo": "-> ../../devices/virtual/net/lo",
  "sys/devices/virtual/net/dummy0/type": "1",
  "sys/devices/virtual/net/dummy0/address": "00:00:00:00:00:00",
  "sys/devices/virtual/net/dummy0/speed": "-1",
  "sys/devices/virtual/net/dummy0/duplex": "unknown",
  "sys/class/net/dummy0": "-> ../../devices/virtual/net/dummy0",
};
const addresses = new Map([["eno1", ["fe80::e643:4bff:fe01:203/64", "192.0.2.17/24"]]]);

test("a server's inventory is the golden one", async () => {
  await using tree = await makeTree(server);
  const found = collectInventory(createFacts(systemFiles, tree.root), {
    disks,
    architecture: "x86_64",
    addresses,
  });
  expect(check({ ...found, collectMs: 0 })).toBeTruthy();
  await expect(`${JSON.stringify(found, undefined, 2)}\n`).toMatchFileSnapshot(
    "../golden/inventory-server.json",
  );
});

test("the same host gives the same content hash, another disk another one", async () => {
  await using tree = await makeTree(server);
  const hash = (architecture: string) =>
    collectInventory(createFacts(systemFiles, tree.root), { disks, architecture, addresses }).contentHash;
  expect(hash("x86_64")).toBe(hash("x86_64"));
  expect(hash("x86_64")).not.toBe(hash("aarch64"));
});

test("a machine that shows nothing gives an inventory that says what could not be read", async () => {
  await using tree = await makeTree({ "proc/x": "" });
  const found = check({
    ...collectInventory(createFacts(systemFiles, tree.root), {
      disks,
      architecture: "x86_64",
      addresses: new Map(),
    }),
    collectMs: 0,
  });
  expect(found).toMatchObject({
    disks: [],
    nics: [],
    memory: { totalBytes: 0 },
    system: { bootMode: "unknown", uuid: null },
  });
  expect(found.unreadable).toEqual(
    expect.arrayContaining([
      "/proc/cpuinfo: ENOENT",
      "/proc/meminfo: ENOENT",
      "/proc/self/mountinfo: ENOENT",
      "/proc/sys/kernel/random/boot_id: ENOENT",
    ]),
  );
});

test("this machine's own, live, agrees with what node knows", async () => {
  const facts = createFacts(systemFiles);
  const found = check({
    ...collectInventory(facts, { disks, architecture: "x86_64", addresses: new Map() }),
    collectMs: 0,
  });
  expect(found.system.bootId).toBe((await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim());
  const known = Object.keys(networkInterfaces()).filter((name) => name !== "lo" && !name.includes(":"));
  expect(found.nics.map(({ name }) => name)).toEqual(expect.arrayContaining(known));
  for (const disk of found.disks) expect(disk.sizeBytes % disk.logicalSectorBytes).toBe(0);
});
