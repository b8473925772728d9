// The whole inventory, over captured and built machines, each against its golden file; garbage; this machine's own.
import { readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { CommandContext } from "../../agent/commands/command.ts";
import { hostInventory } from "../../agent/commands/host-inventory.ts";
import { listDisks } from "../../agent/devices/disks.ts";
import { createFacts, type Facts } from "../../agent/devices/facts.ts";
import { type Collected, collectInventory } from "../../agent/devices/inventory/collect.ts";
import { createDeviceReader, type DeviceReader } from "../../agent/devices/inventory/device-reader.ts";
import { contentBytesMax } from "../../agent/devices/inventory/fit.ts";
import { systemClock } from "../../agent/host/clock.ts";
import { type Files, systemFiles } from "../../agent/host/files.ts";
import { systemProcesses } from "../../agent/host/processes.ts";
import type { CommandOf } from "../../protocol/commands.ts";
import { Inventory, InventoryUnchanged } from "../../protocol/inventory.ts";
import { limits } from "../../protocol/limits.ts";
import { checker } from "../../protocol/schema.ts";
import { makeTree } from "../support/fact-tree.ts";
import { type MachineFixture, readFixture, restoreMachine } from "../support/machine-fixture.ts";
import { machines } from "../support/machines.ts";
import { memoryMachine } from "../support/memory-files.ts";
import { textsOf } from "../support/texts.ts";

const check = checker(Inventory, "internal", "inventory");
const never = new AbortController().signal;
const disksOf = (files: Files) => (facts: Facts) =>
  listDisks({ facts, files, fileDisks: [], allows: () => false, protectedPaths: ["/"] });
const addresses = new Map([["eno1", ["fe80::e643:4bff:fe01:203/64", "192.0.2.17/24"]]]);

interface CollectFrom {
  readonly files?: Files;
  readonly root?: string;
  readonly devices?: DeviceReader;
  readonly slow?: boolean;
}

async function collect({
  files = systemFiles,
  root = "",
  devices = createDeviceReader(root),
  slow = false,
}: CollectFrom) {
  const collected = await collectInventory({
    facts: () => createFacts(files, root),
    listDisks: disksOf(files),
    devices,
    architecture: "x86_64",
    addresses,
    slow,
    clock: systemClock,
    signal: never,
  });
  check({ ...collected, collectMs: 0 });
  return collected;
}

/** Times differ, and sources are the same for all machines. */
function golden({ groups, ...collected }: Collected): string {
  const errors = Object.fromEntries(
    Object.entries(groups).flatMap(([group, report]) =>
      report.errors.length === 0 ? [] : [[group, report.errors]],
    ),
  );
  return `${JSON.stringify({ ...collected, errors }, undefined, 2)}\n`;
}

const captured = ["cloud-guest", "uefi-server-emulated"];

describe("the inventory is the golden one", () => {
  test.each([...captured, ...Object.keys(machines)])("of %s", async (name) => {
    const fixture = captured.includes(name) ? await readFixture(name) : machines[name]!();
    await using tree = await restoreMachine(fixture);
    const found = golden(await collect({ root: tree.root }));
    await expect(found).toMatchFileSnapshot(`../golden/inventory-${name}.json`);
    // From memory it is the same: what the tests below change is what is read here.
    const memory = memoryMachine(fixture);
    expect(golden(await collect({ files: memory.files, devices: memory.devices }))).toBe(found);
  });
});

describe("what was captured of an emulated server", async () => {
  const fixture = await readFixture("uefi-server-emulated");
  const { files, devices } = memoryMachine(fixture);
  const found = await collect({ files, devices, slow: true });

  test("says what QEMU was told", () => {
    expect(found.system).toMatchObject({
      uuid: "4c4c4544-0042-3510-8054-b7c04f4d3233",
      serial: "7B5T3M2",
      bootMode: "uefi",
      chassis: { asset: "asset-0042" },
    });
    expect(found.cpu).toMatchObject({ sockets: 2, cores: 4, threads: 8, numaNodes: 2 });
    expect(found.numa?.map(({ distances }) => distances)).toEqual([
      [10, 21],
      [21, 10],
    ]);
    expect(found.smbios).toMatchObject({
      memory: [{ serial: "03A1B2C3", part: "M393A4K40CB2-CTD", speedMts: 2666 }],
    });
    expect(found.bmc).toMatchObject({
      present: true,
      devices: ["/dev/ipmi0"],
      ipmi: { interface: "KCS", version: "2.0" },
    });
    expect(found.boot).toMatchObject({
      secureBoot: true,
      setupMode: false,
      bootInterface: "52:54:00:12:34:56",
    });
    expect(found.boot?.entries.map(({ path }) => path)).toContain(
      "PciRoot(0x0)/Pci(0x1f,0x2)/Sata(0x0,0xffff,0x0)",
    );
    expect(found.tpm).toMatchObject([{ version: "2.0" }]);
    expect(found.tpm?.[0]?.pcrs.sha256).toHaveLength(24);
  });

  test("shows its disks, what is on them, and what lies over them", () => {
    const disk = (path: string) => found.disks.find((each) => each.path === path)!;
    const system = disk("/dev/nvme0n1");
    expect(system.detail?.content).toMatchObject({
      table: {
        type: "gpt",
        sectorBytes: 512,
        uuid: "0a1b2c3d-4e5f-4061-8273-8495a6b7c8d9",
        primary: "good",
        backup: "good",
      },
      partitions: [
        {
          typeName: "EFI system",
          name: "EFI-System",
          signatures: [{ kind: "vfat", uuid: "1A2B-4C3D", label: "ESP" }],
        },
        {
          typeName: "Linux filesystem",
          signatures: [{ kind: "ext4", uuid: "6c8b2a1e-7f00-4c7e-9d2b-0a1b2c3d4e5f" }],
        },
        { typeName: "Linux swap", signatures: [{ kind: "swap", label: "swap0" }] },
      ],
    });
    expect(system.detail?.mounted).toContainEqual({
      device: "/dev/nvme0n1p1",
      mountPoint: "/mnt/root/boot/efi",
      type: "vfat",
      readOnly: false,
    });
    expect(disk("/dev/nvme1n1")).toMatchObject({ logicalSectorBytes: 4096, serial: "S3Z9NX0M500124" });
    const member = found.disks.find(({ serial }) => serial === "ZC1A2B3C")!;
    expect(member).toMatchObject({ transport: "sata", wwn: "0x5000c500a1b2c3d4", detail: { rpm: 7200 } });
    expect(member.detail?.content?.signatures).toMatchObject([
      { kind: "linux_raid_member", label: "rack12:0", version: "1.2" },
    ]);
    const { path, paths } = found.disks.find((each) => each.paths !== undefined)!;
    expect([path, paths?.length]).toEqual(["/dev/dm-1", 2]);
    expect(found.disks.filter((each) => paths?.includes(each.path))).toEqual([]);
    expect(found.layers).toMatchObject([
      {
        kind: "lvm",
        name: "vg--data-srv",
        slaves: ["/dev/md0"],
        mounts: ["/mnt/data"],
        signatures: [{ kind: "ext4", label: "srv" }],
      },
      { kind: "multipath", name: "mpatha" },
      {
        kind: "md",
        raid: { level: "raid1", devices: 2, degraded: 0 },
        signatures: [{ kind: "LVM2_member", label: "vg-data" }],
      },
    ]);
  });

  test("shows how its interfaces are joined", () => {
    const nic = (name: string) => found.nics.find((each) => each.name === name);
    expect(nic("bond0")).toMatchObject({
      kind: "bond",
      bond: { mode: "802.3ad", members: ["eth0", "eth1"] },
    });
    expect(nic("bond0.120")).toMatchObject({ kind: "vlan", vlan: { id: 120, over: "bond0" } });
    expect(nic("br0")).toMatchObject({ kind: "bridge", bridge: { ports: ["eth2"] } });
    // A bond's member has the bond's address: its own stands elsewhere.
    expect(nic("bond0")?.mac).toBe(nic("eth0")?.mac);
    expect(new Set(found.nics.flatMap(({ permanentMac }) => permanentMac ?? [])).size).toBe(3);
  });

  test("gives no password away", () => {
    expect(fixture.tree["proc/cmdline"]).toContain("rd.iscsi.password=hunter2");
    expect(found.kernel?.commandLine).toContain("rd.iscsi.password=[redacted]");
    expect(JSON.stringify(found)).not.toContain("hunter2");
  });
});

test("credentials in SMBIOS are not told", async () => {
  const { files, devices } = memoryMachine(machines["nvme-server"]!());
  const found = await collect({ files, devices });
  expect(found.smbios).toMatchObject({ memory: [{ sizeBytes: 65_536 * (1 << 20) }, {}, { sizeBytes: 0 }] });
  expect(JSON.stringify(found)).not.toContain("hashed-password");
});

describe("the content hash", async () => {
  const fixture = await readFixture("uefi-server-emulated");
  const hashOf = async (changes: MachineFixture["tree"]) => {
    const { files, devices } = memoryMachine({ ...fixture, tree: { ...fixture.tree, ...changes } });
    return (await collect({ files, devices })).contentHash;
  };
  const before = await hashOf({});
  test("is the same for the same host", async () => expect(await hashOf({})).toBe(before));
  test("does not hold what changes from moment to moment", async () => {
    const cpuinfo = (fixture.tree["proc/cpuinfo"] as string).replaceAll(
      /cpu MHz\t\t: \S+/g,
      "cpu MHz\t\t: 1234.000",
    );
    const meminfo = (fixture.tree["proc/meminfo"] as string).replace(/MemFree: .*/, "MemFree: 77 kB");
    expect(cpuinfo).not.toBe(fixture.tree["proc/cpuinfo"]);
    expect(await hashOf({ "proc/cpuinfo": cpuinfo, "proc/meminfo": meminfo })).toBe(before);
  });
  test("is another one when anything else is", async () => {
    expect(await hashOf({ "proc/cmdline": "quiet" })).not.toBe(before);
    expect(await hashOf({ "sys/devices/virtual/block/md0/md/degraded": "1" })).not.toBe(before);
  });
});

describe("the command", () => {
  const run = async (argument: CommandOf<"host.inventory">["arguments"]) => {
    const { files } = memoryMachine(machines["disks-4kn"]!());
    const context = {
      host: { clock: systemClock, files, processes: systemProcesses, facts: () => createFacts(files) },
      disks: disksOf(files),
    } as unknown as CommandContext;
    const command: CommandOf<"host.inventory"> = {
      id: "01938a5e-7f00-7c7e-9d2b-0a1b2c3d4e5f",
      host: "ab".repeat(32),
      kind: "host.inventory",
      mode: "apply",
      arguments: argument,
      limits: {},
    };
    return (await hostInventory.run(command, context, never)).output;
  };

  test("answers that nothing changed to whoever knows the hash, and sends all to others", async () => {
    const { contentHash } = check(await run({}));
    const unchanged = checker(
      InventoryUnchanged,
      "internal",
      "inventory",
    )(await run({ unless: contentHash }));
    expect(unchanged).toMatchObject({ unchanged: true, contentHash });
    expect(JSON.stringify(unchanged).length).toBeLessThan(400);
    expect(check(await run({ unless: "0".repeat(64) })).disks).toHaveLength(3);
  });

  test("asks programs only when told to, and reports each that is not there", async () => {
    expect(check(await run({})).tools).toBeUndefined();
    const { tools } = check(await run({ tools: true }));
    expect(tools?.map(({ tool }) => tool)).toEqual(["smartctl", "nvme", "lldpctl", "ethtool", "ipmitool"]);
    for (const { state, reason } of tools ?? []) {
      if (state === "missing" || state === "failed") expect(reason).not.toBeNull();
    }
  });
});

test("a machine that shows nothing gives an inventory that says what could not be read", async () => {
  await using tree = await makeTree({ "proc/x": "" });
  const found = await collect({ root: tree.root });
  expect(found).toMatchObject({
    disks: [],
    nics: [],
    memory: { totalBytes: 0 },
    system: { bootMode: "unknown", uuid: null },
    smbios: null,
    bmc: { present: false },
  });
  expect(found.unreadable).toEqual(
    expect.arrayContaining([
      "/proc/cpuinfo: ENOENT",
      "/proc/meminfo: ENOENT",
      "/proc/self/mountinfo: ENOENT",
      "/proc/sys/kernel/random/boot_id: ENOENT",
    ]),
  );
  expect(found.groups.memory?.errors).toEqual(["/proc/meminfo: ENOENT"]);
});

test("whatever the files hold, nothing throws, texts stay printable, and it fits a result", async () => {
  const fixture = await readFixture("uefi-server-emulated");
  const { paths } = memoryMachine(fixture);
  const devicePaths = Object.keys(fixture.devices);
  const content = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.string({ unit: "binary", maxLength: 300 }).map((text) => Buffer.from(text)),
    fc
      .constantFrom("", "-1", "18446744073709551615", "0x", "1e308", "\x1b[2J", "../../..", "0-99999999")
      .map((text) => Buffer.from(text)),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom(...paths), content), { minLength: 1, maxLength: 80 }),
      fc.array(fc.tuple(fc.constantFrom(...devicePaths), content), { maxLength: 4 }),
      async (changedFiles, changedDevices) => {
        const { files, devices } = memoryMachine(fixture, new Map([...changedFiles, ...changedDevices]));
        expectHarmless(await collect({ files, devices, slow: true }));
      },
    ),
    { numRuns: 60 },
  );
}, 60_000);

