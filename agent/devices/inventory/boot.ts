// How the machine boots: by UEFI or BIOS, verified or not, from what and in which order.
import type { Boot, BootEntry } from "../../../protocol/inventory-machine.ts";
import type { Facts } from "../facts.ts";
import { parseBootNumbers, parseLoadOption, variableValue } from "./efi.ts";
import { bounded, countOf, type Source } from "./source.ts";

const variables = "/sys/firmware/efi/efivars";
/** EFI_GLOBAL_VARIABLE. */
const globals = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/** Each may be a call into the firmware: some milliseconds on some machines. */
const entriesMax = 64;
const variableBytesMax = 16 * 1024;

export const boot: Source<Boot> = {
  sources: [
    "/sys/firmware/efi/fw_platform_size",
    `${variables}/{BootCurrent,BootNext,BootOrder,Boot####,SecureBoot,SetupMode,Timeout}-${globals}`,
    "/proc/cmdline",
  ],
  collect({ facts, note, architecture }) {
    const value = (name: string) => {
      const file = facts.optionalBytes(`${variables}/${name}-${globals}`, variableBytesMax);
      return file === null ? null : variableValue(file);
    };
    const flag = (name: string) => {
      const found = value(name);
      return found === null || found.length !== 1 ? null : found[0] === 1;
    };
    const number = (name: string) => parseBootNumbers(value(name) ?? new Uint8Array())[0] ?? null;
    const timeout = value("Timeout");
    return {
      mode: bootModeOf(facts, architecture),
      firmwareBits: countOf(facts, "/sys/firmware/efi/fw_platform_size"),
      secureBoot: flag("SecureBoot"),
      setupMode: flag("SetupMode"),
      current: number("BootCurrent"),
      next: number("BootNext"),
      order: parseBootNumbers(value("BootOrder") ?? new Uint8Array()),
      timeoutSeconds: timeout === null || timeout.length !== 2 ? null : timeout[0]! | (timeout[1]! << 8),
      entries: bounded(entryNumbers(facts), entriesMax, "boot entries", note).flatMap((name): BootEntry[] => {
        const option = value(`Boot${name}`);
        const entry = option === null ? null : parseLoadOption(name, option);
        if (option !== null && entry === null) note(`${variables}/Boot${name}-${globals}: not a boot entry`);
        return entry === null ? [] : [entry];
      }),
      bootInterface: bootInterfaceOf(facts.optionalText("/proc/cmdline") ?? ""),
    };
  },
  absent: {
    mode: "unknown",
    firmwareBits: null,
    secureBoot: null,
    setupMode: null,
    current: null,
    next: null,
    order: [],
    timeoutSeconds: null,
    entries: [],
    bootInterface: null,
  },
};

export function bootModeOf(facts: Facts, architecture: string): Boot["mode"] {
  if (facts.exists("/sys/firmware/efi")) return "uefi";
  // Only PCs have the other kind; elsewhere it is a device tree or something unknown.
  return architecture === "x86_64" && facts.exists("/sys/firmware") ? "bios" : "unknown";
}

function entryNumbers(facts: Facts): readonly string[] {
  return facts.list(variables).flatMap((name) => {
    const number = /^Boot([0-9A-F]{4})-(.+)$/.exec(name);
    return number !== null && number[2] === globals ? [number[1]!] : [];
  });
}

/** PXELINUX's `BOOTIF=01-52-54-00-12-34-56`: the hardware's type, then its address. */
export function bootInterfaceOf(commandLine: string): string | null {
  const digits = /(?:^|\s)BOOTIF=(?:[0-9a-f]{2}[-:])?((?:[0-9a-f]{2}[-:]){5}[0-9a-f]{2})(?:\s|$)/i.exec(
    commandLine,
  )?.[1];
  return digits === undefined ? null : digits.replaceAll("-", ":").toLowerCase();
}
