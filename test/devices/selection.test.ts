// Selecting one disk: why each other was not taken, paths of one disk, and disks that come late.
import { describe, expect, test } from "vitest";
import { awaitDisk } from "../../agent/devices/await-disk.ts";
import { type DiskListing, listDisks } from "../../agent/devices/disks.ts";
import { createFacts } from "../../agent/devices/facts.ts";
import { mismatches, selectDisk } from "../../agent/devices/select.ts";
import type { Clock } from "../../agent/host/clock.ts";
import { systemFiles } from "../../agent/host/files.ts";
import type { DiskSelector } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { makeTree, scsiDisk, type TreeFiles } from "../support/fact-tree.ts";

const gib = 1 << 30;
const wwid = "naa.600a098038303053453f463045727a4b";

/** A LUN over two fibre channel paths, and a disk of the host's own. */
const paths: TreeFiles = {
  ...scsiDisk("sda", {
    number: "8:0",
    device: "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0",
    sizeBytes: 8 * gib,
    serial: "LOCAL",
    wwid: "naa.5000c500a1b2c3d4",
  }),
  ...scsiDisk("sdb", {
    number: "8:16",
    device: "pci0000:80/0000:81:00.0/host7/rport-7:0-1/target7:0:0/7:0:0:3",
    sizeBytes: 4 * gib,
    serial: "80 00SAN",
    wwid,
    model: "LUN C-Mode",
  }),
  ...scsiDisk("sdc", {
    number: "8:32",
    device: "pci0000:80/0000:81:00.1/host8/rport-8:0-1/target8:0:0/8:0:0:3",
    sizeBytes: 4 * gib,
    serial: "80 00SAN",
    wwid,
    model: "LUN C-Mode",
  }),
  "sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/state": "running",
  "proc/self/mountinfo": "",
};
const dm = "sys/devices/virtual/block/dm-0";
const multipath: TreeFiles = {
  ...paths,
  "sys/block/dm-0": "-> ../devices/virtual/block/dm-0",
  "sys/class/block/dm-0": "-> ../../devices/virtual/block/dm-0",
  [`${dm}/dev`]: "253:0",
  [`${dm}/size`]: `${(4 * gib) / 512}`,
  [`${dm}/queue/logical_block_size`]: "512",
  [`${dm}/queue/rotational`]: "0",
  [`${dm}/dm/uuid`]: "mpath-3600a098038303053453f463045727a4b",
  [`${dm}/dm/name`]: "mpatha",
  [`${dm}/slaves/sdb/x`]: "",
  [`${dm}/slaves/sdc/x`]: "",
};

async function listingOf(files: TreeFiles): Promise<DiskListing> {
  await using tree = await makeTree(files);
  const facts = createFacts(systemFiles, tree.root);
  return listDisks({ facts, files: systemFiles, fileDisks: [], allows: () => true, protectedPaths: ["/"] });
}

function refusal(listing: DiskListing, selector: DiskSelector): BedplateError {
  try {
    selectDisk(listing, selector);
  } catch (error) {
    if (error instanceof BedplateError) return error;
    throw error;
  }
  throw new Error("a disk was selected");
}

describe("two paths to one LUN", () => {
  test("without multipath are two disks with one name: refused, and the hint says what they are", async () => {
    const error = refusal(await listingOf(paths), { wwn: wwid });
    expect(error.code).toBe("disk.ambiguous");
    expect(error.hint).toContain("multipath");
  });

  test("with multipath are one disk: the device over them, with their identity", async () => {
    const listing = await listingOf(multipath);
    const { disk } = selectDisk(listing, { wwn: wwid });
    expect(disk).toMatchObject({
      path: "/dev/dm-0",
      serial: "80 00SAN",
      wwn: "0x600a098038303053453f463045727a4b",
      model: "LUN C-Mode",
      transport: "fc",
      hctl: null,
      paths: ["/dev/sdb", "/dev/sdc"],
    });
    expect(selectDisk(listing, { serial: "80 00SAN" }).disk.path).toBe("/dev/dm-0");
    expect(listing.excluded.map(({ path, reason }) => [path, reason])).toEqual([
      ["/dev/sdb", "one path of the multipath device /dev/dm-0"],
      ["/dev/sdc", "one path of the multipath device /dev/dm-0"],
    ]);
  });

  test("a path is never selected, even by its own address", async () => {
    const error = refusal(await listingOf(multipath), { hctl: "7:0:0:3" });
    expect(error.code).toBe("disk.not-found");
  });
});

