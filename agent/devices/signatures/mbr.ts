// The partition table of PCs before GPT: four entries in the first sector, and the chain of the extended ones.

import { typeNameOf } from "./partition-types.ts";
import type { Spots } from "./spots.ts";

export interface MbrPartition {
  readonly number: number;
  readonly startBytes: number;
  readonly sizeBytes: number;
  readonly type: string;
  readonly typeName: string | null;
}

export interface Mbr {
  /** 8 digits; null when there is none. */
  readonly uuid: string | null;
  /** It only says that a GPT follows. */
  readonly protective: boolean;
  readonly partitions: readonly MbrPartition[];
  /** Where chains of logical partitions begin: usually one. */
  readonly extended: readonly number[];
}

const extendedTypes = new Set([0x05, 0x0f, 0x85]);
export const logicalMax = 64;

interface Entry {
  readonly active: number;
  readonly type: number;
  readonly startSector: number;
  readonly sectors: number;
}

/** Null when the first sector is none: the boot sector of a file system has the same last two bytes. */
export function readMbr(spots: Spots, sectorBytes: number): Mbr | null {
  const entries = entriesAt(spots, 0);
  if (entries === null || entries.every(({ type }) => type === 0)) return null;
  if (entries.some(({ active }) => active !== 0 && active !== 0x80)) return null;
  const used = entries
    .map((entry, index) => ({ ...entry, number: index + 1 }))
    .filter(({ type, sectors }) => type !== 0 && sectors > 0);
  // Numbers that no disk of this size can have are text or code, not a table.
  if (
    used.length === 0 ||
    used.some(({ startSector, type }) => type !== 0xee && startSector * sectorBytes > spots.sizeBytes)
  )
    return null;
  const signature = spots.view(440, 4)?.getUint32(0, true) ?? 0;
  return {
    uuid: signature === 0 ? null : signature.toString(16).padStart(8, "0"),
    protective: used.some(({ type }) => type === 0xee),
    partitions: used.map((entry) => partition(entry.number, entry, 0, sectorBytes)),
    extended: used
      .filter(({ type }) => extendedTypes.has(type))
      .map(({ startSector }) => startSector * sectorBytes),
  };
}

/**
 * One link of the chain: the logical partition it describes (relative to itself), and where the next one lies
 * (relative to the chain's beginning).
 */
export function readLink(
  spots: Spots,
  place: {
    readonly offset: number;
    readonly first: number;
    readonly number: number;
    readonly sectorBytes: number;
  },
): { readonly partition: MbrPartition | null; readonly next: number | null } {
  const [own, further] = entriesAt(spots, place.offset) ?? [];
  return {
    partition:
      own === undefined || own.type === 0 || own.sectors === 0
        ? null
        : partition(place.number, own, place.offset, place.sectorBytes),
    next:
      further === undefined || !extendedTypes.has(further.type) || further.startSector === 0
        ? null
        : place.first + further.startSector * place.sectorBytes,
  };
}

function entriesAt(spots: Spots, offset: number): readonly Entry[] | null {
  const table = spots.view(offset + 446, 66);
  if (table === null || table.getUint16(64, true) !== 0xaa55) return null;
  return [0, 16, 32, 48].map((at) => ({
    active: table.getUint8(at),
    type: table.getUint8(at + 4),
    startSector: table.getUint32(at + 8, true),
    sectors: table.getUint32(at + 12, true),
  }));
}

function partition(number: number, entry: Entry, base: number, sectorBytes: number): MbrPartition {
  const type = `0x${entry.type.toString(16).padStart(2, "0")}`;
  return {
    number,
    startBytes: base + entry.startSector * sectorBytes,
    sizeBytes: entry.sectors * sectorBytes,
    type,
    typeName: typeNameOf(type),
  };
}
