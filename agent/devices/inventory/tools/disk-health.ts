// What drives say of their health, by smartctl (smartmontools) or nvme (nvme-cli): JSON of either.
import type { Moment } from "../../../../protocol/inventory.ts";
import type { InventoryDisk } from "../../../../protocol/inventory-devices.ts";
import { countAt, lineAt, member, parsed, type Tool } from "./tool.ts";

type Health = Moment["diskHealth"][number];

const disksMax = 64;

/** Physical disks only; of a multipath device its first path. smartctl first, since it knows every kind. */
export async function readDiskHealth(
  disks: readonly InventoryDisk[],
  { smartctl, nvme }: { readonly smartctl: Tool; readonly nvme: Tool },
): Promise<Health[]> {
  const found: Health[] = [];
  for (const disk of disks.filter(({ type }) => type !== "loop" && type !== "file").slice(0, disksMax)) {
    const { path, serial } = disk;
    const device = disk.paths?.[0] ?? path;
    // A sleeping disk is not woken (-n standby). Bits 0 to 2 of the exit code: nothing could be read.
    const text = await smartctl.ask(
      ["--json", "--nocheck=standby", "--health", "--attributes", "--info", device],
      (code) => (code & 0x3) === 0,
    );
    const smart = parseSmartctl(text);
    if (smart !== null) {
      found.push({ path, serial, tool: "smartctl", ...smart });
      continue;
    }
    if (disk.transport?.startsWith("nvme") !== true) continue;
    const log = parseNvmeLog(await nvme.ask(["smart-log", "--output-format=json", device]));
    if (log !== null) found.push({ path, serial, tool: "nvme", ...log });
  }
  return found;
}

type Values = Omit<Health, "path" | "serial" | "tool">;

/** Null when it is none of its answers. */
export function parseSmartctl(text: string | null): Values | null {
  const answer = parsed(text);
  if (member(answer, "smartctl") === undefined) return null;
  const passed = member(answer, "smart_status", "passed");
  const celsius = member(answer, "temperature", "current");
  const nvme = member(answer, "nvme_smart_health_information_log");
  return {
    passed: typeof passed === "boolean" ? passed : null,
    celsius: typeof celsius === "number" ? celsius : null,
    powerOnHours: countAt(answer, "power_on_time", "hours"),
    wearPercent:
      countAt(nvme, "percentage_used") ?? countAt(answer, "scsi_percentage_used_endurance_indicator"),
    mediaErrors:
      countAt(nvme, "media_errors") ??
      countAt(answer, "scsi_error_counter_log", "read", "total_uncorrected_errors"),
    reallocatedSectors: attribute(answer, 5) ?? countAt(answer, "scsi_grown_defect_list"),
    error: lineAt(answer, "smartctl", "messages", 0, "string"),
  };
}

/** Of the ATA attributes the one with this number, raw. */
function attribute(answer: unknown, id: number): number | null {
  const table = member(answer, "ata_smart_attributes", "table");
  const row = Array.isArray(table)
    ? (table as unknown[]).find((each) => member(each, "id") === id)
    : undefined;
  return countAt(row, "raw", "value");
}

/** Null when it is no such log. The temperature is in kelvin. */
export function parseNvmeLog(text: string | null): Values | null {
  const log = parsed(text);
  const kelvin = countAt(log, "temperature");
  const warning = countAt(log, "critical_warning") ?? countAt(log, "critical_warning", "value");
  if (kelvin === null && warning === null) return null;
  return {
    passed: warning === null ? null : warning === 0,
    celsius: kelvin === null ? null : kelvin - 273,
    powerOnHours: countAt(log, "power_on_hours"),
    wearPercent: countAt(log, "percent_used") ?? countAt(log, "percentage_used"),
    mediaErrors: countAt(log, "media_errors"),
    reallocatedSectors: null,
    error: null,
  };
}