test("every candidate says serial, size, model, state and why it was not taken, the nearest first", async () => {
  const error = refusal(await listingOf(multipath), { serial: "LOCAL", sizeBytes: 8 * gib, type: "nvme" });
  expect(error.code).toBe("disk.not-found");
  expect(error.details?.candidates).toMatchObject([
    {
      path: "/dev/sda",
      serial: "LOCAL",
      sizeBytes: 8 * gib,
      model: "ST4000NM0035",
      state: "running",
      excluded: "its type is hdd",
    },
    {
      path: "/dev/dm-0",
      serial: "80 00SAN",
      state: null,
      excluded: `its serial is 80 00SAN; its size is ${4 * gib}; its type is ssd`,
    },
    { path: "/dev/sdb", excluded: "one path of the multipath device /dev/dm-0" },
    { path: "/dev/sdc" },
  ]);
});

test("a serial that only an excluded device has is named in the message", async () => {
  const listing = await listingOf({
    ...paths,
    ...scsiDisk("sdz", {
      number: "65:144",
      device: "pci/usb1/host9/target9:0:0/9:0:0:0",
      sizeBytes: 0,
      serial: "NOMEDIUM",
    }),
  });
  expect(refusal(listing, { serial: "NOMEDIUM" }).message).toContain(
    "/dev/sdz has that serial, but is of size 0: no medium",
  );
});

test.each<[DiskSelector, readonly string[]]>([
  [{ serial: " LOCAL " }, []],
  [{ wwn: "naa.5000C500A1B2C3D4", hctl: "0:0:0:0" }, []],
  [{ serial: "local" }, ["its serial is LOCAL"]],
  [{ byId: "wwn-0x5" }, ["it has no by-id names"]],
  [{ loop: "/a" }, ["it is no loop device"]],
  [{ file: "one" }, ["it has no file"]],
])("%j fails by %j", async (selector, wrong) => {
  const listing = await listingOf(paths);
  expect(mismatches(listing.disks[0]!.disk, selector)).toEqual(wrong);
});

describe("a disk that comes late", () => {
  /** A clock whose time passes only in sleeps. */
  function sleepingClock(): Clock & { now(): number } {
    let ms = 0;
    return {
      now: () => ms,
      monotonic: () => ms,
      async sleep(length, signal) {
        signal.throwIfAborted();
        ms += length;
      },
      deadline: () => {
        throw new Error("not used");
      },
    };
  }
  const empty: DiskListing = { disks: [], excluded: [] };

  test("is taken when it comes", async () => {
    const clock = sleepingClock();
    const full = await listingOf(paths);
    const { disk } = await awaitDisk({
      selector: { serial: "LOCAL" },
      waitSeconds: 30,
      list: () => (clock.now() >= 12_000 ? full : empty),
      clock,
      signal: new AbortController().signal,
    });
    expect([disk.serial, clock.now()]).toEqual(["LOCAL", 12_000]);
  });

  test("is missed at the deadline, with the candidates of the last look", async () => {
    const clock = sleepingClock();
    const full = await listingOf(paths);
    const waiting = awaitDisk({
      selector: { serial: "NONE" },
      waitSeconds: 3,
      list: () => (clock.now() >= 2000 ? full : empty),
      clock,
      signal: new AbortController().signal,
    });
    await expect(waiting).rejects.toMatchObject({ code: "disk.not-found", details: { waitSeconds: 3 } });
    await expect(waiting).rejects.toThrow("None appeared within 3 s.");
    const error = (await waiting.catch((thrown: unknown) => thrown)) as BedplateError;
    expect(error.details?.candidates).toHaveLength(3);
    expect(clock.now()).toBe(3000);
  });

  test("without a wait is looked for once; several are refused without waiting; a cancel ends the wait", async () => {
    const clock = sleepingClock();
    const full = await listingOf(paths);
    let looks = 0;
    const options = { clock, signal: new AbortController().signal };
    const list = () => {
      looks++;
      return empty;
    };
    await expect(
      awaitDisk({ ...options, selector: { serial: "X" }, waitSeconds: 0, list }),
    ).rejects.toMatchObject({
      code: "disk.not-found",
    });
    expect([looks, clock.now()]).toEqual([1, 0]);
    await expect(
      awaitDisk({ ...options, selector: { serial: "80 00SAN" }, waitSeconds: 30, list: () => full }),
    ).rejects.toMatchObject({ code: "disk.ambiguous" });
    expect(clock.now()).toBe(0);
    await expect(
      awaitDisk({
        ...options,
        selector: { serial: "X" },
        waitSeconds: 30,
        list,
        signal: AbortSignal.abort(new Error("cancelled")),
      }),
    ).rejects.toThrow("cancelled");
  });
});
