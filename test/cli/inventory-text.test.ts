// The inventory as people read it, over the golden ones; and which of a host's commands has the newest.
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { inventoryText } from "../../cli/inventory-text.ts";
import { newestInventory } from "../../cli/newest-inventory.ts";
import type { CommandView } from "../../protocol/api.ts";
import { Inventory } from "../../protocol/inventory.ts";
import { checker } from "../../protocol/schema.ts";

const check = checker(Inventory, "internal", "inventory");
const golden = (name: string): Inventory => {
  const file = new URL(`../golden/inventory-${name}.json`, import.meta.url);
  const { errors: _, ...inventory } = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  return check({ ...inventory, collectMs: 1 });
};

test.each([
  "uefi-server-emulated",
  "nvme-server",
  "san-host",
  "sata-raid",
  "disks-4kn",
  "cloud-guest",
  "garbage",
])("%s as text", async (name) => {
  const text = `${inventoryText(golden(name))}\n`;
  await expect(text).toMatchFileSnapshot(`../golden/inventory-${name}.txt`);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach a terminal
  expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f]/);
});

test("an inventory of an agent that tells less is shown too", () => {
  const { system, cpu, memory, disks, nics, unreadable, contentHash } = golden("cloud-guest");
  const old = check({
    system: { ...system, bios: undefined, chassis: undefined },
    cpu: { ...cpu, caches: undefined, vulnerabilities: undefined },
    memory,
    disks: disks.map(({ detail: _, ...disk }) => disk),
    nics,
    unreadable,
    contentHash,
    collectMs: 3,
  });
  expect(inventoryText(old)).toContain("/dev/vda  256 GiB");
});

test("what programs said of disks, and which were not there", () => {
  const inventory = golden("disks-4kn");
  const text = inventoryText({
    ...inventory,
    moment: {
      ...inventory.moment!,
      diskHealth: [
        {
          path: "/dev/sda",
          serial: "ZTM00000",
          tool: "smartctl",
          passed: false,
          celsius: 41,
          powerOnHours: 9000,
          wearPercent: null,
          mediaErrors: null,
          reallocatedSectors: 16,
          error: null,
        },
      ],
    },
    tools: [
      { tool: "smartctl", state: "used", reason: null, ms: 20 },
      { tool: "lldpctl", state: "missing", reason: "lldpctl is not installed", ms: 1 },
      { tool: "ipmitool", state: "not-needed", reason: null, ms: 0 },
    ],
  });
  expect(text).toMatch(/\/dev\/sda +FAILING +41 °C +9000 h +- +- +16 +smartctl/);
  expect(text).toContain("programs asked: smartctl, lldpctl (lldpctl is not installed)");
});

describe("the newest inventory", () => {
  const inventory = golden("disks-4kn");
  const { contentHash } = inventory;
  const moment = {
    currentMhz: { lowest: 7, highest: 8 },
    temperatures: [],
    memoryErrors: [],
    diskHealth: [],
  };
  const view = (endedAt: number, output: unknown, kind = "host.inventory") =>
    ({
      kind,
      state: "succeeded",
      result: { outcome: "succeeded", startedAt: 0, endedAt, output },
    }) as unknown as CommandView;
  const unchanged = { unchanged: true, contentHash, collectMs: 1, moment };

  test("is the first that was sent whole", () => {
    expect(newestInventory([])).toBeNull();
    expect(
      newestInventory([view(9, {}, "host.reboot"), view(5, inventory), view(3, golden("san-host"))]),
    ).toMatchObject({
      takenAt: 5,
      inventory: { contentHash },
    });
  });

  test("was confirmed by later ones that found it unchanged", () => {
    const found = newestInventory([view(9, unchanged), view(7, unchanged), view(5, inventory)]);
    expect(found).toMatchObject({ takenAt: 9, inventory: { contentHash, moment } });
  });

  test("is not confirmed by what was said of another one, nor by what is none", () => {
    const other = { ...unchanged, contentHash: "0".repeat(64) };
    expect(newestInventory([view(9, other), view(8, "?"), view(5, inventory)])).toMatchObject({ takenAt: 5 });
    expect(newestInventory([view(9, unchanged)])).toBeNull();
  });
});
