// Optional programs of the inventory: what is taken of their output, and what is reported when they are missing, fail or hang.
import { describe, expect, test } from "vitest";
import { createPatience } from "../../agent/devices/inventory/device-reader.ts";
import { askBmcLan, parseLan } from "../../agent/devices/inventory/tools/bmc-lan.ts";
import {
  parseNvmeLog,
  parseSmartctl,
  readDiskHealth,
} from "../../agent/devices/inventory/tools/disk-health.ts";
import {
  askNetwork,
  parseFirmware,
  parseLldp,
  parsePermanent,
} from "../../agent/devices/inventory/tools/network.ts";
import { createTool } from "../../agent/devices/inventory/tools/tool.ts";
import { type Clock, systemClock } from "../../agent/host/clock.ts";
import { type ProcessEnd, type Processes, systemProcesses } from "../../agent/host/processes.ts";
import type { InventoryDisk, Nic } from "../../protocol/inventory-devices.ts";

const never = new AbortController().signal;

/** Programs by name: what each prints to which arguments. */
function fakeProcesses(
  programs: Record<string, (argv: readonly string[]) => Partial<ProcessEnd> | "missing" | Error>,
): {
  processes: Processes;
  asked: string[];
} {
  const asked: string[] = [];
  const processes: Processes = {
    ...systemProcesses,
    async run([program, ...rest]) {
      asked.push([program, ...rest].join(" "));
      const end = programs[program]?.(rest) ?? "missing";
      if (end instanceof Error) throw end;
      return end === "missing" ? end : { exitCode: 0, output: "", errors: "", ...end };
    },
  };
  return { processes, asked };
}

const tool = (name: string, processes: Processes, clock: Clock = systemClock) =>
  createTool(name, { processes, clock, signal: never });

describe("a program", () => {
  test("that is not installed is asked once, and reported", async () => {
    const { processes, asked } = fakeProcesses({});
    const absent = tool("lldpctl", processes);
    expect([await absent.ask(["-f", "json"]), await absent.ask(["-f", "json"])]).toEqual([null, null]);
    expect(asked).toHaveLength(1);
    expect(absent.report()).toMatchObject({
      tool: "lldpctl",
      state: "missing",
      reason: "lldpctl is not installed",
    });
  });
  test("that fails says why, in one printable line", async () => {
    const { processes } = fakeProcesses({
      nvme: () => ({ exitCode: 1, errors: "no\x1b[31m such\ndevice\n" }),
    });
    const failing = tool("nvme", processes);
    expect(await failing.ask(["smart-log"])).toBeNull();
    expect(failing.report()).toMatchObject({ state: "failed", reason: "exit code 1: no [31m such device" });
  });
  test("that was not needed says so", () => {
    expect(tool("ipmitool", fakeProcesses({}).processes).report()).toMatchObject({
      state: "not-needed",
      reason: null,
      ms: 0,
    });
  });
  test("that hangs is ended by its time limit", async () => {
    const soon: Clock = {
      ...systemClock,
      deadline: (_, signal, reason) => systemClock.deadline(30, signal, reason),
    };
    const hanging = tool("sleep", systemProcesses, soon);
    expect(await hanging.ask(["5"])).toBeNull();
    expect(hanging.report()).toMatchObject({ state: "failed", reason: "sleep did not end within 10 s" });
  });
});

/** Of smartmontools 7.3, shortened. */
const smartctlAta = JSON.stringify({
  smartctl: { version: [7, 3], exit_status: 0 },
  smart_status: { passed: true },
  ata_smart_attributes: {
    table: [
      { id: 1, raw: { value: 7 } },
      { id: 5, name: "Reallocated_Sector_Ct", raw: { value: 16, string: "16" } },
    ],
  },
  power_on_time: { hours: 12_345 },
  temperature: { current: 34 },
});
const smartctlNvme = JSON.stringify({
  smartctl: { exit_status: 0 },
  smart_status: { passed: false },
  nvme_smart_health_information_log: { percentage_used: 103, media_errors: 2 },
  temperature: { current: 41 },
});
/** Of nvme-cli 2.3. */
const nvmeLog = JSON.stringify({
  critical_warning: 0,
  temperature: 313,
  percent_used: 4,
  power_on_hours: 900,
  media_errors: 0,
});

describe("health", () => {
  test("of an ATA disk, of an NVMe disk, of anything else", () => {
    expect(parseSmartctl(smartctlAta)).toEqual({
      passed: true,
      celsius: 34,
      powerOnHours: 12_345,
      wearPercent: null,
      mediaErrors: null,
      reallocatedSectors: 16,
      error: null,
    });
    expect(parseSmartctl(smartctlNvme)).toMatchObject({ passed: false, wearPercent: 103, mediaErrors: 2 });
    expect(parseNvmeLog(nvmeLog)).toMatchObject({ passed: true, celsius: 40, wearPercent: 4 });
    for (const text of ["", "{", "[]", "null", '{"smartctl":null}', '"x"', null]) {
      expect(parseNvmeLog(text)).toBeNull();
      parseSmartctl(text);
    }
  });

  test("is asked of disks only, by nvme where smartctl is missing", async () => {
    const { processes, asked } = fakeProcesses({ nvme: () => ({ output: nvmeLog }) });
    const disk = (changes: object) =>
      ({ path: "/dev/x", serial: "S", type: "ssd", transport: null, ...changes }) as unknown as InventoryDisk;
    const found = await readDiskHealth(
      [
        disk({ path: "/dev/nvme0n1", transport: "nvme", type: "nvme" }),
        disk({ path: "/dev/sda", transport: "sata" }),
        disk({ type: "loop" }),
      ],
      { smartctl: tool("smartctl", processes), nvme: tool("nvme", processes) },
    );
    expect(found).toMatchObject([{ path: "/dev/nvme0n1", tool: "nvme", celsius: 40 }]);
    expect(asked.filter((line) => line.startsWith("nvme"))).toEqual([
      "nvme smart-log --output-format=json /dev/nvme0n1",
    ]);
    expect(asked).toHaveLength(2);
  });
});

