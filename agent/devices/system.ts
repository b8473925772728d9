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
