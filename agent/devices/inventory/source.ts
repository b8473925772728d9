// What an inventory source is: it reads one subject and gives one group. Adding one: a file here, a line in index.ts, a member in protocol/inventory.ts.

import type { Inventory, Moment } from "../../../protocol/inventory.ts";
import type {
  Cpu,
  Gpu,
  InventoryDisk,
  Layer,
  Memory,
  Nic,
  Numa,
  PciDevice,
  UsbDevice,
} from "../../../protocol/inventory-devices.ts";
import type {
  Bmc,
  Boot,
  Kernel,
  OperatingSystem,
  Smbios,
  System,
  Tpm,
} from "../../../protocol/inventory-machine.ts";
import type { Clock } from "../../host/clock.ts";
import type { DiskListing } from "../disks.ts";
import { cleanLine, type Facts } from "../facts.ts";
import type { DeviceReader } from "./device-reader.ts";
import type { SmbiosTables } from "./smbios/tables.ts";

/** What each source gives. */
export interface Groups {
  readonly system: System;
  readonly cpu: Cpu;
  readonly memory: Memory;
  readonly numa: Numa;
  readonly smbios: Smbios | null;
  readonly storage: {
    readonly disks: InventoryDisk[];
    readonly notDisks: NonNullable<Inventory["notDisks"]>;
    readonly layers: Layer[];
  };
  readonly nics: Nic[];
  readonly pci: PciDevice[];
  readonly gpus: Gpu[];
  readonly usb: UsbDevice[];
  readonly boot: Boot;
  readonly tpm: Tpm;
  readonly bmc: Bmc;
  readonly kernel: Kernel;
  readonly operatingSystem: OperatingSystem;
  readonly moment: Moment;
}

/** Addresses of each interface, `192.0.2.1/24`; the kernel gives them by netlink, node by os.networkInterfaces(). */
export type Addresses = ReadonlyMap<string, readonly string[]>;

export interface SourceContext {
  /** The group's own: what it cannot read is its error. */
  readonly facts: Facts;
  /** An error that is not a file's: what was read makes no sense, or there is too much of it. */
  readonly note: (error: string) => void;
  readonly architecture: string;
  readonly addresses: Addresses;
  readonly listDisks: (facts: Facts) => DiskListing;
  readonly devices: DeviceReader;
  /** Parsed once for all; null where there are none. */
  readonly smbios: SmbiosTables | null;
  /** Also what takes long to answer: chips behind slow buses. */
  readonly slow: boolean;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export interface Source<Group> {
  /** The files that it reads, as patterns: for people who ask where a value comes from. */
  readonly sources: readonly string[];
  /** Garbage gives nulls and errors. What it throws none the less is a fault, told as the group's error. */
  collect(context: SourceContext): Group | Promise<Group>;
  /** In place of what could not be collected. */
  readonly absent: Group;
}

const textMax = 256;

/** One printable line of a file that many machines lack; null when it is missing or empty. */
export function lineOf(facts: Facts, path: string, lengthMax = textMax): string | null {
  const text = facts.optionalText(path);
  return text === null ? null : cleanLine(text, lengthMax) || null;
}

/** A count that the kernel gives as a number; its -1 ("not known") and everything else is null. */
export function countOf(facts: Facts, path: string): number | null {
  const number = facts.optionalNumber(path);
  return number === null || number < 0 ? null : number;
}

export function flagOf(facts: Facts, path: string): boolean | null {
  const number = facts.optionalNumber(path);
  return number === null ? null : number !== 0;
}

/** The last name of where a link leads: a driver, a bus address. */
export function linkName(facts: Facts, path: string): string | null {
  return facts.link(path)?.split("/").at(-1) || null;
}

/** The first so many; that there were more is noted. */
export function bounded<T>(
  items: readonly T[],
  countMax: number,
  what: string,
  note: (error: string) => void,
): readonly T[] {
  if (items.length <= countMax) return items;
  note(`${items.length} ${what}; only the first ${countMax} are told`);
  return items.slice(0, countMax);
}

/** `0000:18:00.0`, or null. */
export function pciAddressIn(name: string | null): string | null {
  return name !== null && /^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/.test(name) ? name : null;
}

/** The PCI device that something in sysfs hangs on: the last address in its real path. */
export function pciAddressOfPath(path: string | null): string | null {
  return (path ?? "").split("/").reduce<string | null>((found, part) => pciAddressIn(part) ?? found, null);
}