test("whatever all files hold at once, the same", async () => {
  const fixture = await readFixture("uefi-server-emulated");
  const { paths } = memoryMachine(fixture);
  await fc.assert(
    fc.asyncProperty(
      fc.string({ unit: "binary", minLength: 1, maxLength: 40 }),
      fc.constantFrom("", "2\n", "0-7\n", "1 "),
      async (noise, head) => {
        const { files, devices } = memoryMachine(
          fixture,
          new Map(paths.map((path) => [path, Buffer.from(`${head}${noise}\n${noise}`)])),
        );
        expectHarmless(await collect({ files, devices, slow: true }));
      },
    ),
    { numRuns: 40 },
  );
}, 60_000);

function expectHarmless(found: Collected): void {
  const unprintable = textsOf(found).filter((text) => /[\p{Cc}\u202a-\u202e\u2066-\u2069]/u.test(text));
  const faults = Object.values(found.groups).flatMap(({ errors }) =>
    errors.filter((error) => error.includes("could not be collected")),
  );
  expect({ unprintable, faults }).toEqual({ unprintable: [], faults: [] });
  expect(JSON.stringify(found).length).toBeLessThan(limits.resultBytesMax);
}

/** A machine of 256 threads, 300 PCI devices and 60 disks. */
async function largeMachine(): Promise<MachineFixture> {
  const { tree, devices } = await readFixture("uefi-server-emulated");
  const large: Record<string, string | readonly string[]> = {
    ...tree,
    "sys/devices/system/cpu/online": "0-255",
  };
  const copy = (from: string, to: string) => {
    for (const [path, content] of Object.entries(tree))
      if (path.startsWith(from)) large[path.replace(from, to)] = content;
  };
  for (let cpu = 8; cpu < 256; cpu++) {
    copy("sys/devices/system/cpu/cpu0/", `sys/devices/system/cpu/cpu${cpu}/`);
    for (let index = 0; index < 3; index++)
      large[`sys/devices/system/cpu/cpu${cpu}/cache/index${index}/shared_cpu_list`] =
        `${cpu & ~1}-${cpu | 1}`;
    large[`sys/devices/system/cpu/cpu${cpu}/cache/index3/shared_cpu_list`] = "8-255";
  }
  for (let slot = 1; slot < 280; slot++) {
    const address = `0001:${slot.toString(16).padStart(2, "0").slice(-2)}:00.${slot >> 8}`;
    large[`sys/bus/pci/devices/${address}`] = `-> ../../../devices/pci0001:00/${address}`;
    copy("sys/devices/pci0000:00/0000:00:1f.0/", `sys/devices/pci0001:00/${address}/`);
  }
  const disks: Record<string, MachineFixture["devices"][string]> = { ...devices };
  for (let index = 0; index < 60; index++) {
    const name = `nvme${index + 10}n1`;
    large[`sys/block/${name}`] = `-> ../devices/pci0002:00/nvme/nvme${index + 10}/${name}`;
    large[`sys/class/block/${name}`] = `-> ../../devices/pci0002:00/nvme/nvme${index + 10}/${name}`;
    copy(
      "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/nvme/nvme0/nvme0n1/",
      `sys/devices/pci0002:00/nvme/nvme${index + 10}/${name}/`,
    );
    disks[`/dev/${name}`] = devices["/dev/nvme0n1"]!;
  }
  return { tree: large, devices: disks };
}

