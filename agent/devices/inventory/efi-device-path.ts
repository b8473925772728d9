// EFI device paths (UEFI 2.10, chapter 10) as text: the nodes that boot entries have; others by their numbers.
import { cleanLine } from "../facts.ts";
import { guidField, wideTextField } from "../signatures/spots.ts";
import { redactAddress } from "./redact.ts";

export interface DevicePath {
  /** `PciRoot(0x0)/Pci(0x1,0x0)/HD(1,GPT,…,0x800,0x32000)/\EFI\debian\shimx64.efi`; null when nothing can be read. */
  readonly text: string | null;
  /** Unique GUID of a GPT partition, or an MBR's signature. */
  readonly partition: string | null;
  readonly file: string | null;
  readonly mac: string | null;
}

const nodesMax = 64;
const textMax = 1024;
const endType = 0x7f;

type Node = {
  readonly type: number;
  readonly subtype: number;
  readonly data: Uint8Array;
  readonly view: DataView;
};

/** The first path only; it ends at its end node, at the first node that cannot be one, or with the bytes. */
export function parseDevicePath(bytes: Uint8Array): DevicePath {
  const texts: string[] = [];
  let partition: string | null = null;
  let file: string | null = null;
  let mac: string | null = null;
  let at = 0;
  while (at + 4 <= bytes.length && texts.length < nodesMax) {
    const length = bytes[at + 2]! | (bytes[at + 3]! << 8);
    if (bytes[at] === endType || length < 4 || at + length > bytes.length) break;
    const data = bytes.subarray(at + 4, at + length);
    const node: Node = {
      type: bytes[at]!,
      subtype: bytes[at + 1]!,
      data,
      view: new DataView(data.buffer, data.byteOffset, data.byteLength),
    };
    texts.push(textOf(node));
    if (is(node, 4, 1) && data.length >= 38) partition = signatureOf(node);
    if (is(node, 4, 4)) file = wideTextField(data);
    if (is(node, 3, 11) && data.length >= 6) mac = hex(data.subarray(0, 6)).replace(/(..)(?!$)/g, "$1:");
    at += length;
  }
  return { text: texts.length === 0 ? null : cleanLine(texts.join("/"), textMax), partition, file, mac };
}

