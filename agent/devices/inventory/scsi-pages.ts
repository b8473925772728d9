// Pages of SCSI's vital product data (SPC, SBC) that the kernel keeps: every name of a drive, and how fast it turns.
import { cleanLine } from "../facts.ts";
import { hyphened } from "../signatures/spots.ts";

const namesMax = 16;

/**
 * Page 83h, device identification: those that name the logical unit itself, in the drive's order: `naa.5000…`,
 * `eui.…`, `t10.…`, `uuid.…`, and SCSI name strings.
 */
export function parseIdentificationPage(page: Uint8Array): string[] {
  if (page.length < 4 || page[1] !== 0x83) return [];
  const end = Math.min(page.length, 4 + ((page[2]! << 8) | page[3]!));
  const names: string[] = [];
  let at = 4;
  while (at + 4 <= end && names.length < namesMax) {
    const length = page[at + 3]!;
    if (at + 4 + length > end) break;
    const value = page.subarray(at + 4, at + 4 + length);
    // Association 0: the logical unit; others name the port or the device that it is part of.
    if (((page[at + 1]! >> 4) & 0x3) === 0) {
      const name = nameOf(page[at + 1]! & 0xf, value);
      if (name !== null && !names.includes(name)) names.push(name);
    }
    at += 4 + length;
  }
  return names;
}

function nameOf(type: number, value: Uint8Array): string | null {
  const hex = Buffer.from(value).toString("hex");
  switch (type) {
    case 1:
      return prefixed("t10", text(value));
    case 2:
      return prefixed("eui", hex);
    case 3:
      return prefixed("naa", hex);
    case 8:
      return text(value) || null;
    case 10:
      return value.length === 18 ? prefixed("uuid", hyphened(hex.slice(4))) : null;
    default:
      return null;
  }
}

function prefixed(prefix: string, value: string): string | null {
  return value === "" ? null : `${prefix}.${value}`;
}

function text(value: Uint8Array): string {
  const end = value.indexOf(0);
  return cleanLine(Buffer.from(end < 0 ? value : value.subarray(0, end)).toString("utf8"), 256);
}

/** Page B1h, block device characteristics: turns a minute; 0 for what does not turn, null where it is not said. */
export function parseRotationPage(page: Uint8Array): number | null {
  if (page.length < 6 || page[1] !== 0xb1) return null;
  const rate = (page[4]! << 8) | page[5]!;
  if (rate === 1) return 0;
  return rate >= 0x401 && rate <= 0xfffe ? rate : null;
}
