// PCI configuration space: the header's ids, and from its capabilities the link's speed, the serial number, SR-IOV.

export interface PciConfig {
  readonly vendorId: string;
  readonly deviceId: string;
  readonly subsystemVendorId: string | null;
  readonly subsystemId: string | null;
  /** Class, subclass, programming interface. */
  readonly class: string;
  readonly revision: string;
  readonly link: string | null;
  readonly linkMax: string | null;
  readonly serial: string | null;
}

const pciExpress = 0x10;
const bridgeSubsystem = 0x0d;
const deviceSerial = 0x0003;
const capabilitiesMax = 48;

/**
 * Who is not root reads only the first 64 bytes: then there are no capabilities. Null when it is shorter, or when the
 * device does not answer (all ones).
 */
export function parsePciConfig(bytes: Uint8Array): PciConfig | null {
  if (bytes.length < 64) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint16(0, true) === 0xffff) return null;
  const headerType = bytes[0x0e]! & 0x7f;
  const capabilities = capabilitiesOf(view);
  const express = capabilities.get(pciExpress);
  const bridge = capabilities.get(bridgeSubsystem);
  // An ordinary header has the subsystem itself, a bridge's in a capability.
  const subsystem =
    headerType === 0 ? 0x2c : bridge !== undefined && bridge + 8 <= bytes.length ? bridge + 4 : undefined;
  return {
    vendorId: id(view, 0),
    deviceId: id(view, 2),
    subsystemVendorId: subsystem === undefined ? null : id(view, subsystem),
    subsystemId: subsystem === undefined ? null : id(view, subsystem + 2),
    class: [0x0b, 0x0a, 0x09].map((at) => bytes[at]!.toString(16).padStart(2, "0")).join(""),
    revision: bytes[8]!.toString(16).padStart(2, "0"),
    ...linkOf(view, express),
    serial: serialOf(view),
  };
}

/** Number of each capability to where it lies. The chain may lead in circles. */
function capabilitiesOf(view: DataView): ReadonlyMap<number, number> {
  const found = new Map<number, number>();
  // The status register says whether there is a list.
  if ((view.getUint16(6, true) & 0x10) === 0) return found;
  let at = view.getUint8(0x34) & 0xfc;
  for (
    let count = 0;
    count < capabilitiesMax && at >= 0x40 && at + 4 <= Math.min(view.byteLength, 256);
    count++
  ) {
    const number = view.getUint8(at);
    if (!found.has(number)) found.set(number, at);
    at = view.getUint8(at + 1) & 0xfc;
  }
  return found;
}

/** The PCI Express capability: link capabilities at 0Ch, link status at 12h: speed in the lowest 4 bits, width in 6 above. */
function linkOf(view: DataView, express: number | undefined): Pick<PciConfig, "link" | "linkMax"> {
  if (express === undefined || express + 0x14 > view.byteLength) return { link: null, linkMax: null };
  const most = view.getUint32(express + 0x0c, true);
  const now = view.getUint16(express + 0x12, true);
  return { link: linkText(now & 0xf, (now >> 4) & 0x3f), linkMax: linkText(most & 0xf, (most >> 4) & 0x3f) };
}

const speeds = ["", "2.5 GT/s", "5 GT/s", "8 GT/s", "16 GT/s", "32 GT/s", "64 GT/s"];

function linkText(speed: number, width: number): string | null {
  const text = speeds[speed];
  return text === undefined || text === "" || width === 0 ? null : `${text} x${width}`;
}

/** An extended capability, past the first 256 bytes: eight bytes, written from the highest. */
function serialOf(view: DataView): string | null {
  let at = 0x100;
  for (let count = 0; count < capabilitiesMax && at >= 0x100 && at + 12 <= view.byteLength; count++) {
    const header = view.getUint32(at, true);
    if (header === 0 || header === 0xffffffff) return null;
    if ((header & 0xffff) === deviceSerial) {
      const value = (BigInt(view.getUint32(at + 8, true)) << 32n) | BigInt(view.getUint32(at + 4, true));
      return value === 0n
        ? null
        : value
            .toString(16)
            .padStart(16, "0")
            .replace(/(..)(?!$)/g, "$1-");
    }
    at = (header >>> 20) & 0xffc;
  }
  return null;
}

function id(view: DataView, at: number): string {
  return view.getUint16(at, true).toString(16).padStart(4, "0");
}