test("a large machine takes a bounded number of files, and fits a result", async () => {
  const { files, devices } = memoryMachine(await largeMachine());
  let operations = 0;
  const counted = Object.fromEntries(
    Object.entries(files).map(([name, method]) => [
      name,
      (...args: never[]) => {
        operations++;
        return (method as (...args: never[]) => unknown)(...args);
      },
    ]),
  ) as unknown as Files;
  const found = await collect({ files: counted, devices });
  expect(found.cpu.threads).toBe(256);
  expect(found.pci.length).toBeGreaterThan(290);
  expect(found.disks.length).toBeGreaterThan(60);
  expect(found.cpu.caches).toContainEqual(expect.objectContaining({ level: 2, count: 128 }));
  // At 10 µs each these are well within 150 ms.
  expect(operations).toBeLessThan(12_000);
  expect(JSON.stringify(found).length).toBeLessThan(contentBytesMax + 64 * 1024);
}, 30_000);

test("this machine's own, live, agrees with what node knows", async () => {
  const found = await collect({});
  expect(found.system.bootId).toBe((await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim());
  const known = Object.keys(networkInterfaces()).filter((name) => name !== "lo" && !name.includes(":"));
  expect(found.nics.map(({ name }) => name)).toEqual(expect.arrayContaining(known));
  for (const disk of found.disks) expect(disk.sizeBytes % disk.logicalSectorBytes).toBe(0);
});
