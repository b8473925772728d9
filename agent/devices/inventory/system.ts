// The machine itself: firmware's names for it from /sys/class/dmi/id, and from the raw tables what that lacks.

import { createHmac } from "node:crypto";
import type { System } from "../../../protocol/inventory-machine.ts";
import { cleanLine, type Facts } from "../facts.ts";
import { bootIdOf } from "../system.ts";
import { bootModeOf } from "./boot.ts";
import { parseOsRelease } from "./operating-system.ts";
import { all, uuidOf } from "./smbios/decode.ts";
import { nameOf } from "./smbios/names.ts";
import { lineOf, type Source } from "./source.ts";

/** Of this program; mixed with the machine-id, so that the id itself never leaves the host (machine-id(5)). */
const application = "5f2c1e8b0a7d4c3e9b6f8d2a1c4e7f03";

export const system: Source<System> = {
  sources: [
    "/sys/class/dmi/id/*",
    "/sys/firmware/dmi/tables/DMI",
    "/proc/sys/kernel/{hostname,osrelease,random/boot_id}",
    "/etc/os-release",
    "/etc/machine-id",
    "/sys/hypervisor/type",
    "/proc/cpuinfo",
  ],
  collect({ facts, smbios, architecture }) {
    const from: Record<string, string> = {};
    /** The first that has a value; where it came from is kept under the member's name. */
    const first = (member: string, ...choices: readonly (readonly [string, string | null])[]) => {
      const [source, value] = choices.find(([, each]) => each !== null) ?? [null, null];
      if (source !== null) from[member] = source;
      return value;
    };
    const dmi = (name: string) =>
      [`/sys/class/dmi/id/${name}`, lineOf(facts, `/sys/class/dmi/id/${name}`)] as const;
    const table = (type: number, offset: number) =>
      [`/sys/firmware/dmi/tables/DMI type ${type}`, all(smbios, type)[0]?.text(offset) ?? null] as const;
    const [, dmiUuid] = dmi("product_uuid");
    const board = {
      vendor: first("board.vendor", dmi("board_vendor"), table(2, 4)),
      name: first("board.name", dmi("board_name"), table(2, 5)),
      version: first("board.version", dmi("board_version"), table(2, 6)),
      serial: first("board.serial", dmi("board_serial"), table(2, 7)),
      asset: first("board.asset", dmi("board_asset_tag"), table(2, 8)),
    };
    const bios = {
      vendor: first("bios.vendor", dmi("bios_vendor"), table(0, 4)),
      version: first("bios.version", dmi("bios_version"), table(0, 5)),
      release: first("bios.release", dmi("bios_release")),
      date: first("bios.date", dmi("bios_date"), table(0, 8)),
    };
    const chassisType = facts.optionalNumber("/sys/class/dmi/id/chassis_type");
    const cpuinfo = facts.optionalText("/proc/cpuinfo") ?? "";
    const vendor = first("vendor", dmi("sys_vendor"), table(1, 4));
    const product = first("product", dmi("product_name"), table(1, 5));
    const guest = facts.exists("/sys/hypervisor/type") || /^flags\s*:.*\bhypervisor\b/m.test(cpuinfo);
    return {
      hostname: cleanLine(facts.text("/proc/sys/kernel/hostname") ?? "", 256),
      uuid: first(
        "uuid",
        ["/sys/class/dmi/id/product_uuid", dmiUuid?.toLowerCase() ?? null],
        ["/sys/firmware/dmi/tables/DMI type 1", uuidOf(smbios)],
      ),
      serial: first("serial", dmi("product_serial"), table(1, 7)),
      vendor,
      product,
      boardSerial: board.serial,
      biosVersion: bios.version,
      architecture,
      kernel: cleanLine(facts.text("/proc/sys/kernel/osrelease") ?? "", 256),
      operatingSystem: parseOsRelease(
        facts.optionalText("/etc/os-release") ?? facts.optionalText("/usr/lib/os-release") ?? "",
      ).name,
      bootMode: bootModeOf(facts, architecture),
      bootId: cleanLine(bootIdOf(facts), 64),
      virtual: guest,
      version: first("version", dmi("product_version"), table(1, 6)),
      family: first("family", dmi("product_family"), table(1, 0x1a)),
      sku: first("sku", dmi("product_sku"), table(1, 0x19)),
      board,
      chassis: {
        type: nameOf("chassisTypes", chassisType ?? (all(smbios, 3)[0]?.byte(5) ?? 0) & 0x7f),
        vendor: first("chassis.vendor", dmi("chassis_vendor"), table(3, 4)),
        version: first("chassis.version", dmi("chassis_version"), table(3, 6)),
        serial: first("chassis.serial", dmi("chassis_serial"), table(3, 7)),
        asset: first("chassis.asset", dmi("chassis_asset_tag"), table(3, 8)),
      },
      bios,
      hypervisor: hypervisorOf(facts, { guest, vendor, product }),
      installationId: installationIdOf(facts),
      from,
    };
  },
  absent: {
    hostname: "",
    uuid: null,
    serial: null,
    vendor: null,
    product: null,
    boardSerial: null,
    biosVersion: null,
    architecture: "",
    kernel: "",
    operatingSystem: null,
    bootMode: "unknown",
    bootId: "",
    virtual: false,
  },
};

const makers: readonly (readonly [RegExp, string])[] = [
  [/^QEMU|^KVM|OpenStack|RHEV/i, "kvm"],
  [/VMware/i, "vmware"],
  [/^Microsoft Corporation Virtual/i, "hyper-v"],
  [/Xen/i, "xen"],
  [/innotek|VirtualBox/i, "virtualbox"],
  [/Amazon EC2/i, "amazon"],
  [/Google Compute Engine/i, "google"],
  [/Parallels/i, "parallels"],
  [/BHYVE/i, "bhyve"],
];

function hypervisorOf(
  facts: Facts,
  { guest, vendor, product }: { guest: boolean; vendor: string | null; product: string | null },
): string | null {
  if (!guest) return null;
  const own = lineOf(facts, "/sys/hypervisor/type");
  if (own !== null) return own;
  const name = `${vendor ?? ""} ${product ?? ""}`.trim();
  return makers.find(([pattern]) => pattern.test(name))?.[1] ?? null;
}

/** As sd_id128_get_machine_app_specific(3) makes it. */
function installationIdOf(facts: Facts): string | null {
  const id = facts.optionalText("/etc/machine-id") ?? "";
  if (!/^[0-9a-f]{32}$/.test(id)) return null;
  const digest = createHmac("sha256", Buffer.from(id, "hex"))
    .update(Buffer.from(application, "hex"))
    .digest();
  // Marked as a random UUID (version 4).
  digest[6] = (digest[6]! & 0x0f) | 0x40;
  digest[8] = (digest[8]! & 0x3f) | 0x80;
  return digest.subarray(0, 16).toString("hex");
}
