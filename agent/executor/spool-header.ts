// The first block of an output spool: where its records begin and end, and how much they hold. Written whole each time.
import type { RandomFile } from "../host/random-file.ts";

export interface SpoolHeader {
  /** Positions of the oldest record and of the end of the newest. */
  readonly tail: number;
  readonly end: number;
  /** Offset of the oldest record's first byte in the whole output. */
  readonly tailOffset: number;
  readonly stdoutBytes: number;
  readonly stderrBytes: number;
}

export const spoolLayout = { headerBytes: 4096 } as const;
/** "BPSPOOL1", little-endian. */
const magic = 0x314c_4f4f_5053_5042n;
const fields = ["tail", "end", "tailOffset", "stdoutBytes", "stderrBytes"] as const;
const wordBytes = 8;
const words = 2 + fields.length;

export function writeSpoolHeader(file: RandomFile, capacity: number, header: SpoolHeader): void {
  const bytes = new Uint8Array(words * wordBytes);
  const view = new DataView(bytes.buffer);
  const values = [magic, BigInt(capacity), ...fields.map((field) => BigInt(header[field]))];
  for (const [index, value] of values.entries()) view.setBigUint64(index * wordBytes, value, true);
  file.write(bytes, 0);
}

/** Undefined when the file is empty, is no spool, or one of another size: then there is nothing to be had from it. */
export function readSpoolHeader(file: RandomFile, capacity: number): SpoolHeader | undefined {
  const bytes = new Uint8Array(words * wordBytes);
  if (file.read(bytes, 0) < bytes.length) return undefined;
  const view = new DataView(bytes.buffer);
  const word = (index: number) => view.getBigUint64(index * wordBytes, true);
  const found = Object.fromEntries(fields.map((field, index) => [field, Number(word(2 + index))])) as {
    -readonly [F in keyof SpoolHeader]: number;
  };
  const sane = found.tail <= found.end && found.end - found.tail <= capacity;
  return word(0) === magic && word(1) === BigInt(capacity) && sane ? found : undefined;
}
