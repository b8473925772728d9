// host.inventory: what the machine is made of.
import { createHash } from "node:crypto";
import { machine, networkInterfaces } from "node:os";
import type { Inventory } from "../../protocol/inventory.ts";
import { readCpu } from "../devices/cpu.ts";
import type { DiskListing } from "../devices/disks.ts";
import type { Facts } from "../devices/facts.ts";
import { readMemory } from "../devices/memory.ts";
import { type Addresses, readNics } from "../devices/nics.ts";
import { readSystem } from "../devices/system.ts";
import type { Command } from "./command.ts";

export const hostInventory: Command<"host.inventory"> = {
  async run(_command, context) {
    const { host } = context;
    const started = host.clock.monotonic();
    const content = collectInventory(host.facts(), {
      disks: context.disks,
      architecture: machine(),
      addresses: addressesNow(),
    });
    return { output: { ...content, collectMs: host.clock.monotonic() - started } satisfies Inventory };
  },
};

export interface InventorySources {
  readonly disks: (facts: Facts) => DiskListing;
  readonly architecture: string;
  readonly addresses: Addresses;
}

/** All but how long it took. */
export function collectInventory(
  facts: Facts,
  { disks, architecture, addresses }: InventorySources,
): Omit<Inventory, "collectMs"> {
  const content = {
    system: readSystem(facts, architecture),
    cpu: readCpu(facts),
    memory: readMemory(facts),
    disks: disks(facts).disks.map(({ disk }) => disk),
    nics: readNics(facts, addresses),
    unreadable: [...facts.unreadable()],
  };
  // Members stand in a fixed order, so the same host gives the same text.
  return { ...content, contentHash: createHash("sha256").update(JSON.stringify(content)).digest("hex") };
}

function addressesNow(): Addresses {
  const entries = Object.entries(networkInterfaces());
  return new Map(
    entries.map(([name, list]) => [name, (list ?? []).map(({ address, cidr }) => cidr ?? address)]),
  );
}
