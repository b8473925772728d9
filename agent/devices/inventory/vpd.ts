// PCI vital product data (PCI 3.0, appendix I): a name, then keywords of two letters with their values.
import { cleanLine } from "../facts.ts";

const valuesMax = 64;
const nameTag = 0x82;
const readOnlyTag = 0x90;

/** Keywords (PN part number, SN serial number, EC, MN, V0…) of the read-only part, and `name`; garbage gives fewer. */
export function parseVpd(bytes: Uint8Array): Record<string, string> {
  const values: Record<string, string> = {};
  let at = 0;
  while (at + 3 <= bytes.length) {
    const tag = bytes[at]!;
    // Small items (the end tag is one) say their length in the tag itself.
    if ((tag & 0x80) === 0) break;
    const length = bytes[at + 1]! | (bytes[at + 2]! << 8);
    const item = bytes.subarray(at + 3, Math.min(at + 3 + length, bytes.length));
    if (tag === nameTag) values.name = text(item);
    if (tag === readOnlyTag) readKeywords(item, values);
    at += 3 + length;
  }
  return values;
}

function readKeywords(item: Uint8Array, values: Record<string, string>): void {
  let at = 0;
  while (at + 3 <= item.length && Object.keys(values).length < valuesMax) {
    const keyword = Buffer.from(item.subarray(at, at + 2)).toString("latin1");
    const length = item[at + 2]!;
    // RV is the checksum and what is reserved after it.
    if (/^[A-Z0-9]{2}$/.test(keyword) && keyword !== "RV") {
      const value = text(item.subarray(at + 3, at + 3 + length));
      if (value !== "") values[keyword] = value;
    }
    at += 3 + length;
  }
}

function text(bytes: Uint8Array): string {
  return cleanLine(Buffer.from(bytes).toString("latin1"), 256);
}
