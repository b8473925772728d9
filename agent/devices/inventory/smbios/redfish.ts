// SMBIOS type 42 (DMTF DSP0270): the network interface between host and BMC, and where Redfish is served on it.
import type { RedfishInterface } from "../../../../protocol/inventory-machine.ts";
import { guidField, textField } from "../../signatures/spots.ts";
import { nameOf } from "./names.ts";
import type { Structure } from "./tables.ts";

const networkInterface = 0x40;
const redfishOverIp = 0x04;
const recordsMax = 8;

/** None for another kind of interface. The handle of bootstrap credentials, where there is one, is not read. */
export function redfishInterfaces(structure: Structure): readonly RedfishInterface[] {
  const dataLength = structure.byte(5);
  if (structure.type !== 42 || structure.byte(4) !== networkInterface || dataLength === null) return [];
  const device = deviceOf(structure, dataLength);
  const interfaces: RedfishInterface[] = [];
  let at = 6 + dataLength;
  const records = Math.min(structure.byte(at) ?? 0, recordsMax);
  at++;
  for (let index = 0; index < records; index++) {
    const type = structure.byte(at);
    const length = structure.byte(at + 1);
    if (type === null || length === null) break;
    const record = structure.bytes(at + 2, length);
    if (record === null) break;
    if (type === redfishOverIp) interfaces.push({ ...device, ...serviceOf(record) });
    at += 2 + length;
  }
  return interfaces;
}

type Device = Pick<RedfishInterface, "device" | "deviceId" | "serial" | "mac" | "pciAddress">;

/** Device types: 2 USB, 3 PCI, 4 USB and 5 PCI in their second version, whose fields stand one byte later. */
function deviceOf(structure: Structure, dataLength: number): Device {
  const none: Device = { device: null, deviceId: null, serial: null, mac: null, pciAddress: null };
  const type = dataLength === 0 ? null : structure.byte(6);
  if (type === null || type < 2 || type > 5) return none;
  const second = type >= 4;
  const start = second ? 8 : 7;
  const words = (count: number) => {
    const ids = Array.from({ length: count }, (_, index) => structure.word(start + 2 * index));
    return ids.includes(null) ? null : ids.map((id) => id!.toString(16).padStart(4, "0")).join(":");
  };
  if (type === 2 || type === 4) {
    return {
      ...none,
      device: "USB",
      deviceId: words(2),
      serial: second ? structure.text(start + 4) : null,
      mac: second ? macOf(structure.bytes(start + 5, 6)) : null,
    };
  }
  const [segment, bus, slot] = second
    ? [structure.word(start + 14), structure.byte(start + 16), structure.byte(start + 17)]
    : [null, null, null];
  return {
    ...none,
    device: "PCI",
    deviceId: words(4),
    mac: second ? macOf(structure.bytes(start + 8, 6)) : null,
    pciAddress: pciAddressOf(segment, bus, slot),
  };
}

type Service = Omit<RedfishInterface, keyof Device>;

function serviceOf(record: Uint8Array): Service {
  const part = (offset: number, length: number) =>
    offset + length <= record.length ? record.subarray(offset, offset + length) : null;
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
  const hostFormat = record[17];
  const serviceFormat = record[51];
  const vlan = record.length >= 90 ? view.getUint32(86, true) : null;
  return {
    serviceUuid: guidField(part(0, 16)),
    hostAssignment: nameOf("assignments", record[16] ?? null),
    hostAddress: addressOf(part(18, 16), hostFormat),
    hostMask: addressOf(part(34, 16), hostFormat),
    serviceDiscovery: nameOf("assignments", record[50] ?? null),
    serviceAddress: addressOf(part(52, 16), serviceFormat),
    serviceMask: addressOf(part(68, 16), serviceFormat),
    servicePort: record.length >= 86 ? view.getUint16(84, true) : null,
    // All ones: none.
    serviceVlan: vlan === null || vlan === 0 || vlan > 4094 ? null : vlan,
    serviceHostname: textField(part(91, record[90] ?? 0)),
  };
}

/** Format 1 is IPv4 in the first four bytes, 2 is IPv6. Nothing set is null. */
function addressOf(bytes: Uint8Array | null, format: number | undefined): string | null {
  if (bytes === null || bytes.every((byte) => byte === 0)) return null;
  if (format === 1) return bytes.subarray(0, 4).join(".");
  if (format !== 2) return null;
  const words = Array.from({ length: 8 }, (_, index) =>
    ((bytes[2 * index]! << 8) | bytes[2 * index + 1]!).toString(16),
  );
  // The URL parser writes it the short way (RFC 5952).
  return new URL(`http://[${words.join(":")}]/`).hostname.slice(1, -1);
}

function macOf(bytes: Uint8Array | null): string | null {
  if (bytes === null || bytes.every((byte) => byte === 0)) return null;
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** `0000:18:00.0`; null where the firmware knows none (all ones). */
export function pciAddressOf(segment: number | null, bus: number | null, slot: number | null): string | null {
  if (
    segment === null ||
    bus === null ||
    slot === null ||
    segment === 0xffff ||
    (bus === 0xff && slot === 0xff)
  )
    return null;
  const digits = (value: number, length: number) => value.toString(16).padStart(length, "0");
  return `${digits(segment, 4)}:${digits(bus, 2)}:${digits(slot >> 3, 2)}.${slot & 7}`;
}
