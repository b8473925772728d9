// Frames: one message as MessagePack bytes. Hostile bytes are scanned before anything is unpacked from them.
import { Packr } from "msgpackr";
import { BedplateError } from "./errors.ts";
import { limits } from "./limits.ts";

// No records, no extensions; integers keep 64 bits: a number where it is safe, a bigint beyond.
// ("auto" is documented by msgpackr and missing from its typings.)
const packr = new Packr({
  useRecords: false,
  moreTypes: false,
  variableMapSize: true,
  int64AsType: "auto" as "number",
});

/** Encodes a message. Integers of any size up to 64 bits are written as integers, never as floats. */
export function encodeFrame(message: unknown): Uint8Array {
  return packr.pack(withWideIntegers(message));
}

/**
 * Scans, then unpacks one frame.
 * @throws `frame.too-large`, `frame.too-deep`, `frame.extension`, `frame.bad-key`, `frame.malformed`
 */
export function decodeFrame(bytes: Uint8Array, bytesMax: number = limits.frameBytesMax): unknown {
  if (bytes.length > bytesMax) {
    throw new BedplateError(
      "frame.too-large",
      `The frame has ${bytes.length} bytes; at most ${bytesMax} are taken here.`,
    );
  }
  scanFrame(bytes);
  return packr.unpack(bytes);
}

/** Checks that the bytes are exactly one plain MessagePack value within the limits, without building it. */
export function scanFrame(bytes: Uint8Array): void {
  const end = scanValue(bytes, 0, 0);
  if (end !== bytes.length) malformed(`${bytes.length - end} bytes follow the message`, end);
}

// Returns the offset after the value at `at`. Recursion is bounded by the depth limit.
function scanValue(bytes: Uint8Array, at: number, depth: number): number {
  const type = byteAt(bytes, at);
  if (type <= 0x7f || type >= 0xe0 || type === 0xc0 || type === 0xc2 || type === 0xc3) return at + 1;
  if (type <= 0x8f) return scanMap(bytes, at + 1, type & 0x0f, depth);
  if (type <= 0x9f) return scanArray(bytes, at + 1, type & 0x0f, depth);
  if (type <= 0xbf) return skip(bytes, at + 1, type & 0x1f);
  switch (type) {
    case 0xc4:
    case 0xd9:
      return skip(bytes, at + 2, lengthAt(bytes, at + 1, 1));
    case 0xc5:
    case 0xda:
      return skip(bytes, at + 3, lengthAt(bytes, at + 1, 2));
    case 0xc6:
    case 0xdb:
      return skip(bytes, at + 5, lengthAt(bytes, at + 1, 4));
    case 0xcc:
    case 0xd0:
      return scalar(bytes, at + 1, 1);
    case 0xcd:
    case 0xd1:
      return scalar(bytes, at + 1, 2);
    case 0xca:
    case 0xce:
    case 0xd2:
      return scalar(bytes, at + 1, 4);
    case 0xcb:
    case 0xcf:
    case 0xd3:
      return scalar(bytes, at + 1, 8);
    case 0xdc:
      return scanArray(bytes, at + 3, lengthAt(bytes, at + 1, 2), depth);
    case 0xdd:
      return scanArray(bytes, at + 5, lengthAt(bytes, at + 1, 4), depth);
    case 0xde:
      return scanMap(bytes, at + 3, lengthAt(bytes, at + 1, 2), depth);
    case 0xdf:
      return scanMap(bytes, at + 5, lengthAt(bytes, at + 1, 4), depth);
    case 0xc1:
      return malformed("the byte 0xc1 is never used", at);
    default:
      throw new BedplateError("frame.extension", `The frame has an extension type at offset ${at}.`);
  }
}

function scanArray(bytes: Uint8Array, start: number, count: number, depth: number): number {
  enter(bytes, start, count, depth);
  let at = start;
  for (let i = 0; i < count; i++) at = scanValue(bytes, at, depth + 1);
  return at;
}

function scanMap(bytes: Uint8Array, start: number, count: number, depth: number): number {
  enter(bytes, start, 2 * count, depth);
  const keys = new Set<string>();
  let at = start;
  for (let i = 0; i < count; i++) {
    const type = byteAt(bytes, at);
    const isString = (type >= 0xa0 && type <= 0xbf) || (type >= 0xd9 && type <= 0xdb);
    const end = scanValue(bytes, at, depth + 1);
    if (!isString)
      throw new BedplateError("frame.bad-key", `The map at offset ${start} has a key that is not a string.`);
    const header = type <= 0xbf ? 1 : type === 0xd9 ? 2 : type === 0xda ? 3 : 5;
    // Compared as bytes: what two decoders might read differently is still two keys here.
    const key = String.fromCharCode(
      ...bytes.subarray(at + header, Math.min(end, at + header + keyBytesMax + 1)),
    );
    if (key.length > keyBytesMax)
      throw new BedplateError("frame.bad-key", `A key at offset ${at} is longer than ${keyBytesMax} bytes.`);
    if (key === "__proto__")
      throw new BedplateError("frame.bad-key", `The key "__proto__" at offset ${at} is not allowed.`);
    if (keys.has(key))
      throw new BedplateError("frame.bad-key", `The map at offset ${start} has the key "${key}" twice.`);
    keys.add(key);
    at = scanValue(bytes, end, depth + 1);
  }
  return at;
}

const keyBytesMax = 256;

function enter(bytes: Uint8Array, start: number, values: number, depth: number): void {
  if (depth >= limits.frameDepthMax) {
    throw new BedplateError("frame.too-deep", `The frame nests deeper than ${limits.frameDepthMax}.`);
  }
  if (values > bytes.length - start) {
    throw new BedplateError(
      "frame.too-large",
      `The frame claims ${values} values with ${Math.max(0, bytes.length - start)} bytes left.`,
    );
  }
}

function skip(bytes: Uint8Array, start: number, length: number): number {
  if (start + length > bytes.length) {
    throw new BedplateError(
      "frame.too-large",
      `The frame claims ${length} bytes with ${Math.max(0, bytes.length - start)} left.`,
    );
  }
  return start + length;
}

function scalar(bytes: Uint8Array, start: number, width: number): number {
  if (start + width > bytes.length) malformed("the frame ends within a number", start);
  return start + width;
}

function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? malformed("the frame ends within a message", at);
}

function lengthAt(bytes: Uint8Array, at: number, width: 1 | 2 | 4): number {
  let value = 0;
  for (let i = 0; i < width; i++) value = value * 256 + byteAt(bytes, at + i);
  return value;
}

function malformed(what: string, at: number): never {
  throw new BedplateError("frame.malformed", `The frame is malformed: ${what} (offset ${at}).`);
}

// The packer writes a number beyond 32 bits as a float; as a bigint it stays an integer. Copies only what it must.
function withWideIntegers(value: unknown): unknown {
  if (typeof value === "number") {
    return Number.isSafeInteger(value) && (value > 0xffff_ffff || value < -0x8000_0000)
      ? BigInt(value)
      : value;
  }
  if (value === null || typeof value !== "object" || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map(withWideIntegers);
  const copy: Record<string, unknown> = {};
  for (const [key, member] of Object.entries(value))
    if (member !== undefined) copy[key] = withWideIntegers(member);
  return copy;
}
