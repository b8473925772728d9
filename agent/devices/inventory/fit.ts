// Keeping the inventory within what one result may have: the bulkiest that is least asked for goes first, and is named.
import type { Inventory } from "../../../protocol/inventory.ts";
import { limits } from "../../../protocol/limits.ts";
import type { Groups } from "./source.ts";

/** Leaves room for errors, sources and what tools add. */
export const contentBytesMax = limits.resultBytesMax - 192 * 1024;

type Content = Pick<
  Required<Inventory>,
  | "system"
  | "cpu"
  | "memory"
  | "disks"
  | "nics"
  | "numa"
  | "smbios"
  | "notDisks"
  | "layers"
  | "pci"
  | "gpus"
  | "usb"
  | "boot"
  | "tpm"
  | "bmc"
  | "kernel"
  | "operatingSystem"
>;

interface Cut {
  readonly group: keyof Groups;
  readonly what: string;
  readonly cut: (content: Content) => Content;
}

const cuts: readonly Cut[] = [
  { group: "usb", what: "USB devices", cut: (content) => ({ ...content, usb: [] }) },
  {
    group: "pci",
    what: "virtual functions among the PCI devices",
    cut: (content) => ({
      ...content,
      pci: content.pci.filter(({ physicalFunction }) => physicalFunction === null),
    }),
  },
  { group: "pci", what: "PCI devices", cut: (content) => ({ ...content, pci: [] }) },
  { group: "storage", what: "devices that are no disks", cut: (content) => ({ ...content, notDisks: [] }) },
  { group: "storage", what: "layers", cut: (content) => ({ ...content, layers: [] }) },
  {
    group: "storage",
    what: "details of disks",
    cut: (content) => ({ ...content, disks: content.disks.map(({ detail: _, ...disk }) => disk) }),
  },
  {
    group: "nics",
    what: "virtual network interfaces",
    cut: (content) => ({ ...content, nics: content.nics.filter(({ kind }) => kind !== "virtual") }),
  },
  { group: "smbios", what: "SMBIOS", cut: (content) => ({ ...content, smbios: null }) },
  {
    group: "storage",
    what: "disks after the first 128",
    cut: (content) => ({ ...content, disks: content.disks.slice(0, 128) }),
  },
  {
    group: "nics",
    what: "network interfaces after the first 128",
    cut: (content) => ({ ...content, nics: content.nics.slice(0, 128) }),
  },
];

export function fitted(content: Content, note: (group: keyof Groups, error: string) => void): Content {
  let fitting = content;
  for (const { group, what, cut } of cuts) {
    if (Buffer.byteLength(JSON.stringify(fitting)) <= contentBytesMax) return fitting;
    fitting = cut(fitting);
    note(group, `${what} are left out: the inventory would be larger than ${contentBytesMax} bytes`);
  }
  return fitting;
}
