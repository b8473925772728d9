// Optional programs: each adds to the inventory where it is installed, and is reported where it is not.
import type { Inventory } from "../../../../protocol/inventory.ts";
import { type Collected, sealed } from "../collect.ts";
import { askBmcLan } from "./bmc-lan.ts";
import { readDiskHealth } from "./disk-health.ts";
import { askNetwork } from "./network.ts";
import { createTool, type ToolHost } from "./tool.ts";

/** Never throws but for the signal. The content hash is made anew: the same machine with its tools has another. */
export async function askTools(collected: Collected, host: ToolHost): Promise<Omit<Inventory, "collectMs">> {
  const tools = {
    smartctl: createTool("smartctl", host),
    nvme: createTool("nvme", host),
    lldpctl: createTool("lldpctl", host),
    ethtool: createTool("ethtool", host),
    ipmitool: createTool("ipmitool", host),
  };
  // One after the other: five programs at once would disturb what runs here.
  const diskHealth = await readDiskHealth(collected.disks, tools);
  const nics = await askNetwork(collected.nics, tools);
  const bmc = await askBmcLan(collected.bmc, tools.ipmitool);
  const { contentHash: _, moment, groups, ...content } = collected;
  return {
    ...sealed({ ...content, nics, bmc }, groups, { ...moment, diskHealth }),
    tools: Object.values(tools).map((tool) => tool.report()),
  };
}
