// Inventory of the network interfaces, from /sys/class/net.
import type { Inventory } from "../../protocol/inventory.ts";
import type { Facts } from "./facts.ts";

/** Addresses of each interface, `192.0.2.1/24`; the kernel gives them by netlink, node by os.networkInterfaces(). */
export type Addresses = ReadonlyMap<string, readonly string[]>;

export function readNics(facts: Facts, addresses: Addresses): Inventory["nics"] {
  return facts
    .list("/sys/class/net")
    .filter((name) => name !== "lo" && facts.exists(`/sys/class/net/${name}/type`))
    .map((name) => {
      const at = `/sys/class/net/${name}`;
      const device = facts.realPath(`${at}/device`)?.split("/").at(-1) ?? "";
      const speed = facts.optionalNumber(`${at}/speed`);
      return {
        name,
        mac: macOf(facts.optionalText(`${at}/address`)),
        driver: facts.link(`${at}/device/driver`)?.split("/").at(-1) ?? null,
        mtu: facts.optionalNumber(`${at}/mtu`),
        up: facts.optionalText(`${at}/operstate`) === "up",
        carrier: facts.optionalNumber(`${at}/carrier`) === 1,
        // -1 is the kernel's word for not known.
        speedMbps: speed === null || speed < 0 ? null : speed,
        duplex: knownDuplex(facts.optionalText(`${at}/duplex`)),
        pciAddress: /^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/.test(device) ? device : null,
        addresses: [...(addresses.get(name) ?? [])].sort(),
      };
    });
}

function macOf(text: string | null): string | null {
  const mac = text?.toLowerCase() ?? "";
  return /^([0-9a-f]{2}:)+[0-9a-f]{2}$/.test(mac) && !/^(00:)+00$/.test(mac) ? mac : null;
}

function knownDuplex(text: string | null): string | null {
  return text === "full" || text === "half" ? text : null;
}
