// The BMC's own network, by ipmitool: addresses only. What else it prints (communities, users) is not kept.
import type { Bmc } from "../../../../protocol/inventory-machine.ts";
import { cleanLine } from "../../facts.ts";
import { macOf } from "../nics.ts";
import type { Tool } from "./tool.ts";

const channel = "1";

export async function askBmcLan(bmc: Bmc, ipmitool: Tool): Promise<Bmc> {
  if (bmc.devices.length === 0) return bmc;
  return { ...bmc, lan: parseLan(await ipmitool.ask(["lan", "print", channel])) };
}

/** `IP Address              : 192.0.2.9`. Null when nothing of it is there. */
export function parseLan(text: string | null): Bmc["lan"] {
  const value = (name: string) => {
    const found = cleanLine(new RegExp(`^${name}\\s*:(.*)$`, "m").exec(text ?? "")?.[1] ?? "", 64);
    return found === "" || found === "0.0.0.0" || found === "Disabled" ? null : found;
  };
  const lan = {
    address: value("IP Address"),
    source: value("IP Address Source"),
    mask: value("Subnet Mask"),
    mac: macOf(value("MAC Address")),
    gateway: value("Default Gateway IP"),
    vlan: value("802.1q VLAN ID"),
  };
  return Object.values(lan).every((each) => each === null) ? null : lan;
}
