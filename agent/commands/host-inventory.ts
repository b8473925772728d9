// host.inventory: what the machine is made of; or that it is what it was, when that is asked.
import { machine, networkInterfaces } from "node:os";
import type { Inventory, InventoryUnchanged } from "../../protocol/inventory.ts";
import { collectInventory, rounded } from "../devices/inventory/collect.ts";
import { createDeviceReader } from "../devices/inventory/device-reader.ts";
import type { Addresses } from "../devices/inventory/source.ts";
import { askTools } from "../devices/inventory/tools/index.ts";
import type { Command } from "./command.ts";

export const hostInventory: Command<"host.inventory"> = {
  async run({ arguments: { tools = false, unless } }, context, signal) {
    const { clock, facts, processes } = context.host;
    const started = clock.monotonic();
    const collected = await collectInventory({
      facts,
      listDisks: context.disks,
      devices: createDeviceReader(),
      architecture: machine(),
      addresses: addressesNow(),
      slow: tools,
      clock,
      signal,
    });
    const collectMs = () => rounded(clock.monotonic() - started);
    const inventory: Omit<Inventory, "collectMs"> = tools
      ? await askTools(collected, { processes, clock, signal })
      : collected;
    if (inventory.contentHash === unless) {
      const { contentHash, moment } = { ...inventory, moment: inventory.moment ?? collected.moment };
      return {
        output: { unchanged: true, contentHash, collectMs: collectMs(), moment } satisfies InventoryUnchanged,
      };
    }
    return { output: { ...inventory, collectMs: collectMs() } satisfies Inventory };
  },
};

function addressesNow(): Addresses {
  const entries = Object.entries(networkInterfaces());
  return new Map(
    entries.map(([name, list]) => [name, (list ?? []).map(({ address, cidr }) => cidr ?? address)]),
  );
}
