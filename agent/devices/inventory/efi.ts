// EFI variables as efivarfs gives them (four bytes of attributes, then the value): boot order and boot entries.

import type { BootEntry } from "../../../protocol/inventory-machine.ts";
import { cleanLine } from "../facts.ts";
import { wideTextField } from "../signatures/spots.ts";
import { parseDevicePath } from "./efi-device-path.ts";

/** The value behind the attributes; null when the file cannot hold both. */
export function variableValue(file: Uint8Array): Uint8Array | null {
  return file.length < 4 ? null : file.subarray(4);
}

/** BootOrder, BootCurrent, BootNext: numbers of entries, `0001`. */
export function parseBootNumbers(value: Uint8Array): string[] {
  const numbers: string[] = [];
  for (let at = 0; at + 2 <= value.length && numbers.length < 256; at += 2)
    numbers.push((value[at]! | (value[at + 1]! << 8)).toString(16).toUpperCase().padStart(4, "0"));
  return numbers;
}

const active = 0x1;
const hidden = 0x8;

/**
 * EFI_LOAD_OPTION (UEFI 2.10, section 3.1.3): attributes, the length of the device paths, the description in UTF-16,
 * the paths, and what the loader is given, which is left out: it may hold anything. Null when it is no such thing.
 */
export function parseLoadOption(number: string, value: Uint8Array): BootEntry | null {
  if (value.length < 8) return null;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const attributes = view.getUint32(0, true);
  const pathsLength = view.getUint16(4, true);
  let end = 6;
  while (end + 2 <= value.length && view.getUint16(end, true) !== 0) end += 2;
  if (end + 2 > value.length) return null;
  const paths = value.subarray(end + 2, end + 2 + pathsLength);
  const path = parseDevicePath(paths);
  return {
    number,
    active: (attributes & active) !== 0,
    hidden: (attributes & hidden) !== 0,
    description: cleanLine(wideTextField(value.subarray(6, end)) ?? "", 128) || null,
    path: path.text,
    partition: path.partition,
    file: path.file,
    mac: path.mac,
  };
}
