// Everything on the PCI buses: ids from configuration space or uevent, driver, place, link, virtual functions.
import type { PciDevice } from "../../../protocol/inventory-devices.ts";
import { cleanLine, type Facts } from "../facts.ts";
import { type IdNames, readIdNames } from "./ids.ts";
import { parsePciConfig } from "./pci-config.ts";
import { bounded, countOf, lineOf, linkName, pciAddressIn, type Source } from "./source.ts";
import { parseVpd } from "./vpd.ts";

const at = "/sys/bus/pci/devices";
const devicesMax = 1024;
/** Ids, and the capabilities of a link; all of 4 KiB takes a millisecond a device, and more where a hypervisor emulates it. */
const headerBytes = 256;
const configBytes = 4096;
const vpdBytes = 32 * 1024;
/** Some devices give their product data one word a millisecond. */
const vpdBudgetMs = 2000;

export const pci: Source<PciDevice[]> = {
  sources: [
    `${at}/*/{config,uevent,revision,numa_node,sriov_totalvfs,sriov_numvfs,current_link_*,max_link_*,vpd}`,
    `${at}/*/{driver,iommu_group,physfn}`,
    "/sys/bus/pci/slots/*/address",
    "/usr/share/{misc,hwdata}/pci.ids",
  ],
  collect({ facts, note, slow, clock }) {
    const names = readIdNames(facts, "pci.ids");
    const slots = slotsByDevice(facts);
    const addresses = facts.list(at).filter((name) => pciAddressIn(name) !== null);
    const deadlineMs = clock.monotonic() + vpdBudgetMs;
    return bounded(addresses, devicesMax, "PCI devices", note).map((address) => {
      const device = readDevice(facts, address, names, slow);
      if (device.vendorId === null) note(`${at}/${address}: does not say what it is`);
      const slot = slots.get(address.replace(/\.[0-7]$/, "")) ?? null;
      if (!slow || !facts.exists(`${at}/${address}/vpd`)) return { ...device, slot };
      if (clock.monotonic() > deadlineMs) {
        note(`${at}/${address}/vpd: not read; those before took ${vpdBudgetMs} ms`);
        return { ...device, slot };
      }
      const bytes = facts.optionalBytes(`${at}/${address}/vpd`, vpdBytes);
      return bytes === null ? { ...device, slot } : { ...device, slot, vpd: parseVpd(bytes) };
    });
  },
  absent: [],
};

function readDevice(facts: Facts, address: string, names: IdNames, slow: boolean): PciDevice {
  const device = `${at}/${address}`;
  const uevent = parseUevent(facts.optionalText(`${device}/uevent`) ?? "");
  const configuration = facts.optionalBytes(`${device}/config`, slow ? configBytes : headerBytes);
  const config = configuration === null ? null : parsePciConfig(configuration);
  const [vendorId, deviceId] = idPair(uevent.get("PCI_ID"));
  const [subsystemVendorId, subsystemId] = idPair(uevent.get("PCI_SUBSYS_ID"));
  const ids = {
    vendorId: config?.vendorId ?? vendorId,
    deviceId: config?.deviceId ?? deviceId,
    ...subsystemOf(config?.subsystemVendorId ?? subsystemVendorId, config?.subsystemId ?? subsystemId),
  };
  return {
    address,
    ...ids,
    class: config?.class ?? classOf(uevent.get("PCI_CLASS")),
    revision: config?.revision ?? lineOf(facts, `${device}/revision`, 16)?.replace(/^0x/, "") ?? null,
    vendor: names.vendor(ids.vendorId),
    device: names.device(ids.vendorId, ids.deviceId),
    driver: cleanLine(uevent.get("DRIVER") ?? linkName(facts, `${device}/driver`) ?? "", 64) || null,
    numaNode: countOf(facts, `${device}/numa_node`),
    iommuGroup: groupOf(linkName(facts, `${device}/iommu_group`)),
    link: config?.link ?? linkOf(facts, device, "current"),
    linkMax: config?.linkMax ?? linkOf(facts, device, "max"),
    slot: null,
    virtualFunctions: virtualFunctionsOf(facts, device),
    physicalFunction: pciAddressIn(linkName(facts, `${device}/physfn`)),
    serial: config?.serial ?? null,
  };
}

/** `KEY=VALUE` lines. */
export function parseUevent(text: string): ReadonlyMap<string, string> {
  return new Map(
    text.split("\n").flatMap((line) => {
      const match = /^([A-Z0-9_]+)=(.+)$/.exec(line);
      return match === null ? [] : [[match[1]!, match[2]!] as const];
    }),
  );
}

export function virtualFunctionsOf(facts: Facts, device: string): PciDevice["virtualFunctions"] {
  const total = countOf(facts, `${device}/sriov_totalvfs`);
  return total === null || total === 0
    ? null
    : { total, enabled: countOf(facts, `${device}/sriov_numvfs`) ?? 0 };
}

/** `8086:1583` in either case. */
function idPair(text: string | undefined): readonly [string | null, string | null] {
  const match = /^([0-9A-F]{1,4}):([0-9A-F]{1,4})$/i.exec(text ?? "");
  if (match === null) return [null, null];
  return [match[1]!.toLowerCase().padStart(4, "0"), match[2]!.toLowerCase().padStart(4, "0")];
}

/** No maker has the number 0: then there is none. */
function subsystemOf(
  subsystemVendorId: string | null,
  subsystemId: string | null,
): Pick<PciDevice, "subsystemVendorId" | "subsystemId"> {
  return subsystemVendorId === "0000"
    ? { subsystemVendorId: null, subsystemId: null }
    : { subsystemVendorId, subsystemId };
}

/** uevent leaves out leading zeroes: `10802`. */
function classOf(text: string | undefined): string | null {
  return /^[0-9a-f]{1,6}$/i.test(text ?? "") ? text!.toLowerCase().padStart(6, "0") : null;
}

function groupOf(name: string | null): number | null {
  return name !== null && /^\d{1,9}$/.test(name) ? Number(name) : null;
}

/** Where configuration space was not readable past its header: `8.0 GT/s PCIe` and `4`. */
function linkOf(facts: Facts, device: string, which: "current" | "max"): string | null {
  const speed = /^(\d+)(?:\.(\d))? GT\/s/.exec(lineOf(facts, `${device}/${which}_link_speed`) ?? "");
  const width = countOf(facts, `${device}/${which}_link_width`);
  if (speed === null || width === null || width === 0) return null;
  return `${speed[1]}${speed[2] === undefined || speed[2] === "0" ? "" : `.${speed[2]}`} GT/s x${width}`;
}

/** Physical slots by the devices in them: `0000:18:00`. */
function slotsByDevice(facts: Facts): ReadonlyMap<string, string> {
  const slots = facts.list("/sys/bus/pci/slots").slice(0, 256);
  return new Map(
    slots.flatMap((slot) => {
      const address = lineOf(facts, `/sys/bus/pci/slots/${slot}/address`);
      return address === null ? [] : [[address, slot.slice(0, 64)] as const];
    }),
  );
}
