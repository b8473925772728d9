// The raw SMBIOS tables (DMTF DSP0134): the entry point, and the structures one after the other with their texts.
import { cleanLine } from "../../facts.ts";

/** One structure; every accessor gives null past its end, as older firmware has shorter ones. */
export interface Structure {
  readonly type: number;
  readonly handle: number;
  byte(offset: number): number | null;
  word(offset: number): number | null;
  dword(offset: number): number | null;
  /** Null past what a number holds exactly. */
  qword(offset: number): number | null;
  bytes(offset: number, length: number): Uint8Array | null;
  /** The text whose number stands at `offset`; null when there is none or nothing in it. */
  text(offset: number): string | null;
  /** The text of this number, from 1. */
  textOf(number: number): string | null;
}

export interface SmbiosTables {
  /** `3.3`, or null when the entry point cannot be used. */
  readonly version: string | null;
  readonly structures: readonly Structure[];
  /** What is wrong with the tables. */
  readonly errors: readonly string[];
}

export interface EntryPoint {
  readonly version: string;
  /** Of the table; in version 3 its largest possible length. */
  readonly length: number;
}

const structuresMax = 4096;
const stringsMax = 64;
const lineMax = 256;
const endOfTable = 127;

/** Null when it is neither of version 2 (`_SM_`) nor 3 (`_SM3_`), or its checksum is wrong. */
export function parseEntryPoint(bytes: Uint8Array): EntryPoint | null {
  const anchor = Buffer.from(bytes.subarray(0, 5)).toString("latin1");
  const three = anchor === "_SM3_";
  if (!three && !anchor.startsWith("_SM_")) return null;
  const length = bytes[three ? 6 : 5] ?? 0;
  if (length < (three ? 0x18 : 0x1e) || length > bytes.length || !sumsToZero(bytes.subarray(0, length)))
    return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return three
    ? { version: `${bytes[7]}.${bytes[8]}`, length: view.getUint32(0x0c, true) }
    : { version: `${bytes[6]}.${bytes[7]}`, length: view.getUint16(0x16, true) };
}

/** What can be read of a table, however broken: it ends at the first structure that cannot be one. */
export function parseTables(table: Uint8Array, entry: EntryPoint | null): SmbiosTables {
  const structures: Structure[] = [];
  const errors: string[] = [];
  const end = entry === null ? table.length : Math.min(table.length, entry.length);
  let at = 0;
  while (at + 4 <= end) {
    if (structures.length === structuresMax) {
      errors.push(`the table has more than ${structuresMax} structures`);
      break;
    }
    const type = table[at]!;
    const length = table[at + 1]!;
    if (length < 4 || at + length > end) {
      errors.push(
        `structure ${structures.length} (type ${type}) at byte ${at} says that it has ${length} bytes`,
      );
      break;
    }
    const { strings, next } = stringsAt(table, at + length, end);
    structures.push(structureOf(table.subarray(at, at + length), strings));
    if (next === null) {
      errors.push(`the texts of structure ${structures.length - 1} (type ${type}) have no end`);
      break;
    }
    if (type === endOfTable) break;
    at = next;
  }
  return { version: entry?.version ?? null, structures, errors };
}

/** Texts end with a zero byte each, and all of them with another one; none at all is two zero bytes. */
function stringsAt(
  table: Uint8Array,
  start: number,
  end: number,
): { readonly strings: readonly string[]; readonly next: number | null } {
  const strings: string[] = [];
  let at = start;
  while (at < end) {
    const zero = table.indexOf(0, at);
    if (zero < 0 || zero >= end) break;
    if (zero === at) return { strings, next: strings.length === 0 ? at + 2 : at + 1 };
    if (strings.length < stringsMax)
      strings.push(
        cleanLine(
          Buffer.from(table.subarray(at, Math.min(zero, at + 4 * lineMax))).toString("latin1"),
          lineMax,
        ),
      );
    at = zero + 1;
  }
  return { strings, next: null };
}

function structureOf(data: Uint8Array, strings: readonly string[]): Structure {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const within = (offset: number, length: number) => offset >= 0 && offset + length <= data.length;
  const textOf = (number: number) => (number === 0 ? null : strings[number - 1] || null);
  return {
    type: data[0]!,
    handle: view.getUint16(2, true),
    byte: (offset) => (within(offset, 1) ? data[offset]! : null),
    word: (offset) => (within(offset, 2) ? view.getUint16(offset, true) : null),
    dword: (offset) => (within(offset, 4) ? view.getUint32(offset, true) : null),
    qword(offset) {
      if (!within(offset, 8)) return null;
      const value = view.getBigUint64(offset, true);
      return value > BigInt(Number.MAX_SAFE_INTEGER) ? null : Number(value);
    },
    bytes: (offset, length) => (within(offset, length) ? data.subarray(offset, offset + length) : null),
    text: (offset) => (within(offset, 1) ? textOf(data[offset]!) : null),
    textOf,
  };
}

function sumsToZero(bytes: Uint8Array): boolean {
  return (bytes.reduce((sum, byte) => sum + byte, 0) & 0xff) === 0;
}
