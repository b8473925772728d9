// Inventory of the machine itself: firmware's names for it, the operating system, how it booted.
import type { Inventory } from "../../protocol/inventory.ts";
import type { Facts } from "./facts.ts";

export function readSystem(facts: Facts, architecture: string): Inventory["system"] {
  const dmi = (name: string) => facts.optionalText(`/sys/class/dmi/id/${name}`) || null;
  return {
    hostname: facts.text("/proc/sys/kernel/hostname") ?? "",
    uuid: dmi("product_uuid")?.toLowerCase() ?? null,
    serial: dmi("product_serial"),
    vendor: dmi("sys_vendor"),
    product: dmi("product_name"),
    boardSerial: dmi("board_serial"),
    biosVersion: dmi("bios_version"),
    architecture,
    kernel: facts.text("/proc/sys/kernel/osrelease") ?? "",
    operatingSystem: parseOsRelease(
      facts.optionalText("/etc/os-release") ?? facts.optionalText("/usr/lib/os-release") ?? "",
    ),
    bootMode: bootMode(facts, architecture),
    bootId: bootIdOf(facts),
    virtual:
      facts.exists("/sys/hypervisor/type") ||
      /^flags\s*:.*\bhypervisor\b/m.test(facts.optionalText("/proc/cpuinfo") ?? ""),
  };
}

/** The names that people know a machine by: what its operator calls it, and the number on its chassis. */
export interface MachineNames {
  readonly hostname: string;
  readonly chassisSerial: string | null;
}

const namesMax = 255;
/** What firmware has where nobody filled in a serial number. */
const placeholder =
  /^(to be filled by o\.?e\.?m\.?|default string|(system|chassis) serial number|not (specified|available|applicable)|none|n\/a|[0.x-]*|0?123456789)$/i;

/** Where the chassis has no number of its own the machine's is taken. Only root can read them. */
export function readMachineNames(facts: Facts): MachineNames {
  const serials = ["chassis_serial", "product_serial"].map(
    (name) => facts.optionalText(`/sys/class/dmi/id/${name}`)?.trim() ?? "",
  );
  const serial = serials.find((text) => !placeholder.test(text));
  return {
    hostname: (facts.text("/proc/sys/kernel/hostname") ?? "").slice(0, namesMax),
    chassisSerial: serial?.slice(0, namesMax) ?? null,
  };
}

/** The same from boot to shutdown. */
export function bootIdOf(facts: Facts): string {
  return facts.text("/proc/sys/kernel/random/boot_id") ?? "";
}

/** PRETTY_NAME of os-release(5), or null. */
export function parseOsRelease(text: string): string | null {
  const value = /^PRETTY_NAME=(.*)$/m.exec(text)?.[1]?.trim();
  if (value === undefined || value === "") return null;
  return value.replace(/^(["'])(.*)\1$/, "$2").replace(/\\(["'$`\\])/g, "$1");
}

function bootMode(facts: Facts, architecture: string): Inventory["system"]["bootMode"] {
  if (facts.exists("/sys/firmware/efi")) return "uefi";
  // Only PCs have the other kind; elsewhere it is a device tree or something unknown.
  return architecture === "x86_64" && facts.exists("/sys/firmware") ? "bios" : "unknown";
}
