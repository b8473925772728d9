// The baseboard management controller: whether there is one, and how to reach it. Its users and keys are never read.
import type { Bmc } from "../../../protocol/inventory-machine.ts";
import { all, ipmiOf } from "./smbios/decode.ts";
import { redfishInterfaces } from "./smbios/redfish.ts";
import { lineOf, type Source } from "./source.ts";

const at = "/sys/class/ipmi";

export const bmc: Source<Bmc> = {
  sources: [
    "/dev/ipmi*",
    `${at}/ipmi*`,
    "/sys/firmware/dmi/tables/DMI types 38, 42",
    `${at}/ipmi0/device/bmc/*`,
  ],
  collect({ facts, smbios, slow }) {
    const names = facts
      .list(at)
      .filter((name) => /^ipmi\d+$/.test(name))
      .slice(0, 8);
    const devices = names.map((name) => `/dev/${name}`).filter((path) => facts.exists(path));
    const ipmi = ipmiOf(smbios);
    const redfish = all(smbios, 42).flatMap(redfishInterfaces).slice(0, 16);
    // The kernel asks the controller itself, which may take its time.
    const ask = (name: string) =>
      slow && names[0] !== undefined ? lineOf(facts, `${at}/${names[0]}/device/bmc/${name}`) : null;
    return {
      present: names.length > 0 || ipmi !== null || redfish.length > 0,
      devices,
      ipmi,
      firmware: ask("firmware_revision"),
      manufacturerId: ask("manufacturer_id"),
      productId: ask("product_id"),
      guid: ask("guid")?.toLowerCase() ?? null,
      redfish,
      lan: null,
    };
  },
  absent: {
    present: false,
    devices: [],
    ipmi: null,
    firmware: null,
    manufacturerId: null,
    productId: null,
    guid: null,
    redfish: [],
    lan: null,
  },
};
