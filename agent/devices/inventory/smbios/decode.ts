// SMBIOS structures as the inventory has them: sockets, memory, slots, devices on the board, power supplies.
import type { Bmc, Smbios } from "../../../../protocol/inventory-machine.ts";
import { guidField, uuidField } from "../../signatures/spots.ts";
import { nameOf } from "./names.ts";
import { pciAddressOf } from "./redfish.ts";
import type { SmbiosTables, Structure } from "./tables.ts";

const mib = 1 << 20;
/** Of each kind; a large machine has some hundred slots for memory. */
const entriesMax = 1024;

// Type 11 (OEM texts) is left out on purpose: systemd takes credentials from there.
export function decodeSmbios(tables: SmbiosTables): Smbios {
  return {
    version: tables.version,
    structures: tables.structures.length,
    sockets: all(tables, 4).filter(isCentral).map(socketOf),
    memory: all(tables, 17).map(memoryOf),
    memoryArrays: all(tables, 16).map(memoryArrayOf),
    slots: all(tables, 9).map(slotOf),
    onboard: all(tables, 41).map(onboardOf),
    powerSupplies: all(tables, 39).map(powerSupplyOf),
  };
}

export function all(tables: SmbiosTables | null, type: number): readonly Structure[] {
  return tables?.structures.filter((structure) => structure.type === type).slice(0, entriesMax) ?? [];
}

/** Processor types: 3 is the central one; coprocessors stand in the same table. */
function isCentral(structure: Structure): boolean {
  return structure.byte(5) === 3;
}

function socketOf(structure: Structure): Smbios["sockets"][number] {
  // The byte has 255 for "more than it can say", and the word then has the number.
  const count = (byteAt: number, wordAt: number) => {
    const byte = structure.byte(byteAt);
    return byte === 0xff ? (structure.word(wordAt) ?? byte) : byte === 0 ? null : byte;
  };
  return {
    locator: structure.text(4),
    populated: ((structure.byte(0x18) ?? 0) & 0x40) !== 0,
    vendor: structure.text(7),
    version: structure.text(0x10),
    maxMhz: structure.word(0x14) || null,
    currentMhz: structure.word(0x16) || null,
    cores: count(0x23, 0x2a),
    coresEnabled: count(0x24, 0x2c),
    threads: count(0x25, 0x2e),
    upgrade: hexOf(structure.byte(0x19)),
    serial: structure.text(0x20),
    part: structure.text(0x22),
  };
}

function memoryOf(structure: Structure): Smbios["memory"][number] {
  const bits = (value: number | null) => (value === null || value === 0xffff || value === 0 ? null : value);
  const speed = (wordAt: number, extendedAt: number) => {
    const value = structure.word(wordAt);
    return value === 0xffff ? (structure.dword(extendedAt) ?? null) : value || null;
  };
  const rank = (structure.byte(0x1b) ?? 0) & 0x0f;
  return {
    locator: structure.text(0x10),
    bank: structure.text(0x11),
    sizeBytes: memoryBytes(structure),
    type: nameOf("memoryTypes", structure.byte(0x12)),
    formFactor: nameOf("formFactors", structure.byte(0x0e)),
    speedMts: speed(0x15, 0x54),
    configuredMts: speed(0x20, 0x58),
    rank: rank === 0 ? null : rank,
    dataBits: bits(structure.word(0x0a)),
    totalBits: bits(structure.word(0x08)),
    vendor: structure.text(0x17),
    serial: structure.text(0x18),
    part: structure.text(0x1a),
    asset: structure.text(0x19),
    persistentBytes: structure.qword(0x34),
    volatileBytes: structure.qword(0x3c),
  };
}

/** In MiB, or in KiB with the highest bit; 0 an empty slot, all ones not known, 7FFFh look at the double word. */
function memoryBytes(structure: Structure): number | null {
  const size = structure.word(0x0c);
  if (size === null || size === 0xffff) return null;
  if (size === 0x7fff) {
    const extended = structure.dword(0x1c);
    return extended === null ? null : (extended & 0x7fffffff) * mib;
  }
  return (size & 0x8000) === 0 ? size * mib : (size & 0x7fff) * 1024;
}

function memoryArrayOf(structure: Structure): Smbios["memoryArrays"][number] {
  const kib = structure.dword(7);
  return {
    maxBytes: kib === null ? null : kib === 0x80000000 ? structure.qword(0x0f) : kib * 1024,
    slots: structure.word(0x0d),
    errorCorrection: nameOf("errorCorrections", structure.byte(6)),
  };
}

function slotOf(structure: Structure): Smbios["slots"][number] {
  const usage = structure.byte(7);
  return {
    designation: structure.text(4),
    type: nameOf("slotTypes", structure.byte(5)),
    inUse: usage === 4 ? true : usage === 3 ? false : null,
    pciAddress: pciAddressOf(structure.word(0x0d), structure.byte(0x0f), structure.byte(0x10)),
  };
}

function onboardOf(structure: Structure): Smbios["onboard"][number] {
  const type = structure.byte(5) ?? 0;
  return {
    designation: structure.text(4),
    type: nameOf("onboardTypes", type & 0x7f),
    enabled: (type & 0x80) !== 0,
    instance: structure.byte(6),
    pciAddress: pciAddressOf(structure.word(7), structure.byte(9), structure.byte(0x0a)),
  };
}

function powerSupplyOf(structure: Structure): Smbios["powerSupplies"][number] {
  const watts = structure.word(0x0c);
  const characteristics = structure.word(0x0e) ?? 0;
  return {
    location: structure.text(5),
    name: structure.text(6),
    vendor: structure.text(7),
    serial: structure.text(8),
    part: structure.text(0x0a),
    revision: structure.text(0x0b),
    maxWatts: watts === null || watts === 0x8000 ? null : watts,
    hotReplaceable: (characteristics & 0x1) !== 0,
    present: (characteristics & 0x2) !== 0,
    status: nameOf("powerStates", (characteristics >> 7) & 0x7),
  };
}

/** Type 1 at offset 8; until version 2.6 in the order of its bytes. All zeroes or all ones is none. */
export function uuidOf(tables: SmbiosTables | null): string | null {
  const bytes = all(tables, 1)[0]?.bytes(8, 16) ?? null;
  if (bytes === null || bytes.every((byte) => byte === 0xff)) return null;
  const [major = 0, minor = 0] = (tables?.version ?? "").split(".").map(Number);
  return major > 2 || (major === 2 && minor >= 6) ? guidField(bytes) : uuidField(bytes);
}

/** Type 38. */
export function ipmiOf(tables: SmbiosTables | null): Bmc["ipmi"] {
  const [structure] = all(tables, 38);
  if (structure === undefined) return null;
  const revision = structure.byte(5);
  const base = structure.bytes(8, 8);
  const address = base === null ? null : new DataView(base.buffer, base.byteOffset, 8).getBigUint64(0, true);
  return {
    interface: nameOf("ipmiInterfaces", structure.byte(4)),
    version: revision === null ? null : `${revision >> 4}.${revision & 0xf}`,
    // The lowest bit says whether it is an I/O port.
    address:
      address === null || address === 0n
        ? null
        : `${(address & 1n) === 1n ? "io" : "memory"} 0x${(address & ~1n).toString(16)}`,
    slaveAddress: hexOf(structure.byte(6)),
  };
}

function hexOf(value: number | null): string | null {
  return value === null || value === 0 ? null : `0x${value.toString(16).padStart(2, "0")}`;
}