/** Every reader asks for as many bytes as it takes; a node that is too short is told by its numbers. */
const readers: {
  readonly [typeAndSubtype: string]: { readonly bytes: number; readonly text: (node: Node) => string };
} = {
  "1.1": { bytes: 2, text: ({ data }) => `Pci(${x(data[1]!)},${x(data[0]!)})` },
  "1.4": { bytes: 16, text: ({ data }) => `VenHw(${guidField(data.subarray(0, 16)) ?? "0"})` },
  "1.5": { bytes: 4, text: ({ view }) => `Ctrl(${x(view.getUint32(0, true))})` },
  "2.1": { bytes: 8, text: acpi },
  "3.2": {
    bytes: 4,
    text: ({ view }) => `Scsi(${x(view.getUint16(0, true))},${x(view.getUint16(2, true))})`,
  },
  "3.3": { bytes: 20, text: ({ view }) => `Fibre(${x64(view, 4)},${x64(view, 12)})` },
  "3.5": { bytes: 2, text: ({ data }) => `USB(${x(data[0]!)},${x(data[1]!)})` },
  "3.10": { bytes: 16, text: ({ data }) => `VenMsg(${guidField(data.subarray(0, 16)) ?? "0"})` },
  "3.11": { bytes: 33, text: ({ data }) => `MAC(${hex(data.subarray(0, 6))},${x(data[32]!)})` },
  "3.12": { bytes: 15, text: ({ data }) => `IPv4(${data.subarray(4, 8).join(".")})` },
  "3.13": { bytes: 35, text: ({ data }) => `IPv6(${hex(data.subarray(16, 32))})` },
  "3.15": {
    bytes: 7,
    text: ({ view, data }) =>
      `UsbClass(${x(view.getUint16(0, true))},${x(view.getUint16(2, true))},${x(data[4]!)},${x(data[5]!)},${x(data[6]!)})`,
  },
  "3.17": { bytes: 1, text: ({ data }) => `Unit(${x(data[0]!)})` },
  "3.18": {
    bytes: 6,
    text: ({ view }) =>
      `Sata(${x(view.getUint16(0, true))},${x(view.getUint16(2, true))},${x(view.getUint16(4, true))})`,
  },
  "3.19": { bytes: 14, text: ({ data }) => `iSCSI(${ascii(data.subarray(14))})` },
  "3.20": { bytes: 2, text: ({ view }) => `Vlan(${view.getUint16(0, true)})` },
  "3.23": {
    bytes: 12,
    text: ({ view, data }) => `NVMe(${x(view.getUint32(0, true))},${hex(data.subarray(4, 12).toReversed())})`,
  },
  "3.24": { bytes: 0, text: ({ data }) => `Uri(${redactAddress(ascii(data))})` },
  "3.26": { bytes: 1, text: ({ data }) => `SD(${x(data[0]!)})` },
  "3.29": { bytes: 1, text: ({ data }) => `eMMC(${x(data[0]!)})` },
  "3.31": { bytes: 1, text: () => "Dns()" },
  "4.1": { bytes: 38, text: hardDrive },
  "4.2": { bytes: 20, text: ({ view }) => `CDROM(${x(view.getUint32(0, true))})` },
  "4.3": { bytes: 16, text: ({ data }) => `VenMedia(${guidField(data.subarray(0, 16)) ?? "0"})` },
  "4.4": { bytes: 0, text: ({ data }) => wideTextField(data) ?? "" },
  "4.6": { bytes: 16, text: ({ data }) => `FvFile(${guidField(data.subarray(0, 16)) ?? "0"})` },
  "4.7": { bytes: 16, text: ({ data }) => `Fv(${guidField(data.subarray(0, 16)) ?? "0"})` },
  "5.1": {
    bytes: 4,
    text: ({ view, data }) => `BBS(${x(view.getUint16(0, true))},${ascii(data.subarray(4))})`,
  },
};

function textOf(node: Node): string {
  const reader = readers[`${node.type}.${node.subtype}`];
  if (reader === undefined || node.data.length < reader.bytes)
    return `Path(${node.type},${node.subtype},${hex(node.data.subarray(0, 16))})`;
  return reader.text(node);
}

/** EISA's packed names: PNP in the lower word. */
function acpi({ view }: Node): string {
  const name = view.getUint32(0, true);
  const instance = x(view.getUint32(4, true));
  if ((name & 0xffff) !== 0x41d0) return `Acpi(${x(name)},${instance})`;
  switch (name >>> 16) {
    case 0x0a03:
      return `PciRoot(${instance})`;
    case 0x0a08:
      return `PcieRoot(${instance})`;
    default:
      return `Acpi(PNP${(name >>> 16).toString(16).toUpperCase().padStart(4, "0")},${instance})`;
  }
}

function hardDrive(node: Node): string {
  const { view, data } = node;
  const scheme = data[36] === 2 ? "GPT" : data[36] === 1 ? "MBR" : `${data[36]}`;
  return `HD(${view.getUint32(0, true)},${scheme},${signatureOf(node) ?? "0"},${x64(view, 4)},${x64(view, 12)})`;
}

function signatureOf({ data, view }: Node): string | null {
  if (data[37] === 2) return guidField(data.subarray(20, 36));
  return data[37] === 1 ? view.getUint32(20, true).toString(16).padStart(8, "0") : null;
}

function is(node: Node, type: number, subtype: number): boolean {
  return node.type === type && node.subtype === subtype;
}

function x(value: number): string {
  return `0x${value.toString(16)}`;
}

function x64(view: DataView, offset: number): string {
  return `0x${view.getBigUint64(offset, true).toString(16)}`;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function ascii(bytes: Uint8Array): string {
  return cleanLine(Buffer.from(bytes.subarray(0, 512)).toString("latin1"), 256);
}