/** Of lldpd 1.0.16: one interface. */
const lldp = {
  lldp: {
    interface: {
      eno1: {
        via: "LLDP",
        age: "0 day, 00:01:02",
        chassis: {
          "leaf-1": {
            id: { type: "mac", value: "00:11:22:33:44:55" },
            descr: "x",
            "mgmt-ip": ["192.0.2.1", "2001:db8::1"],
          },
        },
        port: { id: { type: "ifname", value: "Ethernet7" }, descr: "to rack12-u07", ttl: "120" },
        vlan: { "vlan-id": "120", pvid: true, value: "servers" },
      },
    },
  },
};

describe("the network", () => {
  test("neighbours: one interface, several, a chassis without a name, garbage", () => {
    expect(parseLldp(JSON.stringify(lldp)).get("eno1")).toEqual([
      {
        chassis: "00:11:22:33:44:55",
        system: "leaf-1",
        port: "Ethernet7",
        portDescription: "to rack12-u07",
        vlans: [120],
        management: ["192.0.2.1", "2001:db8::1"],
      },
    ]);
    const several = {
      lldp: {
        interface: [
          { eno1: {} },
          { eno2: { chassis: { id: { value: "a" } }, vlan: [{ "vlan-id": "1" }, { "vlan-id": "x" }] } },
        ],
      },
    };
    expect(parseLldp(JSON.stringify(several)).get("eno2")).toMatchObject([
      { chassis: "a", system: null, vlans: [1] },
    ]);
    for (const text of ["", "{}", '{"lldp":{"interface":[1,null,"x",{"eno1":null}]}}']) parseLldp(text);
  });

  test("firmware and permanent address", async () => {
    expect(
      parseFirmware("driver: i40e\nversion: 6.1\nfirmware-version: 8.30 0x8000a4ae 20.5.13\nbus-info: x\n"),
    ).toBe("8.30 0x8000a4ae 20.5.13");
    expect(parseFirmware("firmware-version: \n")).toBeNull();
    expect(parsePermanent("Permanent address: E4:43:4B:01:02:03\n")).toBe("e4:43:4b:01:02:03");
    expect(parsePermanent("Permanent address: not set\n")).toBeNull();
    const { processes, asked } = fakeProcesses({
      ethtool: ([flag]) => ({
        output: flag === "-i" ? "firmware-version: 8.30\n" : "Permanent address: e4:43:4b:01:02:03\n",
      }),
    });
    const nic = { name: "eno1", kind: "physical", pciAddress: null, permanentMac: null } as unknown as Nic;
    const bond = { name: "bond0", kind: "bond", pciAddress: null, permanentMac: null } as unknown as Nic;
    const [found, joined] = await askNetwork([nic, bond], {
      lldpctl: tool("lldpctl", processes),
      ethtool: tool("ethtool", processes),
    });
    expect(found).toMatchObject({
      firmware: "8.30",
      permanentMac: "e4:43:4b:01:02:03",
      from: { firmware: "ethtool", permanentMac: "ethtool" },
    });
    expect(joined?.permanentMac).toBeNull();
    expect(asked).toEqual(["lldpctl -f json", "ethtool -i eno1", "ethtool -P eno1"]);
  });

  test("the BMC's addresses, and nothing else that ipmitool prints", async () => {
    const text =
      "Set in Progress         : Set Complete\nIP Address Source       : DHCP Address\nIP Address              : 192.0.2.9\nSubnet Mask             : 255.255.255.0\nMAC Address             : e4:43:4b:0a:0b:0c\nSNMP Community String   : hunter2\nDefault Gateway IP      : 192.0.2.1\n802.1q VLAN ID          : Disabled\n";
    const lan = parseLan(text);
    expect(lan).toEqual({
      address: "192.0.2.9",
      source: "DHCP Address",
      mask: "255.255.255.0",
      mac: "e4:43:4b:0a:0b:0c",
      gateway: "192.0.2.1",
      vlan: null,
    });
    expect(JSON.stringify(lan)).not.toContain("hunter2");
    expect(parseLan("")).toBeNull();
    const { processes, asked } = fakeProcesses({ ipmitool: () => ({ output: text }) });
    const bmc = { present: true, devices: [], lan: null } as never;
    await askBmcLan(bmc, tool("ipmitool", processes));
    expect(asked).toEqual([]);
  });
});

describe("devices that do not answer", () => {
  test("are given up, and after two of them no further one is tried", async () => {
    const patience = createPatience(systemClock, 20, never);
    const hang = () => new Promise<never>(() => {});
    await expect(patience.within("/dev/a", hang)).rejects.toThrow("/dev/a did not answer within 20 ms");
    expect(await patience.within("/dev/b", async () => 7)).toBe(7);
    await expect(patience.within("/dev/c", hang)).rejects.toThrow("did not answer");
    await expect(patience.within("/dev/d", async () => 7)).rejects.toThrow(
      "not read: 2 devices before it did not answer",
    );
  });
  test("an error of one that answers does not count", async () => {
    const patience = createPatience(systemClock, 1000, never);
    for (let count = 0; count < 4; count++)
      await expect(
        patience.within("/dev/a", async () => {
          throw new Error("EIO");
        }),
      ).rejects.toThrow("EIO");
  });
});
