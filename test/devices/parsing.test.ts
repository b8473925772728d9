// The parsers of kernel texts: pasted samples, and garbage.
import { describe, expect, test } from "vitest";
import { normalWwn, parseSerialPage, parseUdev, transportOf } from "../../agent/devices/disk-identity.ts";
import { cleanText } from "../../agent/devices/facts.ts";
import { parseCpuinfo, parseCpuList, parseSize } from "../../agent/devices/inventory/cpu.ts";
import { parseMeminfo } from "../../agent/devices/inventory/memory.ts";
import { parseOsRelease } from "../../agent/devices/inventory/operating-system.ts";
import { mountOf, parseMountinfo, parseSwaps } from "../../agent/devices/mounts.ts";
import { serialPage } from "../support/fact-tree.ts";

const mountinfo = `22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
25 22 0:5 / /proc rw,nosuid - proc proc rw
60 22 8:17 / /srv/with\\040blank rw,relatime shared:2 master:3 - xfs /dev/sdb1 rw,attr2
61 22 0:45 /@home /home rw,relatime - btrfs /dev/mapper/vg0-home rw,subvol=/@home
62 61 8:33 / /home rw - ext4 /dev/sdc1 rw
not a mount line
99 98 x:y / /broken rw - ext4 /dev/sdz rw
`;

describe("mountinfo", () => {
  const mounts = parseMountinfo(mountinfo);
  test("gives device, mount point, type and source, octal undone", () => {
    expect(mounts).toHaveLength(5);
    expect(mounts[2]).toEqual({
      device: "8:17",
      mountPoint: "/srv/with blank",
      type: "xfs",
      source: "/dev/sdb1",
      readOnly: false,
    });
    expect(parseMountinfo("60 22 8:17 / /srv ro,relatime - xfs /dev/sdb1 rw")[0]?.readOnly).toBe(true);
  });
  test("a path lies on the longest mount point, the later one where two are the same", () => {
    expect(mountOf(mounts, "/var/lib")?.source).toBe("/dev/sda2");
    expect(mountOf(mounts, "/srv/with blank/a")?.source).toBe("/dev/sdb1");
    expect(mountOf(mounts, "/srv/with blankets")?.source).toBe("/dev/sda2");
    expect(mountOf(mounts, "/home/me")?.source).toBe("/dev/sdc1");
    expect(mountOf([], "/")).toBeUndefined();
  });
});

test("swaps", () => {
  const text =
    "Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n/dev/sda3                               partition\t999420\t0\t-2\n/swap\\040file file 1 0 -3\n";
  expect(parseSwaps(text)).toEqual(["/dev/sda3", "/swap file"]);
  expect(parseSwaps("")).toEqual([]);
});

test("the serial number page of a drive", () => {
  expect(parseSerialPage(serialPage("S3Z9NX0M1234"))).toBe("S3Z9NX0M1234");
  expect(parseSerialPage(new Uint8Array([0, 0x83, 0, 4, 65, 66, 67, 68]))).toBeNull();
  expect(parseSerialPage(new Uint8Array([0, 0x80, 0xff, 0xff, 65]))).toBe("A");
  expect(parseSerialPage(new Uint8Array())).toBeNull();
});

test.each([
  ["naa.5000C500A1B2C3D4", "0x5000c500a1b2c3d4"],
  ["0x5000c500a1b2c3d4", "0x5000c500a1b2c3d4"],
  ["eui.0025385b01406f3a", "eui.0025385b01406f3a"],
  ["uuid.6c8b2a1e-7f00-4c7e-9d2b-0a1b2c3d4e5f", "uuid.6c8b2a1e-7f00-4c7e-9d2b-0a1b2c3d4e5f"],
  ["t10.ATA     ST4000NM0035", null],
  ["naa.5", null],
  ["", null],
])("the world-wide name %j is %j", (text, wwn) => expect(normalWwn(text)).toBe(wwn));

test.each([
  ["/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda", null, "sata"],
  ["/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:0/block/sdb", null, "usb"],
  ["/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdc", null, "iscsi"],
  ["/sys/devices/pci0000:80/host7/rport-7:0-1/target7:0:0/7:0:0:0/block/sdd", null, "fc"],
  ["/sys/devices/pci0000:80/host8/port-8:0/end_device-8:0/target8:0:0/8:0:0:0/block/sde", null, "sas"],
  ["/sys/devices/pci0000:40/0000:41:00.0/nvme/nvme0/nvme0n1", "pcie", "nvme"],
  ["/sys/devices/virtual/nvme-fabrics/ctl/nvme1/nvme1n1", "tcp", "nvme-tcp"],
  ["/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda", null, "virtio"],
  ["/sys/devices/virtual/block/loop0", null, null],
])("a disk at %s (%s) is attached by %s", (path, nvme, transport) =>
  expect(transportOf(path, nvme)).toBe(transport),
);

test("udev's database", () => {
  const properties = parseUdev(
    "S:disk/by-id/x\nE:ID_SERIAL_SHORT=ZC1=A\nE:ID_WWN=0x5000c500a1b2c3d4\ngarbage\n",
  );
  expect(properties.get("ID_SERIAL_SHORT")).toBe("ZC1=A");
  expect(properties.size).toBe(2);
});

test("processors and lists of them", () => {
  const info = parseCpuinfo(
    "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon: the best\nflags\t\t: fpu vme\n\nprocessor\t: 1\nvendor_id\t: Other\n",
  );
  expect(info.get("model name")).toBe("Xeon: the best");
  expect(info.get("vendor_id")).toBe("GenuineIntel");
  expect(parseCpuList("0-3,8,10-11")).toEqual([0, 1, 2, 3, 8, 10, 11]);
  expect(parseCpuList("garbage,5,-3,7-")).toEqual([5]);
  expect(parseCpuList("0-99999")).toHaveLength(8192);
});

test("memory in bytes", () => {
  const values = parseMeminfo(
    "MemTotal:       24675344 kB\nSwapTotal:             0 kB\nHugePages_Total:       0\nMemFree: lots kB\n",
  );
  expect(values.get("MemTotal")).toBe(24675344 * 1024);
  expect([...values.keys()]).toEqual(["MemTotal", "SwapTotal"]);
});

test("the operating system's name", () => {
  expect(parseOsRelease('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n')).toEqual({
    id: "debian",
    version: null,
    name: "Debian GNU/Linux 12 (bookworm)",
    build: null,
  });
  expect(parseOsRelease("PRETTY_NAME=Alpine\n").name).toBe("Alpine");
  expect(parseOsRelease("no such line").name).toBeNull();
});

test.each([
  ["32K", 32_768],
  ["36M", 36 << 20],
  ["512", 512],
  ["-1K", null],
  ["", null],
])("the size %j is %j", (text, bytes) => expect(parseSize(text)).toBe(bytes));

test("what firmware writes is cleaned", () => {
  expect(cleanText(new Uint8Array([0x20, 0x41, 0x00, 0xff, 0x42, 0x1b, 0x0a, 0x43, 0x20]))).toBe("AB\nC");
});
