// Everything on the USB buses, hubs and the controllers' root hubs included.
import type { UsbDevice } from "../../../protocol/inventory-devices.ts";
import type { Facts } from "../facts.ts";
import { readIdNames } from "./ids.ts";
import { bounded, lineOf, linkName, type Source } from "./source.ts";

const at = "/sys/bus/usb/devices";
const devicesMax = 256;

export const usb: Source<UsbDevice[]> = {
  sources: [
    `${at}/*/{idVendor,idProduct,bDeviceClass,manufacturer,product,serial,speed,removable}`,
    "/usr/share/{misc,hwdata}/usb.ids",
  ],
  collect({ facts, note }) {
    const names = readIdNames(facts, "usb.ids");
    const entries = facts.list(at);
    // `1-2`, `1-2.3` and `usb1` are devices; those with a colon are their interfaces.
    const devices = entries.filter((name) => /^(usb\d+|\d+-[\d.]+)$/.test(name));
    return bounded(devices, devicesMax, "USB devices", note).map((address) => {
      const device = `${at}/${address}`;
      const vendorId = idOf(facts, `${device}/idVendor`);
      const productId = idOf(facts, `${device}/idProduct`);
      const speed = lineOf(facts, `${device}/speed`, 16) ?? "";
      return {
        address,
        vendorId,
        productId,
        class: lineOf(facts, `${device}/bDeviceClass`, 8),
        vendor: lineOf(facts, `${device}/manufacturer`) ?? names.vendor(vendorId),
        product: lineOf(facts, `${device}/product`) ?? names.device(vendorId, productId),
        serial: lineOf(facts, `${device}/serial`),
        speedMbps: /^\d{1,6}(\.\d)?$/.test(speed) ? Number(speed) : null,
        drivers: driversOf(facts, entries, address),
        removable: lineOf(facts, `${device}/removable`, 32),
      };
    });
  },
  absent: [],
};

function idOf(facts: Facts, path: string): string | null {
  const id = facts.optionalText(path)?.toLowerCase() ?? "";
  return /^[0-9a-f]{4}$/.test(id) ? id : null;
}

/** Of its interfaces: a keyboard with a hub in it has two. */
function driversOf(facts: Facts, entries: readonly string[], address: string): string[] {
  const drivers = entries
    .filter(
      (entry) => entry.startsWith(`${address}:`) || entry.startsWith(`${address.replace(/^usb/, "")}-0:`),
    )
    .slice(0, 32)
    .flatMap((entry) => linkName(facts, `${at}/${entry}/driver`) ?? []);
  return [...new Set(drivers)].sort();
}
